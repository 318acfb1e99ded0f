// The parameters of one rank: flat buffers with the same layout, values and gradients in f32, and named views of
// them. The optimizer, the reduction buckets and the checkpoint work on ranges of the flat buffers. Where the back end's
// activation dtype A is not f32, a third one holds the values rounded to A: ops read matrices there, and gains and biases
// from the f32 values. Buckets of nothing but matrices then have f32 values on their owners only (ZeRO-1), and none in a
// model that does not train.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "core/backend.h"
#include "core/parameter_role.h"

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

/// What changes a parameter's values in a training step.
enum class UpdateRule {
  gradient,        // the optimizer follows the gradient
  moving_average,  // the optimizer averages what was accumulated in the gradient's place (Parameter::average_decay)
  derived,         // nothing here: the layer makes the values from other parameters after the update
};

/// What a parameter's gradient is at the start of a step.
enum class GradientStart {
  zero,     // all that comes adds to it
  product,  // not defined: the first to come is a matrix product, which overwrites it (product_gradient())
};

/// A logical tensor (named as in Hugging Face's Llama) and this rank's slice of it.
struct Parameter {
  std::string name;
  Shape global_shape;
  Shape offset;  // of the slice in the logical tensor; same rank as global_shape
  Shape shape;   // of the slice
  Initializer init;
  ParameterRole role;
  bool decay = true;           // weight decay may apply (no bias)
  bool hidden_matrix = false;  // from hidden states to hidden states: what the optimizer Muon orthogonalises
  UpdateRule rule = UpdateRule::gradient;
  float average_decay = 0;  // of a moving average, a step
  GradientStart gradient_start = GradientStart::zero;
  /// The slice's first extent with padding behind it, which is zero in values and gradients and no part of the logical
  /// tensor: padded_operand() shows it to products. 0: no padding.
  std::int64_t padded_rows = 0;
  // Set by the store, the second when it allocates:
  int bucket = 0;
  std::int64_t flat_begin = 0;  // of the slice in the flat buffers
};

/// The head's own: not an embedding table that it reads, too.
inline bool belongs_to_head(const Parameter& parameter) {
  return parameter.role == ParameterRole::head || parameter.role == ParameterRole::table;
}

/// A parameter that every rank of the tensor group holds whole; a head's vectors are biases, which do not decay.
Parameter replicated_parameter(const std::string& name, Shape shape, float stddev, ParameterRole role);

/// Parameters whose gradients are complete at the same moment of backward; a contiguous range of the flat
/// buffers.
struct ParameterBucket {
  std::string name;
  bool replicated = false;  // over the tensor group: gradients are partial sums there
  std::int64_t begin = 0;
  std::int64_t count = 0;     // a multiple of the data group's size
  bool by_rows = false;       // one table, of which a step has gradients of some rows alone, in place of a whole one
  bool only_matrices = true;  // ops read nothing of it in f32 where A is another dtype
  /// Its values are new on their owners and old elsewhere: after an update, before they are gathered.
  bool stale = false;
  /// Its f32 values that lie here, [masters_begin, masters_begin + masters_count) of the flat buffers; set by allocate().
  std::int64_t masters_begin = 0, masters_count = 0;
};

/// The ranks that share the optimizer's work on the parameters, and which of them this is.
struct DataShare {
  int size = 1;
  int rank = 0;
};

/// Index of a parameter in the store.
using ParameterId = int;

class ParameterStore {
 public:
  /// Every bucket's length is padded to a multiple of share.size: ZeRO-1 cuts it into equal pieces, a table by rows into pieces
  /// of whole rows.
  ParameterStore(Backend& backend, DataShare share);

  /// Buckets lie one after the other in the flat buffers. Returns the bucket's index.
  int add_bucket(const std::string& name, bool replicated);
  /// Adds parameters that lie one right after the other in the bucket, so that fused_operand() may view them as one matrix.
  /// Returns the first one's id; the others follow. Ids are in the order of the calls, whatever the bucket.
  ParameterId add(int bucket, std::vector<Parameter> group);

  /// A table with a bucket of its own, by rows; no bucket of another kind is added afterwards.
  ParameterId add_table(Parameter table);

  /// Lays out the buckets, allocates values, zero-filled, and where `trainable` gradients, which begin_gradients() defines.
  /// Nothing can be added afterwards.
  void allocate(bool trainable);
  /// Draws every parameter from its initializer.
  void initialize(std::uint64_t seed);

  /// After an update, until the owners' pieces are gathered, nobody may read a bucket as a whole: value(), flat_values() and
  /// what ops read (operand() and the like) assert that it is not stale. Ranges of masters() and flat_rounded() are the
  /// caller's business.
  void set_stale(int bucket, bool stale) { buckets_[static_cast<std::size_t>(bucket)].stale = stale; }

  /// The f32 master value, which must lie here as a whole.
  Tensor value(ParameterId id) const;
  /// What ops read: a matrix (rank 2 or more) in A, a vector in f32.
  Tensor operand(ParameterId id) const { return fused_operand(id, 1); }
  Tensor gradient(ParameterId id) const { return stacked_gradient(id, 1); }
  /// The operand with the padding (padded_rows, ...): what makes padded logits.
  Tensor padded_operand(ParameterId id) const { return padded(operand(id), id); }
  /// `count` parameters of one group, stacked along their first axis (all other extents must agree).
  Tensor fused_operand(ParameterId first, int count) const;

  /// A step's gradients begin: those of GradientStart::zero, and all between parameters, are set to zero, and those of
  /// GradientStart::product are no longer defined.
  void begin_gradients();
  /// How often they have begun. Until the step's update, values stay as they were then.
  std::int64_t step() const { return step_; }
  /// Where a product leaves the gradient of `count` parameters of one group, stacked, of one with its padding, and whether it
  /// adds to it: it does not where this is the first call for them since begin_gradients() and they start by a product.
  struct ProductGradient {
    Tensor c;
    Accumulate accumulate;
  };
  ProductGradient product_gradient(ParameterId first, int count = 1);
  /// Whether every gradient is defined, as far as calls of product_gradient() tell.
  bool gradients_defined() const { return undefined_.empty(); }

  /// Of a bucket by rows: the rows of its table that one data rank owns, and their width.
  Shape rows_of_owner(int bucket) const;

  const std::vector<Parameter>& parameters() const { return parameters_; }
  const std::vector<ParameterBucket>& buckets() const { return buckets_; }
  /// f32 master values [begin, begin + count) of the flat layout, which must lie here: within one bucket, or anywhere where
  /// all lie here.
  Tensor masters(std::int64_t begin, std::int64_t count) const;
  bool has_masters(std::int64_t begin, std::int64_t count) const;
  /// The whole flat buffers, rank 1, padding included (padding stays zero). All f32 values must lie here.
  Tensor flat_values() const;
  /// Up to the first bucket by rows.
  Tensor flat_gradients() const { return flat(gradients_, gradient_size_, DType::f32); }
  /// The values rounded to A; absent where A is f32.
  Tensor flat_rounded() const { return flat(rounded_, flat_size_, backend_.activation_dtype()); }
  /// Rounds the values [begin, begin + count) of the flat buffer again, after they were changed from outside; they must lie
  /// here.
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
  Tensor flat(const Buffer& buffer, std::int64_t size, DType dtype) const;
  bool is_stale(ParameterId id) const;
  /// The range of the flat buffers and the shape of `count` parameters of one group, stacked.
  struct Stack {
    std::int64_t begin;
    Shape shape;
  };
  Stack stacked(ParameterId first, int count) const;
  Tensor stacked_gradient(ParameterId first, int count) const;
  Tensor padded(Tensor slice, ParameterId id) const;
  void lay_out();
  void find_zeroed_ranges();
  /// Says which f32 values lie here, and returns how many.
  std::int64_t place_masters(bool trainable);
  /// The last bucket that begins at or before this place of the flat buffers.
  const ParameterBucket& bucket_at(std::int64_t begin) const;
  void lay_out(ParameterBucket& bucket, int index);

  struct FlatRange {
    std::int64_t begin, count;
  };
  /// Parameters that lie together.
  struct Group {
    ParameterId first = 0;
    int count = 0;
  };

  Backend& backend_;
  DataShare share_;
  std::vector<Parameter> parameters_;
  std::vector<Group> groups_;
  std::vector<ParameterBucket> buckets_;
  std::int64_t flat_size_ = 0;
  std::int64_t gradient_size_ = 0;
  bool whole_ = true;  // all f32 values lie here
  Buffer values_;      // the buckets' f32 values that lie here, one after the other
  Buffer gradients_;
  Buffer rounded_;  // none where A is f32
  std::int64_t step_ = 0;
  std::vector<FlatRange> zeroed_;    // of the gradients, by begin_gradients()
  std::set<ParameterId> undefined_;  // gradients that a product will overwrite
};

}  // namespace vqlm
