#include "core/model/head/embedding_members.h"

#include "core/tensor_arena.h"

namespace vqlm {
namespace {

/// f32 numbers for swap_axes, which only moves them and takes A: where that is bf16, as twice as many halves.
Tensor for_moving(Tensor x, Shape shape, DType a) {
  if (a == DType::f32) return x.view(shape);
  const int last = shape.rank() - 1;
  shape.set(last, 2 * shape[last]);
  return Tensor(x.data(), a, shape);
}

}  // namespace

EmbeddingMembers::EmbeddingMembers(const HeadContext& context, const EmbeddingMembersConfig& config,
                                   const CodeMapView& map)
    : tensor_(context.tensor),
      parameters_(context.parameters),
      table_(context.embedding),
      vocab_size_(context.model.vocab_size),
      d_model_(context.model.d_model),
      clusters_(map.member_begin.extent(0) - 1),
      adds_means_(config.mean),
      trainable_(context.trainable),
      map_(map) {
  VQLM_ASSERT(d_model_ % tensor_.size() == 0);
  allocate(context.trainable);
}

void EmbeddingMembers::allocate(bool trainable) {
  Backend& backend = tensor_.backend();
  const DType a = backend.activation_dtype();
  const std::int64_t parts = tensor_.size();
  TensorArena arena;
  arena.add(vectors_, {vocab_size_, d_model_}, a);
  if (parts > 1) {
    arena.add(own_, {vocab_size_, own_columns()}, a);
    arena.add(gathered_, {parts, vocab_size_, own_columns()}, a);
  }
  const std::int64_t padded = backend.padded_classes(clusters_);
  if (adds_means_) arena.add(cluster_vectors_, {padded, d_model_}, a);
  if (trainable) {
    arena.add(vectors_gradient_, {vocab_size_, d_model_}, DType::f32);
    if (parts > 1) {
      arena.add(own_gradient_, {vocab_size_, own_columns()}, DType::f32);
      arena.add(gradient_parts_, {parts, vocab_size_, own_columns()}, DType::f32);
    }
    if (adds_means_) arena.add(cluster_gradient_, {padded, d_model_}, DType::f32);
  }
  storage_ = arena.allocate(backend, MemoryUse::workspace);
  if (adds_means_) backend.fill(cluster_vectors_, 0.0f);  // the padding stays zero
}

Tensor EmbeddingMembers::vectors() {
  if (made_ && !trainable_) return vectors_;
  made_ = true;
  Backend& backend = tensor_.backend();
  const Tensor table = parameters_.operand(table_);
  const std::int64_t parts = tensor_.size();
  if (parts == 1) {
    backend.run(EmbeddingForward{.out = vectors_, .ids = map_.members, .table = table, .first_row = 0});
    return vectors_;
  }
  backend.run(EmbeddingForward{.out = own_, .ids = map_.members, .table = table, .first_row = 0});
  tensor_.gather(own_, gathered_.view({parts * vocab_size_, own_columns()}));
  backend.run(SwapAxes{.dst = vectors_.view({vocab_size_, parts, own_columns()}), .src = gathered_});
  return vectors_;
}

Tensor EmbeddingMembers::cluster_vectors(Tensor codes) {
  if (!adds_means_) return codes;
  VQLM_ASSERT(made_);
  if (!clusters_made_ || trainable_) {
    tensor_.backend().run(AddMemberMeans{.out = cluster_vectors_.rows(0, clusters_),
                                         .codebook = codes.rows(0, clusters_),
                                         .members = vectors_,
                                         .map = map_});
    clusters_made_ = true;
  }
  return cluster_vectors_;
}

Tensor EmbeddingMembers::begin_backward() {
  tensor_.backend().fill(vectors_gradient_, 0.0f);
  return vectors_gradient_;
}

void EmbeddingMembers::end_backward(ParameterId codes) {
  if (adds_means_) {
    tensor_.backend().run(AddMemberMeansBackward{.dcodebook = parameters_.gradient(codes),
                                                 .dmembers = vectors_gradient_,
                                                 .dout = cluster_gradient_.rows(0, clusters_),
                                                 .map = map_});
  }
  scatter_gradient();
}

void EmbeddingMembers::scatter_gradient() {
  Backend& backend = tensor_.backend();
  const Tensor dtable = parameters_.gradient(table_);
  const std::int64_t parts = tensor_.size();
  if (parts == 1) {
    backend.run(ScatterAddRows{.dtable = dtable, .dout = vectors_gradient_, .rows = map_.members});
    return;
  }
  const std::int64_t columns = own_columns();
  const DType a = backend.activation_dtype();
  backend.run(SwapAxes{.dst = for_moving(gradient_parts_, {parts, vocab_size_, columns}, a),
                       .src = for_moving(vectors_gradient_, {vocab_size_, parts, columns}, a)});
  tensor_.reduce_scatter(own_gradient_, gradient_parts_.view({parts * vocab_size_, columns}));
  backend.run(ScatterAddRows{.dtable = dtable, .dout = own_gradient_, .rows = map_.members});
}

}  // namespace vqlm
