#include "train/tools/bench/step_bench.h"

#include <spdlog/fmt/fmt.h>
#include <sys/resource.h>

#include <cerrno>
#include <cstring>

#include "core/error.h"
#include "train/config/model_text.h"
#include "train/engine/lap_timer.h"
#include "train/engine/matmul_peak.h"
#include "train/engine/products_in_use.h"
#include "train/engine/stopwatch.h"
#include "train/tools/bench/synthetic_training.h"

namespace vqlm {
namespace {

/// What lies in each kind of memory, in the order of MemoryUse.
std::vector<std::string> explain_memory(const Config& config, Transformer& model, bool rounded,
                                        const Backend::MemoryAccount& memory) {
  const auto millions = [](std::int64_t numbers) {
    return fmt::format("{:.2f} M numbers", 1e-6 * static_cast<double>(numbers));
  };
  const std::int64_t flat = model.parameters().flat_size();
  const std::size_t activations = memory.peak[static_cast<std::size_t>(MemoryUse::activations)];
  const std::int64_t tokens = model.batch().rows();
  const double per_token = static_cast<double>(activations) / static_cast<double>(tokens * config.model.n_layers);
  return {millions(flat) + (rounded ? ", their bf16 copy" : "") +
              (kind_of(config.head) == HeadKind::vq ? ", and the code map" : ""),
          millions(flat), "AdamW's two moments of " + millions(flat / config.parallel.data),
          fmt::format("{} tokens x {} layers x {:.0f} bytes, kept from forward to backward", tokens,
                      config.model.n_layers, per_token),
          "one layer's temporaries, the head's (dense: a chunk of logits), token ids, losses"};
}

/// The rate of matrix products: of the best window, or, by processor time, of all of them.
MatmulPeak matmul_peak(TimingBackend& timing, const ProcessGrid& grid, Clock clock) {
  if (clock == wall_seconds) return measure_matmul_peak(timing, grid.world());
  timing.start();
  MatmulPeak peak = measure_matmul_peak(timing, grid.world());
  timing.stop();
  for (const OpTime& op : timing.times()) {
    if (op.flops > 0) peak.flops_per_second = op.flops / op.seconds;
  }
  return peak;
}

double peak_resident_bytes() {
  rusage usage{};
  if (::getrusage(RUSAGE_SELF, &usage) != 0) {
    throw Error(fmt::format("cannot read this process' memory use: {}", std::strerror(errno)));
  }
  return 1024.0 * static_cast<double>(usage.ru_maxrss);
}

}  // namespace

double StepBenchResult::seconds_per_step() const {
  return median(seconds);
}
double StepBenchResult::tokens_per_second() const {
  return tokens / seconds_per_step();
}
double StepBenchResult::mfu() const {
  return tokens_per_second() * flops_per_token / std::max(matmul_peak_before, matmul_peak_after);
}

namespace {

void check(const Backend& backend, const StepBenchOptions& options) {
  if (options.steps < 1 || options.warmup < 0 || options.profiled < 0) {
    throw UsageError(
        fmt::format("bench step: {} timed, {} warm-up and {} profiled steps; choose at least 1 timed step and none "
                    "below 0",
                    options.steps, options.warmup, options.profiled));
  }
  if (options.clock != wall_seconds && !backend.host_accessible()) {
    throw UsageError(fmt::format("bench step: --clock cpu on {}: it has a clock of its own; leave --clock out",
                                 backend.description()));
  }
}

StepBenchResult describe(const Backend& backend, const ProcessGrid& grid, const Config& config, Clock clock) {
  StepBenchResult result;
  result.model = model_text(config);
  result.machine =
      fmt::format("{} data x {} tensor ranks, {}", grid.data_size(), grid.tensor_size(), backend.description());
  result.dtype = name_of(backend.activation_dtype());
  result.clock = !backend.host_accessible() ? "device" : clock == wall_seconds ? "wall" : "cpu";
  result.shape = {config.model, config.head, config.data.seq_len, config.train.micro_batch, micro_batches_of(config)};
  result.graphs = config.run.cuda_graphs && !backend.host_accessible();
  result.overlap = config.parallel.overlap && (!backend.host_accessible() || grid.beside() != nullptr);
  result.tokens = static_cast<double>(config.train.global_batch * config.data.seq_len);
  return result;
}

void time_steps(StepBenchResult& result, SyntheticTraining& training, Backend& backend, int ranks,
                const StepBenchOptions& options) {
  backend.synchronize();
  const double begin = wall_seconds(), cpu_begin = cpu_seconds();
  LapTimer timer(backend, options.clock);
  timer.lap();
  double last_begin = begin;
  for (int i = 0; i < options.steps; ++i) {
    last_begin = wall_seconds();
    training.step();
    timer.lap();
  }
  const double end = wall_seconds();
  result.seconds = timer.seconds();
  result.cpu_share = (cpu_seconds() - cpu_begin) / (wall_seconds() - begin);
  const StepSums sums = training.sums();
  result.mean_nll = sums.nll * ranks / result.tokens;
  // The head's time marks know the wall clock only.
  const bool by_processor = options.clock != wall_seconds;
  result.seconds_head = sums.seconds_head * (by_processor ? result.seconds.back() / (end - last_begin) : 1.0);
}

void profile_steps(StepBenchResult& result, SyntheticTraining& training, TimingBackend& timing, int steps,
                   Clock clock) {
  timing.start();
  LapTimer timer(timing, clock);
  timer.lap();
  for (int i = 0; i < steps; ++i) training.step_by_ops();
  timer.lap();
  result.profiled_seconds = timer.seconds().front() / steps;
  timing.stop();
  result.ops = timing.times();
  for (OpTime& op : result.ops) {
    op.calls /= steps;
    op.seconds /= steps;
    op.flops /= steps;
  }
}

}  // namespace

StepBenchResult run_step_bench(Backend& backend, const ProcessGrid& grid, const Config& config,
                               const StepBenchOptions& options) {
  check(backend, options);
  TimingBackend timing(backend, options.clock);
  SyntheticTraining training(timing, grid, config);
  const ProductsInUse products(backend, grid.world(), config.run.products_file);
  for (int i = 0; i < options.warmup; ++i) training.step();

  StepBenchResult result = describe(backend, grid, config, options.clock);
  result.parameters = static_cast<double>(training.model().parameters().global_count());
  result.flops_per_token = training.model().flops_per_token();
  if (!config.run.products_file.empty()) result.products = products.text();  // of the warm-up: the peak's come later
  result.memory = backend.memory();  // before the products of the peak come and go
  const MatmulPeak before = matmul_peak(timing, grid, options.clock);
  time_steps(result, training, backend, grid.world().size(), options);
  result.matmul_peak_before = before.flops_per_second;
  result.matmul_peak_after = matmul_peak(timing, grid, options.clock).flops_per_second;
  result.matmul_size = before.size;
  if (options.profiled > 0) profile_steps(result, training, timing, options.profiled, options.clock);
  result.resident_bytes = peak_resident_bytes();
  result.memory_notes =
      explain_memory(config, training.model(), backend.activation_dtype() != DType::f32, result.memory);
  return result;
}

}  // namespace vqlm
