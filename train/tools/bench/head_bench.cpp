#include "train/tools/bench/head_bench.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <memory>
#include <numeric>
#include <vector>

#include "core/rng.h"
#include "dist/self_communicator.h"
#include "train/engine/bench_tensors.h"
#include "train/engine/lap_timer.h"
#include "train/engine/matmul_peak.h"
#include "train/tools/bench/bench_head.h"
#include "train/tools/bench/head_decoding.h"

namespace vqlm {
namespace {

void check_at_least_one(const char* option, std::int64_t value) {
  if (value >= 1) return;
  throw UsageError(fmt::format("bench head: --{} {}: choose 1 or more", option, value));
}

/// The largest divisor of `number` that is not above `most`; 1 where there is none.
std::int64_t divisor_below(std::int64_t number, std::int64_t most) {
  std::int64_t divisor = std::clamp<std::int64_t>(most, 1, number);
  while (number % divisor != 0) --divisor;
  return divisor;
}

void check_groups(const HeadBenchOptions& options) {
  if (options.groups < 0 || (options.groups > 0 && options.width % options.groups != 0)) {
    throw UsageError(
        fmt::format("bench head: --groups {} does not divide --width {}: choose --groups {}, or 0 for "
                    "VQ-Logits",
                    options.groups, options.width, divisor_below(options.width, options.groups)));
  }
  if (options.groups > 0 && (options.codes < 1 || options.codes > 256)) {
    throw UsageError(fmt::format("bench head: --codes {}: a code is one byte, choose 1 to 256", options.codes));
  }
}

void check(const Backend& backend, const HeadBenchOptions& options) {
  if (options.clock != wall_seconds && !backend.host_accessible()) {
    throw UsageError(fmt::format("bench head: --clock cpu on {}: it has a clock of its own; leave --clock out",
                                 backend.description()));
  }
  check_at_least_one("vocab", options.vocab_size);
  check_at_least_one("width", options.width);
  check_at_least_one("rows", options.rows);
  check_at_least_one("clusters", options.clusters);
  check_at_least_one("repeats", options.repeats);
  check_at_least_one("top-k", options.top_k);
  if (options.decode_tokens < 0) {
    throw UsageError(
        fmt::format("bench head: --decode {}: choose 1 or more tokens, or 0 for no decoding", options.decode_tokens));
  }
  if (!(options.spread >= 0 && options.spread <= 1000)) {
    throw UsageError(fmt::format("bench head: --spread {}: choose 0 to 1000", options.spread));
  }
  if (options.vocab_size > INT32_MAX) {
    throw UsageError(
        fmt::format("bench head: --vocab {}: token ids are 32-bit, choose at most {}", options.vocab_size, INT32_MAX));
  }
  if (options.clusters > options.vocab_size) {
    throw UsageError(
        fmt::format("bench head: --clusters {} for --vocab {}: every cluster needs a token, choose at "
                    "most {} clusters",
                    options.clusters, options.vocab_size, options.vocab_size));
  }
  if (options.map != "random" && options.map != "frequency") {
    throw UsageError(fmt::format("bench head: --map {}: choose random or frequency", options.map));
  }
  if (options.rank < 0 || options.rank > options.width) {
    throw UsageError(
        fmt::format("bench head: --rank {} for --width {}: choose 1 to {}, or 0 for a quarter of the width",
                    options.rank, options.width, options.width));
  }
  check_groups(options);
}

/// Hidden states, targets and results that all heads share.
struct HeadInputs {
  BenchTensors storage;
  Tensor h, dh;         // (N, d) of the activation dtype
  Tensor nll, penalty;  // (N)
  Tensor targets;       // (N) i32
  float scale;

  HeadInputs(Backend& backend, const HeadBenchOptions& options, const std::vector<std::int64_t>& counts)
      : storage(backend), scale(1.0f / static_cast<float>(options.rows)) {
    const std::int64_t n = options.rows;
    h = storage.make({n, options.width}, backend.activation_dtype());
    dh = storage.make({n, options.width}, backend.activation_dtype());
    nll = storage.make({n}, DType::f32);
    penalty = storage.make({n}, DType::f32);
    targets = storage.make({n}, DType::i32);
    // A final norm leaves hidden states of unit variance.
    std::vector<float> normal(static_cast<std::size_t>(n * options.width));
    const Philox rng(options.seed, "bench hidden states");
    for (std::size_t i = 0; i < normal.size(); ++i) normal[i] = rng.normal(i);
    upload_numbers(backend, h, normal);
    backend.copy_from_host(targets, draw_tokens(counts, n, options.seed, "bench targets").data());
  }
};

/// A head that is timed in training.
class TimedHead {
 public:
  TimedHead(const HeadSetting& setting, HeadResult& result)
      : backend_(setting.tensor.backend()),
        clock_(setting.options.clock),
        result_(result),
        head_(setting, result.head, HeadUse::training) {
    head_.initialize(setting);
  }

  void pass(const HeadInputs& inputs) {
    head_.head().forward_backward(inputs.nll, inputs.penalty, inputs.dh, inputs.h, inputs.targets, inputs.scale);
  }
  /// A device gets several passes at once, so that the host's part of one is hidden behind the one before.
  void timed_passes(const HeadInputs& inputs) {
    LapTimer timer(backend_, clock_);
    const int passes = backend_.host_accessible() ? 1 : 5;
    timer.lap();
    for (int i = 0; i < passes; ++i) pass(inputs);
    timer.lap();
    seconds_.push_back(timer.seconds().front() / passes);
  }

  void finish(const HeadInputs& inputs, const MachineRates& rates) {
    pass(inputs);
    backend_.synchronize();
    const std::int64_t rows = inputs.nll.numel();
    std::vector<float> nll(static_cast<std::size_t>(rows));
    backend_.copy_to_host(nll.data(), inputs.nll);
    const HeadCost cost = head_.head().cost();
    const double operations = 6.0 * cost.multiply_adds * static_cast<double>(rows);
    const auto activation = static_cast<double>(size_of(backend_.activation_dtype()));
    // Matrices are read, biases too, their f32 gradients read and written; hidden states read, their gradients written.
    const double bytes = static_cast<double>(cost.matrix_parameters + head_.table_numbers()) * (activation + 8) +
                         12 * static_cast<double>(cost.bias_parameters) + static_cast<double>(cost.code_bytes) +
                         2 * activation * static_cast<double>(inputs.h.numel());
    HeadTiming& timing = result_.training;
    timing.seconds = median(seconds_);
    timing.seconds_min = *std::min_element(seconds_.begin(), seconds_.end());
    timing.flops_per_second = operations / timing.seconds;
    timing.floor_seconds = std::max(operations / rates.matmul_peak, bytes / rates.memory_rate);
    timing.bytes = static_cast<double>(head_.bytes());
    timing.matrix_parameters = cost.matrix_parameters;
    timing.bias_parameters = cost.bias_parameters;
    timing.mean_nll = std::accumulate(nll.begin(), nll.end(), 0.0) / static_cast<double>(rows);
  }

 private:
  Backend& backend_;
  Clock clock_;
  HeadResult& result_;
  BenchHead head_;
  std::vector<double> seconds_;
};

/// Why a head's passes are not made: memory or time; empty where they are.
std::string training_refusal(const HeadBenchResult& result, const HeadSetting& setting, BenchedHead head) {
  const HeadBenchOptions& o = result.options;
  const std::string memory = memory_refusal(setting, head, HeadUse::training);
  if (!memory.empty()) return memory;
  const bool dense = head == BenchedHead::dense || head == BenchedHead::dense_plain;
  const auto vocabulary = static_cast<double>(o.vocab_size);
  const double products = dense ? vocabulary
                          : head == BenchedHead::low_rank
                              ? static_cast<double>(o.low_rank()) * (1 + vocabulary / static_cast<double>(o.width))
                              : static_cast<double>(o.clusters) + vocabulary / static_cast<double>(o.clusters);
  const double one = 6 * products * static_cast<double>(o.width) * static_cast<double>(o.rows) / result.matmul_peak;
  const double seconds = one * (o.repeats + 2);
  if (seconds <= o.time_limit) return {};
  return fmt::format("would take about {:.0f} s, above --time-limit {:.0f}; fewer --rows or --repeats", seconds,
                     o.time_limit);
}

void run_training(HeadBenchResult& result, const HeadSetting& setting) {
  Backend& backend = setting.tensor.backend();
  std::vector<std::unique_ptr<TimedHead>> heads;
  for (HeadResult& head : result.heads) {
    head.training_skipped = training_refusal(result, setting, head.head);
    if (!head.training_skipped.empty()) continue;
    try {
      heads.push_back(std::make_unique<TimedHead>(setting, head));
    } catch (const UsageError&) {
      throw;
    } catch (const Error& error) {  // a device without room
      head.training_skipped = error.what();
    }
  }
  const HeadInputs inputs(backend, setting.options, setting.counts);
  for (const auto& head : heads) head->pass(inputs);  // the first pass touches memory and generates code
  backend.synchronize();
  for (int i = 0; i < setting.options.repeats; ++i) {
    for (const auto& head : heads) head->timed_passes(inputs);
  }
  for (const auto& head : heads) head->finish(inputs, {result.matmul_peak, result.memory_rate});
}

}  // namespace

MachineRates measure_rates(Backend& backend, Clock clock, std::int64_t largest_matrix) {
  const auto seconds_of = [&](const auto& work) {
    work();  // touches memory, generates code
    LapTimer timer(backend, clock);
    timer.lap();
    for (int i = 0; i < 7; ++i) {
      work();
      timer.lap();
    }
    return median(timer.seconds());
  };
  // On a host 64 MiB each, which no last-level cache holds.
  const std::int64_t numbers = backend.host_accessible()
                                   ? std::int64_t{1} << 24
                                   : std::clamp(largest_matrix, std::int64_t{1} << 16, std::int64_t{1} << 26);
  BenchTensors tensors(backend);
  const Tensor from = tensors.normal({numbers}, DType::f32), to = tensors.make({numbers}, DType::f32);
  const Tensor sum = tensors.make({1}, DType::f64);
  const double zero = 0;
  backend.copy_from_host(sum, &zero);
  const double copies = 8.0 * static_cast<double>(numbers) / seconds_of([&] { backend.copy(to, from); });
  const double reads =
      4.0 * static_cast<double>(numbers) / seconds_of([&] { backend.run(AddSumOfSquares{.out = sum, .x = from}); });
  const double rate = std::max(copies, reads);
  if (clock == wall_seconds) {
    SelfCommunicator self(backend, "rates");
    return {measure_matmul_peak(backend, self).flops_per_second, rate};
  }
  // measure_matmul_peak() reads the wall clock; its product by the other one.
  constexpr std::int64_t size = 1024;
  const DType type = backend.activation_dtype();
  const Tensor a = tensors.normal({size, size}, type), b = tensors.normal({size, size}, type),
               c = tensors.make({size, size}, type);
  const double product = seconds_of(
      [&] { backend.run(Matmul{.c = c, .a = a, .b = b, .tb = Transpose::yes, .accumulate = Accumulate::no}); });
  return {2.0 * size * size * size / product, rate};
}

HeadBenchResult run_head_bench(Backend& backend, const HeadBenchOptions& options) {
  check(backend, options);
  return run_head_bench(backend, options, measure_rates(backend, options.clock, options.vocab_size * options.width));
}

HeadBenchResult run_head_bench(Backend& backend, const HeadBenchOptions& options, const MachineRates& rates) {
  check(backend, options);
  const std::vector<std::int64_t> counts = synthetic_counts(options.targets, options.vocab_size);
  SelfCommunicator self(backend, "tensor");
  const TensorParallel tensor(backend, self);
  HeadBenchResult result;
  result.machine = backend.description();
  result.dtype = name_of(backend.activation_dtype());
  result.matmul_peak = rates.matmul_peak;
  result.memory_rate = rates.memory_rate;
  result.options = options;
  for (const BenchedHead head : {BenchedHead::dense_plain, BenchedHead::dense, BenchedHead::low_rank, BenchedHead::vq,
                                 BenchedHead::vq_embedding, BenchedHead::vq_logits}) {
    if (head == BenchedHead::vq_logits && options.groups == 0) continue;  // the vq row is it already
    result.heads.emplace_back().head = head;
  }
  const HeadSetting setting{tensor, result.options, counts};
  run_training(result, setting);
  if (options.decode_tokens > 0) run_head_decoding(result, setting);
  return result;
}

}  // namespace vqlm
