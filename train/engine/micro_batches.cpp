#include "train/engine/micro_batches.h"

#include <algorithm>
#include <numeric>

#include "core/tensor_arena.h"
#include "train/engine/future_targets.h"

namespace vqlm {

MicroBatches::MicroBatches(Backend& backend, Transformer& model, Optimizer& optimizer, std::int64_t count, float scale,
                           UseGraphs graphs)
    : backend_(backend),
      model_(model),
      optimizer_(optimizer),
      count_(count),
      scale_(scale),
      use_graphs_(graphs == UseGraphs::yes && !backend.host_accessible()),
      future_heads_(model.future_heads()) {
  const std::int64_t rows = model.batch().rows();
  const std::int64_t local = model.local_rows();
  host_ids_.resize(static_cast<std::size_t>(count * id_rows() * rows));
  host_losses_.resize(static_cast<std::size_t>(count * id_rows() * local));
  future_tokens_.resize(static_cast<std::size_t>(count * future_heads_));
  TensorArena arena;
  arena.add(ids_, {count, id_rows(), rows}, DType::i32);
  arena.add(losses_, {count, id_rows(), local}, DType::f32);
  arena.add(batch_ids_, {id_rows(), rows}, DType::i32);
  arena.add(batch_losses_, {id_rows(), local}, DType::f32);
  storage_ = arena.allocate(backend, MemoryUse::workspace);
  const std::int64_t heads = 1 + future_heads_;
  tokens_ = batch_ids_.rows(0, 1).view({rows});
  targets_ = batch_ids_.rows(1, heads);
  nll_ = batch_losses_.rows(0, heads);
  penalty_ = batch_losses_.rows(heads, 1).view({local});
  if (future_heads_ > 0) return;
  targets_ = targets_.view({rows});
  nll_ = nll_.view({local});
}

void MicroBatches::set(std::int64_t number, const Batch& batch) {
  const auto rows = static_cast<std::size_t>(model_.batch().rows());
  VQLM_ASSERT(number < count_ && batch.tokens.size() == rows && batch.targets.size() == rows);
  const auto begin = host_ids_.begin() + number * id_rows() * model_.batch().rows();
  std::copy(batch.targets.begin(), batch.targets.end(), std::copy(batch.tokens.begin(), batch.tokens.end(), begin));
  if (future_heads_ > 0) set_future(number, batch);
}

void MicroBatches::set_future(std::int64_t number, const Batch& batch) {
  const std::int64_t rows = model_.batch().rows(), local = model_.local_rows();
  const std::span<std::int32_t> targets(host_ids_.data() + (number * id_rows() + 2) * rows,
                                        static_cast<std::size_t>(future_heads_ * rows));
  write_future_targets(targets, batch.tokens, batch.targets, model_.batch(), model_.config().document_end);
  for (std::int64_t j = 0; j < future_heads_; ++j) {
    const auto own =
        targets.subspan(static_cast<std::size_t>(j * rows + model_.first_row()), static_cast<std::size_t>(local));
    future_tokens_[static_cast<std::size_t>(number * future_heads_ + j)] =
        std::ranges::count_if(own, [](std::int32_t target) { return target >= 0; });
  }
}

void MicroBatches::enqueue(bool graphs) {
  backend_.copy_from_host(ids_, host_ids_.data());
  begin_step();
  for (std::int64_t number = 0; number < count_; ++number) {
    backend_.copy(batch_ids_, ids_.rows(number, 1).view(batch_ids_.shape()));
    model_.begin_micro_batch(number);
    run_micro_batch({.first = number == 0, .last = number + 1 == count_}, graphs);
    if (number == 0) optimizer_.gathers().end_forward();
    backend_.copy(losses_.rows(number, 1).view(batch_losses_.shape()), batch_losses_);
  }
  ops_have_run_ = true;
}

void MicroBatches::begin_step() {
  if (model_.row_tables().empty()) return;
  const auto rows = static_cast<std::size_t>(model_.batch().rows());
  std::vector<std::int32_t> tokens;
  for (std::size_t number = 0; number < static_cast<std::size_t>(count_); ++number) {
    const auto begin =
        host_ids_.begin() + static_cast<std::ptrdiff_t>(static_cast<std::size_t>(id_rows()) * number * rows);
    tokens.insert(tokens.end(), begin, begin + static_cast<std::ptrdiff_t>(rows));
  }
  model_.begin_step(tokens);
  optimizer_.begin_step();
}

void MicroBatches::enqueue_directly(const BeforeReduction& before_reduction) {
  before_reduction_ = before_reduction;
  enqueue(false);
  before_reduction_ = nullptr;
}

void MicroBatches::run_micro_batch(MicroBatchPlace place, bool graphs) {
  // The first step runs directly: its ops size their scratch memory and choose their algorithms.
  if (!graphs || !ops_have_run_) {
    enqueue_micro_batch(place);
    head_marks_ = model_.head_marks();
    return;
  }
  Recorded& recorded = recorded_[place.first ? 1 : 0][place.last ? 1 : 0];
  if (!recorded.graph) {
    recorded.graph = backend_.capture([&] { enqueue_micro_batch(place); });
    recorded.head_marks = model_.head_marks();
  }
  backend_.replay(recorded.graph);
  head_marks_ = recorded.head_marks;
}

void MicroBatches::enqueue_micro_batch(MicroBatchPlace place) {
  const auto ready = [&](int bucket) {
    if (!place.last) return;
    if (before_reduction_) before_reduction_(model_.parameters().buckets()[static_cast<std::size_t>(bucket)]);
    optimizer_.bucket_ready(bucket);
  };
  const auto needed = [&](std::span<const int> buckets) {
    if (place.first) optimizer_.gathers().needed(buckets);
  };
  if (place.first) {
    model_.parameters().begin_gradients();
    optimizer_.gathers().begin_forward();
  }
  model_.accumulate_gradients(nll_, penalty_, tokens_, targets_, scale_, ready, place, needed);
  if (place.last) optimizer_.finish_reductions();
}

StepSums MicroBatches::sums() {
  backend_.copy_to_host(host_losses_.data(), losses_);
  StepSums sums;
  const std::int64_t local = model_.local_rows();
  sums.future.resize(static_cast<std::size_t>(future_heads_));
  for (std::int64_t number = 0; number < count_; ++number) {
    auto losses = host_losses_.begin() + number * id_rows() * local;
    sums.nll = std::accumulate(losses, losses + local, sums.nll);
    for (std::size_t j = 0; j < sums.future.size(); ++j) {
      losses += local;
      sums.future[j].nll = std::accumulate(losses, losses + local, sums.future[j].nll);
      sums.future[j].tokens +=
          static_cast<double>(future_tokens_[static_cast<std::size_t>(number) * sums.future.size() + j]);
    }
    losses += local;
    sums.penalty = std::accumulate(losses, losses + local, sums.penalty);
  }
  sums.seconds_head = model_.head_seconds(head_marks_) * static_cast<double>(count_);
  return sums;
}

std::vector<double> MicroBatches::sequence_nll(std::int64_t first_row) const {
  const std::int64_t local = model_.local_rows(), seq_len = model_.batch().seq_len, batch = model_.batch().batch;
  std::vector<double> sums(static_cast<std::size_t>(count_ * batch), 0.0);
  for (std::int64_t number = 0; number < count_; ++number) {
    const float* const nll = host_losses_.data() + number * id_rows() * local;
    for (std::int64_t row = 0; row < local; ++row)
      sums[static_cast<std::size_t>(number * batch + (first_row + row) / seq_len)] += static_cast<double>(nll[row]);
  }
  return sums;
}

}  // namespace vqlm
