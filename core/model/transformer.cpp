#include "core/model/transformer.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "core/model/head/adaptive_head.h"
#include "core/model/head/dense_head.h"
#include "core/model/head/low_rank_head.h"
#include "core/model/head/vq_head.h"
#include "core/model/rope.h"
#include "core/tensor_arena.h"

namespace vqlm {
namespace {

/// 0.02, or less where a head scores tokens with the table's rows: then the first scores, whose standard deviation is
/// stddev * sqrt(d) for hidden states of unit variance, would be noise that training has to undo. The input does not mind: a
/// norm follows. A table that a low-rank head shares starts as that head's matrix.
float embedding_stddev(const ModelConfig& model, const HeadConfig& head) {
  const auto* low_rank = low_rank_of(head);
  if (low_rank != nullptr && model.tie_embeddings) return low_rank_stddev(model.d_model, low_rank->rank);
  constexpr float usual = 0.02f, first_scores = 0.5f;
  const auto* vq = vq_of(head);
  if (vq == nullptr || !vq->by_embedding()) return usual;
  return std::min(usual, first_scores / std::sqrt(static_cast<float>(model.d_model)));
}

}  // namespace

Transformer::Transformer(Backend& backend, Communicator& tensor_group, const Options& options, const CodeMap* map)
    : backend_(backend),
      config_(options.model),
      batch_(options.batch),
      recompute_(options.purpose == Purpose::training ? options.recompute : Recompute::none),
      tensor_(backend, tensor_group),
      parameters_(backend, options.share),
      rows_(options.batch.rows() / tensor_group.size()),
      scratch_(tensor_, options.model, options.batch, options.purpose == Purpose::training) {
  VQLM_ASSERT(batch_.rows() % tensor_.size() == 0);
  const bool training = options.purpose == Purpose::training;
  const auto* vq = vq_of(options.head);
  const bool tied = config_.tie_embeddings, by_vocabulary = tied || (vq != nullptr && vq->by_embedding());
  const auto* low_rank = low_rank_of(options.head);
  const auto* adaptive = adaptive_of(options.head);
  const bool replicated = vq != nullptr || adaptive != nullptr;  // over the tensor group
  VQLM_ASSERT(!map_sizes(options.head) || (!tied && map != nullptr));
  const bool generation = options.purpose == Purpose::generation;
  if (generation && tensor_.size() != 1) {
    throw Error("text is generated on one tensor rank, but " + std::to_string(tensor_.size()) +
                " share this model; use parallel.tensor=1");
  }
  rope_frequencies_ = rotation_of(rope_frequencies(config_));
  if (config_.window_rope_theta > 0) window_rope_frequencies_ = rotation_of(window_rope_frequencies(config_));

  open_buckets(options);
  const RowGradients rows = training ? options.row_gradients : RowGradients{};
  const float stddev = embedding_stddev(config_, options.head);
  ngrams_.emplace(tensor_, config_, batch_, parameters_,
                  NgramTables::Options{.stddev = stddev,
                                       .bucket = tables_bucket_,
                                       .by_vocabulary = by_vocabulary,
                                       .history = generation ? options.context : 0,
                                       .micro_batches = rows.input_tables ? rows.micro_batches : 0});
  VQLM_ASSERT(!rows.embedding || vq == nullptr || !vq->by_embedding());
  embedding_.emplace(tensor_, config_, parameters_,
                     Embedding::Options{.bucket = embedding_bucket_,
                                        .by_vocabulary = by_vocabulary,
                                        .tied = tied,
                                        .width = tied && low_rank != nullptr ? low_rank->rank : config_.d_model,
                                        .stddev = stddev,
                                        .micro_batches = rows.embedding ? rows.micro_batches : 0,
                                        .batch = batch_},
                     *ngrams_);
  blocks_.reserve(static_cast<std::size_t>(config_.n_layers));
  for (int layer = 0; layer < config_.n_layers; ++layer) {
    const LayerBuckets buckets{layer_buckets_[static_cast<std::size_t>(layer)], replicated_bucket_};
    const Buffer& rope = config_.rotates_locally(layer) ? window_rope_frequencies_ : rope_frequencies_;
    blocks_.emplace_back(tensor_, config_, batch_, parameters_, buckets,
                         rope.view({config_.head_dim() / 2}, DType::f64), layer);
  }
  final_gain_ = parameters_.add(replicated_bucket_, {norm_gain("model.norm.weight", config_.d_model)});
  const HeadContext context{.tensor = tensor_,
                            .model = config_,
                            .parameters = parameters_,
                            .buckets = {.matrices = replicated ? replicated_bucket_ : head_buckets_.front(),
                                        .biases = replicated ? replicated_bucket_ : head_buckets_.back(),
                                        .replicated = replicated_bucket_},
                            .rows = generation ? batch_.batch : rows_,
                            .trainable = training,
                            .input_rows = rows_,
                            .step_tokens = options.step_tokens,
                            .embedding = embedding_->table(),
                            .embedding_stddev = stddev};
  const auto table = tied ? std::optional(embedding_->table()) : std::nullopt;
  if (vq != nullptr) {
    head_ = std::make_unique<VqHead>(context, *vq, *map);
  } else if (adaptive != nullptr) {
    head_ = std::make_unique<AdaptiveHead>(context, *adaptive, *map);
  } else if (low_rank != nullptr) {
    auto head = std::make_unique<LowRankHead>(context, *low_rank, table);
    if (tied) embedding_->project_by(head->projection(), rows_);
    head_ = std::move(head);
  } else {
    head_ = std::make_unique<DenseHead>(context, std::get<DenseHeadConfig>(options.head), table);
  }
  if (const FutureHeadsConfig& future = future_of(options.head); future.heads > 0) future_.emplace(context, future);
  parameters_.allocate(training);
  allocate_activations(options.purpose);
  if (generation) cache_.emplace(backend_, config_, batch_.batch, options.context);
  if (config_.document_end >= 0) {
    const std::int64_t positions = batch_.batch * (generation ? options.context : batch_.seq_len);
    documents_ =
        backend_.allocate(static_cast<std::size_t>(2 * positions) * sizeof(std::int32_t), MemoryUse::workspace);
    scratch_.documents = documents_.view({2, batch_.batch, positions / batch_.batch}, DType::i32);
  }
}

Buffer Transformer::rotation_of(const std::vector<double>& frequencies) {
  Buffer buffer = backend_.allocate(frequencies.size() * sizeof(double), MemoryUse::workspace);
  backend_.copy_from_host(buffer.view({static_cast<std::int64_t>(frequencies.size())}, DType::f64), frequencies.data());
  return buffer;
}

// Buckets stand in the order of forward; backward completes them from the last to the first.
void Transformer::open_buckets(const Options& options) {
  const HeadConfig& head = options.head;
  const RowGradients rows = options.purpose == Purpose::training ? options.row_gradients : RowGradients{};
  embedding_bucket_ = rows.embedding ? no_bucket : parameters_.add_bucket("embedding", false);
  tables_bucket_ = embedding_bucket_;
  if (!config_.ngram_tables.empty() && !rows.input_tables)
    tables_bucket_ = parameters_.add_bucket("input tables", false);
  for (int layer = 0; layer < config_.n_layers; ++layer) {
    layer_buckets_.push_back(parameters_.add_bucket("layer " + std::to_string(layer), false));
  }
  if (vq_of(head) == nullptr && adaptive_of(head) == nullptr) {
    head_buckets_ = {parameters_.add_bucket("head", false)};
    if (has_bias(head) && !config_.tie_embeddings) head_buckets_.push_back(parameters_.add_bucket("head bias", false));
  }
  replicated_bucket_ = parameters_.add_bucket("replicated", true);
  input_buckets_ = {replicated_bucket_};
  if (embedding_bucket_ != no_bucket) input_buckets_.push_back(embedding_bucket_);
  if (tables_bucket_ != embedding_bucket_) input_buckets_.push_back(tables_bucket_);
}

void Transformer::allocate_activations(Purpose purpose) {
  const DType a = backend_.activation_dtype();
  // Without backward no layer's activations are needed after the layer, so all of them share one set.
  activations_.resize(purpose == Purpose::training ? blocks_.size() : 1);
  TensorArena arena;
  Block::Activations shared;
  for (Block::Activations& saved : activations_) {
    blocks_.front().place_activations(arena, saved, Block::ActivationGroups::kept(recompute_));
  }
  blocks_.front().place_activations(arena, shared, Block::ActivationGroups::shared(recompute_));
  for (Tensor* tensor : {&final_input_, &hidden_, &hidden_gradient_}) {
    arena.add(*tensor, {rows_, config_.d_model}, a);
  }
  arena.add(final_rstd_, {rows_}, DType::f32);
  if (future_ && tensor_.size() > 1) arena.add(future_targets_, {future_->count(), rows_}, DType::i32);
  if (purpose == Purpose::generation) arena.add(last_hidden_, {batch_.batch, config_.d_model}, a);
  activation_storage_ = arena.allocate(backend_, MemoryUse::activations);
  for (Block::Activations& saved : activations_) Block::share(saved, shared, recompute_);
}

void Transformer::initialize(std::uint64_t seed, const std::vector<std::int64_t>& counts) {
  parameters_.initialize(seed);
  head_->initialize(counts);
}

double Transformer::flops_per_token() const {
  double weights = 0, without_gradient = 0;
  for (const Block& block : blocks_) weights += static_cast<double>(block.weights());
  for (const Parameter& p : parameters_.parameters()) {
    if (p.rule == UpdateRule::derived) without_gradient += static_cast<double>(p.global_shape.numel());
  }
  double attention = 0;
  for (int layer = 0; layer < config_.n_layers; ++layer) {
    const std::int64_t all = batch_.seq_len, window = config_.window_of(layer);
    const auto hidden =
        static_cast<double>(window > 0 && window < all ? all - window : 0);  // see AttentionForward::cost()
    const double seen = static_cast<double>(all) - hidden * hidden / static_cast<double>(all);
    attention += 6.0 * seen * config_.n_heads * config_.head_dim();
  }
  return 6.0 * (weights + embedding_->multiply_adds() + head_cost().multiply_adds) - 2.0 * without_gradient + attention;
}

}  // namespace vqlm
