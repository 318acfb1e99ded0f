// Batches for training (permuted, endless, resumable from one integer) and for evaluation (in order, once).
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "data/shards/sample_order.h"
#include "data/shards/shard_set.h"

namespace vqlm {

/// Rows of T tokens, row-major; targets[i] is the token after tokens[i], or -1 where there is nothing to predict.
struct Batch {
  std::vector<std::int32_t> tokens;   // (rows, T)
  std::vector<std::int32_t> targets;  // (rows, T)
  // (rows), training only: where these samples come from, and their numbers there.
  std::vector<std::int32_t> sources = {};
  std::vector<std::int64_t> samples = {};
};

struct LoaderOptions {
  std::int64_t seq_len = 0;       // T
  std::int64_t micro_batch = 0;   // sequences of one batch of one data rank
  std::int64_t global_batch = 0;  // sequences of one optimizer step over all data ranks
  int data_rank = 0;
  int data_size = 1;
  std::uint64_t seed = 0;
  std::uint64_t first_sample = 0;  // global samples consumed before
  int read_ahead = 4;              // batches
};

/// Optimizer step s takes samples [s G, (s + 1) G) of the run's sequence (SampleOrder) after first_sample,
/// G = global_batch; data rank r takes the r-th of data_size equal slices, cut into micro-batches. So the
/// samples of a step are the same for every grid and micro-batch, and `samples_consumed` is all there is to save.
///
/// One thread reads ahead; it owns the shards.
class BatchLoader {
 public:
  /// The samples of the whole stream, ordered by options.seed. Throws UsageError where global_batch is not a multiple of data_size * micro_batch or a size is below 1, and Error
  /// where the shards hold no whole sample.
  BatchLoader(ShardSet shards, const LoaderOptions& options);
  /// In this order, made with these shards and options.seq_len; options.seed is not read.
  BatchLoader(ShardSet shards, SampleOrder order, const LoaderOptions& options);
  ~BatchLoader();
  BatchLoader(const BatchLoader&) = delete;
  BatchLoader& operator=(const BatchLoader&) = delete;

  /// The next micro-batch (micro_batch, T); blocks until it has been read. An error of reading is thrown here, after
  /// the batches before it were handed out, and again by every later call.
  Batch next();

  std::int64_t micro_batches_per_step() const { return micro_batches_per_step_; }
  /// Samples in an epoch of the first source.
  std::uint64_t samples_per_epoch() const { return order_.samples_per_epoch(0); }
  /// Returns the samples of all data ranks, first_sample included, counted at the end of each optimizer step: the value
  /// to save.
  std::uint64_t samples_consumed() const;
  /// Time that next() has spent waiting for data.
  double seconds_waiting() const { return seconds_waiting_; }

 private:
  void read_ahead();
  Batch read_batch(std::uint64_t number);

  LoaderOptions options_;
  ShardSet shards_;    // used by thread_ only, once it runs
  SampleOrder order_;  // as well
  std::int64_t micro_batches_per_step_ = 0;
  std::uint64_t handed_out_ = 0;  // micro-batches
  double seconds_waiting_ = 0;

  std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  std::deque<Batch> ready_;
  std::exception_ptr failure_;
  bool stopping_ = false;
  std::thread thread_;
};

/// The samples in order, the last one short: every token of the stream but the first is a target exactly once. Batch b
/// of all ranks holds samples [b * rows * size, (b + 1) * rows * size), rank r the r-th of `size` equal parts, so every
/// rank has the same number of batches, some of them with rows that have nothing to predict (token = end of text
/// or 0, target = -1).
class EvalSamples {
 public:
  struct Options {
    std::int64_t seq_len = 0;  // T
    std::int64_t rows = 0;     // sequences of a batch of one rank
    int rank = 0;
    int size = 1;
    std::uint64_t max_samples = 0;  // only the first so many; 0 = all
  };

  /// Throws UsageError for sizes below 1 and Error where the stream has fewer than two tokens.
  EvalSamples(ShardSet shards, const Options& options);

  /// Batches of each rank.
  std::int64_t batches() const { return batches_; }
  /// Batch `number` of this rank: (rows, T).
  Batch batch(std::int64_t number);
  /// Targets over all ranks and batches.
  std::uint64_t predicted_tokens() const { return predicted_tokens_; }
  /// UTF-8 bytes of the text that the predicted tokens stand for (for bits per byte). A document that the end cuts
  /// counts in proportion to its tokens. Nothing where the shards do not tell.
  std::optional<double> predicted_bytes();

 private:
  Options options_;
  ShardSet shards_;
  std::uint64_t samples_ = 0;
  std::int64_t batches_ = 0;
  std::uint64_t predicted_tokens_ = 0;
};

}  // namespace vqlm
