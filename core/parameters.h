// The parameters of one rank: flat buffers with the same layout, values and gradients in f32, and named views of
// them. The optimizer, the reduction buckets and the checkpoint work on ranges of the flat buffers. Where the back end's
// activation dtype A is not f32, a third one holds the values rounded to A: ops read matrices there, and gains and biases
// from the f32 values.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/backend.h"

namespace vqlm {

/// Groups of parameters start at multiples of so many floats, so that every matrix is aligned for vector loads on all back
/// ends.
constexpr std::int64_t parameter_alignment = 64;
/// The first place from the next multiple of the alignment on that lies as `like` does between two of them.
constexpr std::int64_t aligned_like(std::int64_t like, std::int64_t from) {
  return (from + parameter_alignment - 1) / parameter_alignment * parameter_alignment + like % parameter_alignment;
}

/// How a parameter starts: value + stddev * normal, drawn by (seed, logical name, logical element), so that
/// every process grid starts with the same model.
struct Initializer {
  float value = 0;
  float stddev = 0;
};

/// Which learning rate a parameter follows (the optimizer's settings say what they are).
enum class RateRole { common, embedding };

/// What changes a parameter's values in a training step.
enum class UpdateRule {
  gradient,        // the optimizer follows the gradient
  moving_average,  // the optimizer averages what was accumulated in the gradient's place (Parameter::average_decay)
  derived,         // nothing here: the layer makes the values from other parameters after the update
};

/// A logical tensor (named as in Hugging Face's Llama) and this rank's slice of it.
struct Parameter {
  std::string name;
  Shape global_shape;
  Shape offset;  // of the slice in the logical tensor; same rank as global_shape
  Shape shape;   // of the slice
  Initializer init;
  bool decay = true;  // weight decay applies (matrices only)
  RateRole rate = RateRole::common;
  bool hidden_matrix = false;  // from hidden states to hidden states: what the optimizer Muon orthogonalises
  UpdateRule rule = UpdateRule::gradient;
  float average_decay = 0;  // of a moving average, a step
  /// The slice's first extent with padding behind it, which is zero in values and gradients and no part of the logical
  /// tensor: padded_operand() shows it to products. 0: no padding.
  std::int64_t padded_rows = 0;
  // Set by the store, the second when it allocates:
  int bucket = 0;
  std::int64_t flat_begin = 0;  // of the slice in the flat buffers
};

/// A parameter that every rank of the tensor group holds whole; vectors do not decay.
Parameter replicated_parameter(const std::string& name, Shape shape, float stddev);

/// Parameters whose gradients are complete at the same moment of backward; a contiguous range of the flat
/// buffers.
struct ParameterBucket {
  std::string name;
  bool replicated = false;  // over the tensor group: gradients are partial sums there
  std::int64_t begin = 0;
  std::int64_t count = 0;     // a multiple of the data group's size
  bool only_matrices = true;  // ops read nothing of it in f32 where A is another dtype
};

/// Index of a parameter in the store.
using ParameterId = int;

class ParameterStore {
 public:
  /// Every bucket's length is padded to a multiple of `data_size` (ZeRO-1 cuts it into equal pieces).
  ParameterStore(Backend& backend, int data_size);

  /// Buckets lie one after the other in the flat buffers. Returns the bucket's index.
  int add_bucket(const std::string& name, bool replicated);
  /// Adds parameters that lie one right after the other in the bucket, so that fused_operand() may view them as one matrix.
  /// Returns the first one's id; the others follow. Ids are in the order of the calls, whatever the bucket.
  ParameterId add(int bucket, std::vector<Parameter> group);

  /// Lays out the buckets, allocates values (and gradients where `trainable`) and zero-fills both. Nothing can be added
  /// afterwards.
  void allocate(bool trainable);
  /// Draws every parameter from its initializer.
  void initialize(std::uint64_t seed);

  /// The f32 master value. In a training step on several data ranks with A = bf16, current on its owner only (Optimizer).
  Tensor value(ParameterId id) const { return fused(flat_values(), id, 1); }
  /// What ops read: a matrix (rank 2 or more) in A, a vector in f32.
  Tensor operand(ParameterId id) const { return fused_operand(id, 1); }
  Tensor gradient(ParameterId id) const { return fused(flat_gradients(), id, 1); }
  /// The same with the padding (padded_rows, ...): what makes padded logits, and their gradient.
  Tensor padded_operand(ParameterId id) const { return padded(operand(id), id); }
  Tensor padded_gradient(ParameterId id) const { return padded(gradient(id), id); }
  /// `count` parameters of one group, stacked along their first axis (all other extents must agree).
  Tensor fused_operand(ParameterId first, int count) const;
  Tensor fused_gradient(ParameterId first, int count) const { return fused(flat_gradients(), first, count); }

  const std::vector<Parameter>& parameters() const { return parameters_; }
  const std::vector<ParameterBucket>& buckets() const { return buckets_; }
  /// The whole flat buffers, rank 1, padding included (padding stays zero).
  Tensor flat_values() const { return flat(values_, DType::f32); }
  Tensor flat_gradients() const { return flat(gradients_, DType::f32); }
  /// The values rounded to A; absent where A is f32.
  Tensor flat_rounded() const { return flat(rounded_, backend_.activation_dtype()); }
  /// Rounds the values [begin, begin + count) of the flat buffer again, after they were changed from outside.
  void round_values(std::int64_t begin, std::int64_t count);
  std::int64_t flat_size() const { return flat_size_; }
  /// Elements of all logical tensors, whatever the grid; moving averages, which are no part of the model, left out.
  std::int64_t global_count() const;
  /// Elements of `count` logical tensors, from `first` on.
  std::int64_t global_count(ParameterId first, int count) const;

  /// Copies this rank's slice out of a whole logical tensor in host memory, `data` (global_shape).
  void set_from_whole(ParameterId id, const std::vector<float>& data);
  /// Copies this rank's slice from host memory.
  void set_slice(ParameterId id, const std::vector<float>& slice);

 private:
  Tensor flat(const Buffer& buffer, DType dtype) const;
  Tensor fused(Tensor flat, ParameterId first, int count) const;
  Tensor padded(Tensor slice, ParameterId id) const;
  void lay_out();
  void lay_out(ParameterBucket& bucket, int index);

  /// Parameters that lie together.
  struct Group {
    ParameterId first = 0;
    int count = 0;
  };

  Backend& backend_;
  int data_size_;
  std::vector<Parameter> parameters_;
  std::vector<Group> groups_;
  std::vector<ParameterBucket> buckets_;
  std::int64_t flat_size_ = 0;
  Buffer values_;
  Buffer gradients_;
  Buffer rounded_;  // none where A is f32
};

}  // namespace vqlm
