#include "train/tools/bench/head_decoding.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "core/rng.h"
#include "train/engine/bench_tensors.h"
#include "train/engine/lap_timer.h"

namespace vqlm {
namespace {

constexpr const char* operations[] = {"log_probs", "arg_max", "top_k", "sample"};
constexpr double no_mass = 2;           // of top-k: only the count ends it
constexpr double weight_stddev = 0.02;  // of a head's initial matrices

/// Hidden states, a row of log-probabilities, and random numbers.
struct DecodeInputs {
  BenchTensors storage;
  std::vector<Tensor> h;  // (1, d) each
  Tensor row;             // (1, V) f32
  Philox rng;
  std::uint64_t drawn = 0;

  DecodeInputs(Backend& backend, const HeadBenchOptions& options) : storage(backend), rng(options.seed, "bench draws") {
    row = storage.make({1, options.vocab_size}, DType::f32);
    const double scale = options.spread / (weight_stddev * std::sqrt(static_cast<double>(options.width)));
    for (std::int64_t i = 0; i < std::max<std::int64_t>(options.decode_tokens, 1); ++i) {
      h.push_back(storage.normal({1, options.width}, backend.activation_dtype(), static_cast<float>(scale)));
    }
  }
};

/// A head and the times of its operations.
class DecodingHead {
 public:
  DecodingHead(const HeadSetting& setting, HeadResult& result)
      : backend_(setting.tensor.backend()),
        options_(setting.options),
        result_(result),
        head_(setting, result.head, HeadUse::decoding) {
    head_.initialize(setting);
  }

  /// Every hidden state once; the first call of an operation is not kept.
  void round(const std::string& operation, DecodeInputs& inputs) {
    Times& times = times_[operation];
    std::int64_t visited = 0;
    LapTimer timer(backend_, options_.clock);
    timer.lap();
    for (const Tensor& h : inputs.h) {
      once(operation, h, inputs);
      visited += head_.clusters_visited();
    }
    timer.lap();
    const auto tokens = static_cast<double>(inputs.h.size());
    if (times.warm) times.seconds.push_back(timer.seconds().front() / tokens);
    times.warm = true;
    times.visited = operation == "log_probs" ? 0 : static_cast<double>(visited) / tokens;
  }

  void finish(double memory_rate) {
    for (const char* const operation : operations) {
      const Times& times = times_.at(operation);
      DecodeTiming timing;
      timing.operation = operation;
      timing.seconds = median(times.seconds);
      timing.seconds_min = *std::min_element(times.seconds.begin(), times.seconds.end());
      timing.clusters_visited = times.visited;
      timing.bytes = bytes_of(times.visited);
      timing.floor_seconds = timing.bytes / memory_rate;
      result_.decoding.push_back(timing);
    }
  }

 private:
  struct Times {
    bool warm = false;
    std::vector<double> seconds;
    double visited = 0;
  };

  void once(const std::string& operation, Tensor h, DecodeInputs& inputs) {
    OutputHead& head = head_.head();
    if (operation == "log_probs") {
      head.log_probs(inputs.row, h);
    } else if (operation == "sample") {
      head.sample(h, 1.0f, [&] { return static_cast<double>(inputs.rng.uniform(inputs.drawn++)); });
    } else {
      head.most_probable(h, operation == "arg_max" ? 1 : options_.top_k, no_mass);
    }
  }

  /// What has to be read, and the row of log-probabilities where all are asked for (visited = 0).
  double bytes_of(double visited) {
    const auto vocabulary = static_cast<double>(options_.vocab_size), d = static_cast<double>(options_.width);
    const auto activation = static_cast<double>(size_of(backend_.activation_dtype()));
    if (result_.head == BenchedHead::dense) return vocabulary * (d * activation + 4 + 4);
    if (result_.head == BenchedHead::low_rank) {
      const auto rank = static_cast<double>(options_.low_rank());
      return rank * d * activation + vocabulary * (rank * activation + 4 + 4);
    }
    const auto clusters = static_cast<double>(head_.clusters());
    const bool vectors = result_.head == BenchedHead::vq && options_.groups > 0;
    const double groups = vectors ? options_.groups : 0, codes = vectors ? options_.codes : 0;
    const double tokens = visited > 0 ? visited * vocabulary / clusters : vocabulary;
    const double own = head_.table_numbers() > 0 ? d * activation : 0;
    // A token's codes or its own vector, id and bias; pieces of the member codebook, no more than there are.
    return clusters * (d * activation + 4) + std::min(codes, tokens) * d * activation +
           tokens * (groups + own + 4 + 4) + (visited > 0 ? 0 : 4 * vocabulary);
  }

  Backend& backend_;
  const HeadBenchOptions& options_;
  HeadResult& result_;
  BenchHead head_;
  std::map<std::string, Times> times_;
};

std::string decoding_refusal(const HeadBenchResult& result, const HeadSetting& setting, BenchedHead head) {
  const HeadBenchOptions& o = result.options;
  const std::string memory = memory_refusal(setting, head, HeadUse::decoding);
  if (!memory.empty() || (head != BenchedHead::dense && head != BenchedHead::low_rank)) return memory;
  const std::int64_t width = head == BenchedHead::dense ? o.width : o.low_rank();
  const double bytes = static_cast<double>(o.vocab_size) * static_cast<double>(width) * 4;
  const double seconds = bytes / result.memory_rate * static_cast<double>(std::size(operations)) *
                         static_cast<double>(o.decode_tokens) * (o.repeats + 1);
  if (seconds <= o.time_limit) return {};
  return fmt::format("would take about {:.0f} s, above --time-limit {:.0f}", seconds, o.time_limit);
}

}  // namespace

void run_head_decoding(HeadBenchResult& result, const HeadSetting& setting) {
  Backend& backend = setting.tensor.backend();
  std::vector<std::unique_ptr<DecodingHead>> heads;
  for (HeadResult& head : result.heads) {
    if (head.head == BenchedHead::dense_plain) continue;
    head.decoding_skipped = decoding_refusal(result, setting, head.head);
    if (!head.decoding_skipped.empty()) continue;
    try {
      heads.push_back(std::make_unique<DecodingHead>(setting, head));
    } catch (const UsageError&) {
      throw;
    } catch (const Error& error) {
      head.decoding_skipped = error.what();
    }
  }
  DecodeInputs inputs(backend, setting.options);
  for (const char* const operation : operations) {
    for (int round = 0; round <= setting.options.repeats; ++round) {
      for (const auto& head : heads) head->round(operation, inputs);
    }
  }
  for (const auto& head : heads) head->finish(result.memory_rate);
}

}  // namespace vqlm
