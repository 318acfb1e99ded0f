#include "core/model/head/member_softmax.h"

#include "core/tensor_arena.h"

namespace vqlm {

MemberSoftmax::MemberSoftmax(const TensorParallel& tensor, const DeviceCodeMap& map, std::int64_t rows,
                             std::int64_t width, bool trainable)
    : tensor_(tensor), map_(map), rows_(rows) {
  allocate(width, trainable);
}

void MemberSoftmax::allocate(std::int64_t width, bool trainable) {
  const DType a = tensor_.backend().activation_dtype();
  const std::int64_t ranks = map_.has_parts() ? tensor_.size() : 1, all_rows = ranks * rows_;
  TensorArena arena;
  arena.add(clusters_of_rows_, {all_rows}, DType::i32);
  arena.add(order_, {all_rows}, DType::i32);
  arena.add(row_begin_, {map_.whole().member_begin.numel()}, DType::i32);
  if (map_.has_parts()) {
    arena.add(all_targets_, {all_rows}, DType::i32);
    arena.add(h_rows_, {all_rows, width}, a);
    arena.add(statistics_, {all_rows, 3}, DType::f32);
    arena.add(all_statistics_, {ranks, all_rows, 3}, DType::f32);
    arena.add(lse_, {all_rows}, DType::f32);
    arena.add(nll_, {all_rows}, DType::f32);
    if (trainable) {
      arena.add(dh_rows_, {all_rows, width}, a);
      arena.add(own_dh_, {rows_, width}, a);
    }
  }
  storage_ = arena.allocate(tensor_.backend(), MemoryUse::workspace);
}

Tensor MemberSoftmax::sort(Tensor targets) {
  targets_ = map_.has_parts() ? tensor_.gather(targets, all_targets_) : targets;
  tensor_.backend().run(SortRowsByCluster{.clusters = clusters_of_rows_,
                                          .order = order_,
                                          .row_begin = row_begin_,
                                          .targets = targets_,
                                          .map = map_.whole()});
  return map_.has_parts() ? clusters_of_rows_.rows(tensor_.rank() * rows_, rows_) : clusters_of_rows_;
}

void MemberSoftmax::forward(Tensor nll, Tensor h, Tensor vectors, Tensor bias) {
  if (map_.has_parts()) {
    combine(nll, tensor_.gather(h, h_rows_), vectors, bias);
    return;
  }
  forward_backward(nll, {}, h, vectors, bias);
}

void MemberSoftmax::forward_backward(Tensor nll, const MemberGradients& gradients, Tensor h, Tensor vectors,
                                     Tensor bias) {
  Backend& backend = tensor_.backend();
  if (!map_.has_parts()) {
    backend.run(MemberEntropy{.nll = nll,
                              .gradients = gradients,
                              .h = h,
                              .targets = targets_,
                              .order = order_,
                              .row_begin = row_begin_,
                              .member_codebook = vectors,
                              .token_bias = bias,
                              .map = map_.whole()});
    return;
  }
  const Tensor h_rows = tensor_.gather(h, h_rows_);
  combine(nll, h_rows, vectors, bias);
  MemberGradients of_part = gradients;
  of_part.dh = dh_rows_;
  backend.fill(dh_rows_, 0.0f);
  backend.run(MemberPartGradient{.gradients = of_part,
                                 .h = h_rows,
                                 .lse = lse_,
                                 .targets = targets_,
                                 .order = order_,
                                 .row_begin = row_begin_,
                                 .vectors = vectors,
                                 .token_bias = bias,
                                 .map = map_.members()});
  tensor_.reduce_scatter(own_dh_, dh_rows_);
  backend.run(Add{.out = gradients.dh, .a = gradients.dh, .b = own_dh_});
}

void MemberSoftmax::combine(Tensor nll, Tensor h_rows, Tensor vectors, Tensor bias) {
  Backend& backend = tensor_.backend();
  backend.run(MemberStatistics{.statistics = statistics_,
                               .h = h_rows,
                               .targets = targets_,
                               .order = order_,
                               .row_begin = row_begin_,
                               .vectors = vectors,
                               .token_bias = bias,
                               .map = map_.members()});
  const std::int64_t ranks = tensor_.size(), all_rows = ranks * rows_;
  const Tensor all = tensor_.gather(statistics_, all_statistics_.view({ranks * all_rows, 3}));
  backend.run(
      SoftmaxCombine{.nll = nll_, .lse = lse_, .statistics = all.view({ranks, all_rows, 3}), .targets = targets_});
  backend.run(AddScaled{.out = nll, .x = nll, .y = nll_.rows(tensor_.rank() * rows_, rows_), .y_scale = 1});
}

}  // namespace vqlm
