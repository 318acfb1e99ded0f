#include "data/shards/batch_loader.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <chrono>
#include <limits>
#include <optional>
#include <utility>

namespace vqlm {
namespace {

void require_at_least_one(const char* name, std::int64_t value) {
  if (value < 1) throw UsageError(fmt::format("{} = {}: it must be 1 or more", name, value));
}

void check_options(const LoaderOptions& options) {
  require_at_least_one("data.seq_len", options.seq_len);
  require_at_least_one("train.micro_batch", options.micro_batch);
  require_at_least_one("train.global_batch", options.global_batch);
  VQLM_ASSERT(options.data_size >= 1 && options.data_rank >= 0 && options.data_rank < options.data_size);
  VQLM_ASSERT(options.read_ahead >= 1);
  const std::int64_t at_once = options.micro_batch * options.data_size;
  if (options.global_batch % at_once != 0) {
    throw UsageError(
        fmt::format("train.global_batch = {} is not a multiple of train.micro_batch {} times {} data ranks = {}; the "
                    "nearest multiple is {}",
                    options.global_batch, options.micro_batch, options.data_size, at_once,
                    std::max(std::int64_t{1}, (options.global_batch + at_once / 2) / at_once) * at_once));
  }
}

/// Reads tokens [begin, begin + n] of the stream: n inputs and n targets at element `at` of the batch.
void read_sample(ShardSet& shards, std::uint64_t begin, std::uint64_t n, Batch& batch, std::uint64_t at) {
  std::vector<std::int32_t> sample(n + 1);
  shards.read(begin, sample);
  std::copy_n(sample.begin(), n, batch.tokens.begin() + static_cast<std::ptrdiff_t>(at));
  std::copy_n(sample.begin() + 1, n, batch.targets.begin() + static_cast<std::ptrdiff_t>(at));
}

}  // namespace

// ---- BatchLoader ----------------------------------------------------------------------------------------------------

namespace {

SampleOrder order_of(const ShardSet& shards, const LoaderOptions& options) {
  check_options(options);  // first: sizes that make no sense have no order
  return SampleOrder(shards, static_cast<std::uint64_t>(options.seq_len), options.seed);
}

}  // namespace

BatchLoader::BatchLoader(ShardSet shards, const LoaderOptions& options)
    : BatchLoader(shards, order_of(shards, options), options) {}

BatchLoader::BatchLoader(ShardSet shards, SampleOrder order, const LoaderOptions& options)
    : options_(options), shards_(std::move(shards)), order_(std::move(order)) {
  check_options(options_);
  micro_batches_per_step_ = options_.global_batch / (options_.micro_batch * options_.data_size);
  thread_ = std::thread([this] { read_ahead(); });
}

BatchLoader::~BatchLoader() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

std::uint64_t BatchLoader::samples_consumed() const {
  const std::uint64_t steps = handed_out_ / static_cast<std::uint64_t>(micro_batches_per_step_);
  return options_.first_sample + steps * static_cast<std::uint64_t>(options_.global_batch);
}

Batch BatchLoader::next() {
  std::unique_lock lock(mutex_);
  const auto is_ready = [&] { return !ready_.empty() || failure_; };
  if (!is_ready()) {
    const auto start = std::chrono::steady_clock::now();
    changed_.wait(lock, is_ready);
    seconds_waiting_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }
  if (ready_.empty()) std::rethrow_exception(failure_);
  Batch batch = std::move(ready_.front());
  ready_.pop_front();
  ++handed_out_;
  lock.unlock();
  changed_.notify_all();
  return batch;
}

void BatchLoader::read_ahead() {
  const auto limit = static_cast<std::size_t>(options_.read_ahead);
  try {
    for (std::uint64_t number = 0;; ++number) {
      Batch batch = read_batch(number);
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return ready_.size() < limit || stopping_; });
      if (stopping_) return;
      ready_.push_back(std::move(batch));
      lock.unlock();
      changed_.notify_all();
    }
  } catch (...) {
    {
      const std::lock_guard lock(mutex_);
      failure_ = std::current_exception();
    }
    changed_.notify_all();
  }
}

Batch BatchLoader::read_batch(std::uint64_t number) {
  const auto micro_batches = static_cast<std::uint64_t>(micro_batches_per_step_);
  const auto global_batch = static_cast<std::uint64_t>(options_.global_batch);
  const auto rows = static_cast<std::uint64_t>(options_.micro_batch);
  const auto seq_len = static_cast<std::uint64_t>(options_.seq_len);
  const std::uint64_t slice = global_batch / static_cast<std::uint64_t>(options_.data_size);
  const std::uint64_t first = options_.first_sample + number / micro_batches * global_batch +
                              static_cast<std::uint64_t>(options_.data_rank) * slice + number % micro_batches * rows;
  Batch batch{std::vector<std::int32_t>(rows * seq_len), std::vector<std::int32_t>(rows * seq_len)};
  for (std::uint64_t row = 0; row < rows; ++row) {
    const SampleOrder::Sample sample = order_.at(first + row);
    read_sample(shards_, sample.first_token, seq_len, batch, row * seq_len);
    batch.sources.push_back(static_cast<std::int32_t>(sample.source));
    batch.samples.push_back(static_cast<std::int64_t>(sample.number));
  }
  return batch;
}

// ---- EvalSamples ----------------------------------------------------------------------------------------------------

EvalSamples::EvalSamples(ShardSet shards, const Options& options) : options_(options), shards_(std::move(shards)) {
  require_at_least_one("data.seq_len", options_.seq_len);
  require_at_least_one("rows of an evaluation batch", options_.rows);
  VQLM_ASSERT(options_.size >= 1 && options_.rank >= 0 && options_.rank < options_.size);
  if (shards_.total_tokens() < 2) {
    throw Error(fmt::format("{}: {} tokens; evaluation needs at least 2", shards_.glob(), shards_.total_tokens()));
  }
  const auto seq_len = static_cast<std::uint64_t>(options_.seq_len);
  const std::uint64_t targets = shards_.total_tokens() - 1;
  samples_ = (targets + seq_len - 1) / seq_len;
  if (options_.max_samples > 0) samples_ = std::min(samples_, options_.max_samples);
  predicted_tokens_ = std::min(targets, samples_ * seq_len);
  const auto at_once = static_cast<std::uint64_t>(options_.rows) * static_cast<std::uint64_t>(options_.size);
  batches_ = static_cast<std::int64_t>((samples_ + at_once - 1) / at_once);
}

Batch EvalSamples::batch(std::int64_t number) {
  VQLM_ASSERT(number >= 0 && number < batches_);
  const auto rows = static_cast<std::uint64_t>(options_.rows);
  const auto seq_len = static_cast<std::uint64_t>(options_.seq_len);
  const std::uint64_t first = (static_cast<std::uint64_t>(number) * static_cast<std::uint64_t>(options_.size) +
                               static_cast<std::uint64_t>(options_.rank)) *
                              rows;
  Batch batch{std::vector<std::int32_t>(rows * seq_len, std::max(shards_.eos_id(), 0)),
              std::vector<std::int32_t>(rows * seq_len, -1)};
  for (std::uint64_t row = 0; row < rows && first + row < samples_; ++row) {
    const std::uint64_t begin = (first + row) * seq_len;
    const std::uint64_t n = std::min(seq_len, shards_.total_tokens() - 1 - begin);
    read_sample(shards_, begin, n, batch, row * seq_len);
  }
  return batch;
}

std::optional<double> EvalSamples::predicted_bytes() {
  if (!shards_.text_bytes_known()) return std::nullopt;
  const std::uint64_t end = predicted_tokens_ + 1;  // tokens [1, end) are predicted
  double bytes = 0;
  for (const ShardSet::Document& document : shards_.documents(0, end)) {
    const std::uint64_t covered = std::min(document.end, end) - document.begin;
    bytes += static_cast<double>(document.text_bytes) * static_cast<double>(covered) /
             static_cast<double>(document.end - document.begin);
  }
  return bytes;
}

}  // namespace vqlm
