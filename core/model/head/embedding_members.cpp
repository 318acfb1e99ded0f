#include "core/model/head/embedding_members.h"

#include "core/tensor_arena.h"

namespace vqlm {

EmbeddingMembers::EmbeddingMembers(const HeadContext& context, const EmbeddingMembersConfig& config,
                                   const DeviceCodeMap& map)
    : tensor_(context.tensor),
      parameters_(context.parameters),
      table_(context.embedding),
      d_model_(context.model.d_model),
      clusters_(map.whole().member_begin.extent(0) - 1),
      adds_means_(config.mean),
      trainable_(context.trainable),
      map_(map) {
  VQLM_ASSERT(map.has_parts() == (context.tensor.size() > 1));
  allocate(context.trainable);
}

void EmbeddingMembers::allocate(bool trainable) {
  Backend& backend = tensor_.backend();
  const DType a = backend.activation_dtype();
  const std::int64_t members = map_.members().members.numel();
  TensorArena arena;
  arena.add(vectors_, {members, d_model_}, a);
  const std::int64_t padded = backend.padded_classes(clusters_);
  if (adds_means_) {
    arena.add(cluster_vectors_, {padded, d_model_}, a);
    if (map_.has_parts()) arena.add(means_, {clusters_, d_model_}, DType::f32);
  }
  if (trainable) {
    arena.add(vectors_gradient_, {members, d_model_}, DType::f32);
    if (adds_means_) arena.add(cluster_gradient_, {padded, d_model_}, DType::f32);
  }
  storage_ = arena.allocate(backend, MemoryUse::workspace);
  if (adds_means_) backend.fill(cluster_vectors_, 0.0f);  // the padding stays zero
}

Tensor EmbeddingMembers::vectors(Reuse reuse) {
  if (made_in_ && (!trainable_ || (reuse == Reuse::in_step && *made_in_ == parameters_.step()))) return vectors_;
  made_in_ = parameters_.step();
  clusters_made_ = false;
  tensor_.backend().run(EmbeddingForward{
      .out = vectors_, .ids = map_.table_rows(), .table = parameters_.operand(table_), .first_row = 0});
  return vectors_;
}

Tensor EmbeddingMembers::cluster_vectors(Tensor codes) {
  if (!adds_means_) return codes;
  VQLM_ASSERT(made_in_);
  if (clusters_made_) return cluster_vectors_;
  clusters_made_ = true;
  if (map_.has_parts()) {
    sum_means(codes.rows(0, clusters_));
  } else {
    tensor_.backend().run(AddMemberMeans{.out = cluster_vectors_.rows(0, clusters_),
                                         .codebook = codes.rows(0, clusters_),
                                         .members = vectors_,
                                         .map = map_.whole()});
  }
  return cluster_vectors_;
}

void EmbeddingMembers::sum_means(Tensor codes) {
  Backend& backend = tensor_.backend();
  backend.run(MemberMeansPart{.means = means_, .vectors = vectors_, .map = map_.members()});
  tensor_.all_reduce(means_);
  backend.run(AddScaled{.out = cluster_vectors_.rows(0, clusters_), .x = codes, .y = means_, .y_scale = 1});
}

Tensor EmbeddingMembers::begin_backward(MicroBatchPlace place) {
  if (place.first) tensor_.backend().fill(vectors_gradient_, 0.0f);
  return vectors_gradient_;
}

void EmbeddingMembers::end_backward(ParameterId codes, MicroBatchPlace place) {
  if (!place.last) return;
  Backend& backend = tensor_.backend();
  if (adds_means_) {
    const Tensor gradient = cluster_gradient_.rows(0, clusters_), of_codes = parameters_.gradient(codes);
    if (map_.has_parts()) {
      // The codes' gradient is this rank's rows', as that of all replicated parameters; members here have rows everywhere.
      backend.run(AddScaled{.out = of_codes, .x = of_codes, .y = gradient, .y_scale = 1});
      tensor_.all_reduce(gradient);
    }
    backend.run(AddMemberMeansBackward{.dcodebook = map_.has_parts() ? Tensor{} : of_codes,
                                       .dmembers = vectors_gradient_,
                                       .dout = gradient,
                                       .map = map_.members()});
  }
  backend.run(
      ScatterAddRows{.dtable = parameters_.gradient(table_), .dout = vectors_gradient_, .rows = map_.table_rows()});
}

}  // namespace vqlm
