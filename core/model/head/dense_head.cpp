#include "core/model/head/dense_head.h"

#include <algorithm>

#include "core/tensor_arena.h"

namespace vqlm {
namespace {

// Memory for one chunk of logits. On a host 64 MiB holds 333 rows at V = 50,257: at V = 50,000, d = 512 the whole head is 4
// to 7 % faster than with 32 MiB, and 128 MiB gains nothing more (vqlm bench head). A GPU's products want thousands of
// rows: 512 MiB hold 5,336 at V = 50,257 in bf16 (not measured).
std::int64_t logits_budget(const Backend& backend) {
  return std::int64_t{backend.host_accessible() ? 64 : 512} << 20;
}

constexpr std::int64_t min_chunk_rows = 64;

}  // namespace

// Rows of a chunk: as few chunks as the budget allows, of equal size, because a short last one costs another pass over the
// gradient of the matrix and does not fill a device: 16,384 rows at V = 50,257 are 4 chunks of 4,096, not 3 of 5,336 and one
// of 376. On a device chunks are whole tiles of 128 rows where the budget holds one.
std::int64_t logit_chunk_rows(const Backend& backend, std::int64_t width, std::int64_t rows) {
  if (rows == 0) return 0;
  const auto row_bytes =
      static_cast<std::int64_t>(size_of(backend.activation_dtype())) * std::max<std::int64_t>(width, 1);
  const std::int64_t most =
      std::clamp<std::int64_t>(logits_budget(backend) / row_bytes, std::min(min_chunk_rows, rows), rows);
  constexpr std::int64_t tile_rows = 128;
  const std::int64_t unit = backend.host_accessible() || most < tile_rows ? 1 : tile_rows;
  const std::int64_t units = (rows + unit - 1) / unit;
  const std::int64_t chunks = most == rows ? 1 : (units + most / unit - 1) / (most / unit);
  return std::min((units + chunks - 1) / chunks * unit, rows);
}

DenseHead::DenseHead(const HeadContext& context, const DenseHeadConfig& config, std::optional<ParameterId> tied_table,
                     std::int64_t width, float stddev)
    : tensor_(context.tensor),
      parameters_(context.parameters),
      vocab_size_(context.model.vocab_size),
      hidden_width_(width),
      rows_(context.rows),
      part_(context.tensor.part_of(context.model.vocab_size)),
      width_(context.tensor.backend().padded_classes(part_.count)),
      tied_(tied_table.has_value()),
      z_loss_(config.z_loss),
      softcap_(config.softcap) {
  weight_ = tied_ ? *tied_table
                  : parameters_.add(context.buckets.matrices, {{.name = "lm_head.weight",
                                                                .global_shape = {vocab_size_, hidden_width_},
                                                                .offset = {part_.begin, 0},
                                                                .shape = {part_.count, hidden_width_},
                                                                .init = {.stddev = stddev},
                                                                .role = ParameterRole::head,
                                                                .gradient_start = GradientStart::product,
                                                                .padded_rows = width_}});
  if (config.bias) {
    bias_ = parameters_.add(context.buckets.biases, {{.name = "lm_head.bias",
                                                      .global_shape = {vocab_size_},
                                                      .offset = {part_.begin},
                                                      .shape = {part_.count},
                                                      .init = {},
                                                      .role = ParameterRole::head,
                                                      .decay = false}});
  }

  allocate_workspace(context.trainable, context.logits);
}

void DenseHead::allocate_workspace(bool trainable, LogitChunks chunks) {
  Backend& backend = tensor_.backend();
  const DType a = backend.activation_dtype();
  const std::int64_t p = tensor_.size();
  const std::int64_t all_rows = rows_ * p;
  // The chunk follows from the largest part, so that all ranks cut alike.
  chunk_rows_ = chunks == LogitChunks::one_for_all
                    ? all_rows
                    : logit_chunk_rows(backend, backend.padded_classes((vocab_size_ + p - 1) / p), all_rows);
  TensorArena arena;
  arena.add(logits_, {chunk_rows_, width_}, a);
  arena.add(statistics_, {chunk_rows_, 3}, DType::f32);
  arena.add(all_statistics_, {p, chunk_rows_, 3}, DType::f32);
  arena.add(lse_, {chunk_rows_}, DType::f32);
  arena.add(all_nll_, {all_rows}, DType::f32);
  if (trainable && z_loss_ > 0) arena.add(all_penalty_, {all_rows}, DType::f32);
  if (p > 1) {
    arena.add(h_rows_, {all_rows, hidden_width_}, a);
    if (trainable) arena.add(dh_rows_, {all_rows, hidden_width_}, a);
    arena.add(all_targets_, {all_rows}, DType::i32);
  }
  storage_ = arena.allocate(backend, MemoryUse::workspace);
}

HeadCost DenseHead::cost() const {
  return {.matrix_parameters = vocab_size_ * hidden_width_,
          .bias_parameters = bias_ ? vocab_size_ : 0,
          .code_bytes = 0,
          .multiply_adds = static_cast<double>(vocab_size_) * static_cast<double>(hidden_width_)};
}

void DenseHead::initialize(const std::vector<std::int64_t>& counts) {
  if (bias_) parameters_.set_from_whole(*bias_, log_unigram(counts));
}

void DenseHead::forward(Tensor nll, Tensor h, Tensor targets) {
  const Tensor h_rows = tensor_.gather(h, h_rows_);
  run(all_nll_, Tensor{}, Tensor{}, h_rows, tensor_.gather(targets, all_targets_), 0.0f);
  tensor_.backend().copy(nll, all_nll_.rows(tensor_.rank() * rows_, rows_));
}

void DenseHead::rows_forward_backward(Tensor nll, Tensor penalty, Tensor dh, Tensor h, Tensor targets, float scale) {
  const Tensor h_rows = tensor_.gather(h, h_rows_);
  const Tensor dh_rows = tensor_.size() == 1 ? dh : dh_rows_;
  run(all_nll_, all_penalty_, dh_rows, h_rows, tensor_.gather(targets, all_targets_), scale);
  tensor_.reduce_scatter(dh, dh_rows);
  tensor_.backend().copy(nll, all_nll_.rows(tensor_.rank() * rows_, rows_));
  if (all_penalty_) {
    tensor_.backend().copy(penalty, all_penalty_.rows(tensor_.rank() * rows_, rows_));
  } else {
    tensor_.backend().fill(penalty, 0.0f);
  }
}

void DenseHead::run(Tensor all_nll, Tensor all_penalty, Tensor dh_rows, Tensor h_rows, Tensor all_targets,
                    float scale) {
  Backend& backend = tensor_.backend();
  const Tensor weight = parameters_.padded_operand(weight_);
  const ClassShard classes{.first = part_.begin, .count = part_.count};
  const std::int64_t all_rows = h_rows.extent(0);
  for (std::int64_t begin = 0; begin < all_rows; begin += chunk_rows_) {
    const std::int64_t count = std::min(chunk_rows_, all_rows - begin);
    const Tensor h = h_rows.rows(begin, count);
    const Tensor targets = all_targets.rows(begin, count);
    const Tensor logits = logits_.rows(0, count);
    const Tensor statistics = statistics_.rows(0, count);
    const Tensor lse = lse_.rows(0, count);
    backend.run(Matmul{.c = logits, .a = h, .b = weight, .tb = Transpose::yes, .accumulate = Accumulate::no});
    if (dh_rows && tensor_.size() == 1) {
      backend.run(SoftmaxCrossEntropy{.nll = all_nll.rows(begin, count),
                                      .lse = lse,
                                      .penalty = all_penalty ? all_penalty.rows(begin, count) : Tensor{},
                                      .dbias = bias_ ? parameters_.gradient(*bias_) : Tensor{},
                                      .logits = logits,
                                      .statistics = statistics,
                                      .bias = bias(),
                                      .targets = targets,
                                      .classes = classes,
                                      .scale = scale,
                                      .z_loss = z_loss_,
                                      .softcap = softcap_});
      run_products(dh_rows.rows(begin, count), h, logits);
      continue;
    }
    backend.run(SoftmaxStatistics{.statistics = statistics,
                                  .logits = logits,
                                  .bias = bias(),
                                  .targets = targets,
                                  .classes = classes,
                                  .softcap = softcap_});
    const Tensor all_statistics = tensor_.gather(statistics, all_statistics_.view({tensor_.size() * chunk_rows_, 3}));
    backend.run(SoftmaxCombine{.nll = all_nll.rows(begin, count),
                               .lse = lse,
                               .statistics = all_statistics.view({tensor_.size(), count, 3}),
                               .targets = targets,
                               .penalty = all_penalty ? all_penalty.rows(begin, count) : Tensor{},
                               .z_loss = all_penalty ? z_loss_ : 0});
    if (!dh_rows) continue;
    backend.run(SoftmaxGradient{.logits = logits,
                                .bias = bias(),
                                .lse = lse,
                                .targets = targets,
                                .classes = classes,
                                .scale = scale,
                                .z_loss = z_loss_,
                                .softcap = softcap_});
    run_products(dh_rows.rows(begin, count), h, logits);
    if (bias_) backend.run(AddColumnSums{.out = parameters_.gradient(*bias_), .x = logits});
  }
}

void DenseHead::run_products(Tensor dh, Tensor h, Tensor dlogits) {
  const auto dweight = parameters_.product_gradient(weight_);
  tensor_.backend().run(
      Matmul{.c = dweight.c, .a = dlogits, .b = h, .ta = Transpose::yes, .accumulate = dweight.accumulate});
  tensor_.backend().run(
      Matmul{.c = dh, .a = dlogits, .b = parameters_.padded_operand(weight_), .accumulate = Accumulate::no});
}

void DenseHead::log_probs(Tensor out, Tensor h) {
  if (tensor_.size() != 1) {
    throw Error("log-probabilities of a dense head need the whole vocabulary on one rank: use parallel.tensor=1");
  }
  tensor_.backend().run(
      Matmul{.c = out, .a = h, .b = parameters_.operand(weight_), .tb = Transpose::yes, .accumulate = Accumulate::no});
  tensor_.backend().run(LogSoftmax{.logits = out, .bias = bias(), .softcap = softcap_});
}

std::span<const float> DenseHead::host_log_probs(Tensor h) {
  Backend& backend = tensor_.backend();
  if (row_.empty()) {
    row_storage_ = backend.allocate(static_cast<std::size_t>(vocab_size_) * sizeof(float), MemoryUse::workspace);
    row_.resize(static_cast<std::size_t>(vocab_size_));
  }
  const Tensor row = row_storage_.view({1, vocab_size_});
  log_probs(row, h);
  backend.copy_to_host(row_.data(), row);
  return row_;
}

std::vector<TokenLogProb> DenseHead::most_probable(Tensor h, std::int64_t count, double mass) {
  return most_probable_of(host_log_probs(h), count, mass);
}

std::int32_t DenseHead::sample(Tensor h, float temperature, const std::function<double()>& uniform) {
  return sample_of(host_log_probs(h), temperature, uniform, scaled_, weights_);
}

}  // namespace vqlm
