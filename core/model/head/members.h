// How a VQ head tells the members of a cluster apart: the part of it that HeadConfig's `members` chooses.
#pragma once

#include <memory>

#include "core/model/head/device_code_map.h"
#include "core/model/head/output_head.h"

namespace vqlm {

/// What of the parameters has been read before and may serve again.
enum class Reuse {
  none,     // they may have changed at any time
  in_step,  // they are as they were since the step's gradients began (ParameterStore::begin_gradients())
};

/// Members that differ in their token bias alone (the published VQ-Logits method), and the interface of those that have
/// vectors u_w, so that s_w = h . u_w + b_w.
class Members {
 public:
  virtual ~Members() = default;

  /// Numbers of one u_w; 0: there are none.
  virtual std::int64_t width() const { return 0; }
  /// Parameters of its own.
  virtual std::int64_t parameters() const { return 0; }
  /// What member ops take as member_codebook (code_map_view.h); absent where members have no vectors.
  virtual Tensor vectors(Reuse /*reuse*/) { return {}; }
  /// What clusters are scored with, from their codes (K, d) A, padded: these, or a sum with what vectors() gave last, valid
  /// until the next call. Collective over the tensor group.
  virtual Tensor cluster_vectors(Tensor codes) { return codes; }

  /// Where the gradient of cluster_vectors() is to be summed over a step, (K, d) f32, padded; absent: the codes' own gradient
  /// is it.
  virtual Tensor cluster_gradient() { return {}; }
  /// Where the gradient of vectors() accumulates from here on, to end_backward() of the step's last micro-batch; absent as
  /// vectors() is.
  virtual Tensor begin_backward(MicroBatchPlace /*place*/) { return {}; }
  /// Behind the last micro-batch, gradients of the parameters behind vectors() and cluster_vectors() accumulate. Collective
  /// over the tensor group.
  virtual void end_backward(ParameterId /*codes*/, MicroBatchPlace /*place*/) {}
};

/// Adds the parameters that these members have to the bucket of matrices. The map outlives the members.
std::unique_ptr<Members> make_members(const HeadContext& context, const VqHeadConfig& head, const DeviceCodeMap& map);

}  // namespace vqlm
