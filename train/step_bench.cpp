#include "train/step_bench.h"

#include <spdlog/fmt/fmt.h>
#include <sys/resource.h>

#include <cerrno>
#include <cstring>
#include <optional>

#include "core/error.h"
#include "core/model/transformer.h"
#include "train/matmul_peak.h"
#include "train/optimizer.h"
#include "train/stopwatch.h"
#include "train/synthetic_tokens.h"

namespace vqlm {
namespace {

/// A model, its optimizer and the tokens of one step.
class SyntheticTraining {
 public:
  SyntheticTraining(Backend& backend, const ProcessGrid& grid, const Config& config)
      : backend_(backend),
        config_(config),
        counts_(synthetic_counts(TokenDistribution::zipf, config.model.vocab_size)),
        map_(make_map()),
        model_(backend, grid.tensor(),
               {.model = config.model,
                .head = config.head,
                .batch = {config.train.micro_batch, config.data.seq_len},
                .purpose = Purpose::training,
                .data_size = config.parallel.data},
               map_ ? &*map_ : nullptr),
        optimizer_(backend, grid, model_.parameters(), config.optim, config.train.grad_clip) {
    model_.initialize(seed(), counts_);
    const auto bytes = [](std::int64_t numbers) { return static_cast<std::size_t>(4 * numbers); };
    const std::int64_t rows = model_.batch().rows(), local = model_.local_rows();
    id_storage_ = backend.allocate(bytes(2 * rows), MemoryUse::workspace);
    loss_storage_ = backend.allocate(bytes(2 * local), MemoryUse::workspace);
    // Every rank of a tensor group draws the same tokens; so do the data groups, which costs the same.
    const std::vector<std::int32_t> text = draw_tokens(counts_, rows + 1, seed(), "bench tokens");
    backend.copy_from_host(tokens(), text.data());
    backend.copy_from_host(targets(), text.data() + 1);
  }

  /// Returns the seconds in the head.
  double step() {
    const std::int64_t local = model_.local_rows();
    const Tensor losses = loss_storage_.view({2, local});
    const std::int64_t samples = config_.train.global_batch;
    const std::int64_t micro_batches = samples / (config_.parallel.data * config_.train.micro_batch);
    const float scale = 1.0f / static_cast<float>(samples * config_.data.seq_len);
    double head = 0;
    optimizer_.zero_gradients();
    for (std::int64_t micro = 0; micro < micro_batches; ++micro) {
      model_.accumulate_gradients(losses.range(0, local), losses.range(local, local), tokens(), targets(),
                                  scale, [&](int bucket) {
                                    if (micro + 1 == micro_batches) optimizer_.bucket_ready(bucket);
                                  });
      head += model_.times().head;
    }
    optimizer_.step(++steps_, config_.optim.lr);
    backend_.synchronize();
    return head;
  }

  Transformer& model() { return model_; }

 private:
  std::uint64_t seed() const { return static_cast<std::uint64_t>(config_.train.seed); }
  std::optional<CodeMap> make_map() const {
    const HeadConfig& head = config_.head;
    if (head.kind == HeadKind::dense) return std::nullopt;
    const int codes = head.groups > 0 ? head.codes : 0;
    if (head.map == "random") {
      return make_random_map(config_.model.vocab_size, head.clusters, head.groups, codes, seed());
    }
    return make_frequency_map(counts_, head.clusters, head.groups, codes, seed());
  }
  Tensor tokens() const { return id_storage_.view({2 * rows()}, DType::i32).range(0, rows()); }
  Tensor targets() const { return id_storage_.view({2 * rows()}, DType::i32).range(rows(), rows()); }
  std::int64_t rows() const { return config_.train.micro_batch * config_.data.seq_len; }

  Backend& backend_;
  const Config& config_;
  std::vector<std::int64_t> counts_;
  std::optional<CodeMap> map_;
  Transformer model_;
  Optimizer optimizer_;
  Buffer id_storage_, loss_storage_;
  std::int64_t steps_ = 0;
};

std::string describe_model(const Config& config) {
  const ModelConfig& m = config.model;
  const HeadConfig& h = config.head;
  const std::string head =
      h.kind == HeadKind::dense ? "dense" : fmt::format("vq K={} G={} Q={}", h.clusters, h.groups, h.codes);
  return fmt::format("d {}, {} layers, {} heads ({} kv), d_ff {}, vocabulary {}, T {}, head {}", m.d_model,
                     m.n_layers, m.n_heads, m.n_kv_heads, m.d_ff, m.vocab_size, config.data.seq_len, head);
}

/// What lies in each kind of memory, in the order of MemoryUse.
std::vector<std::string> explain_memory(const Config& config, Transformer& model,
                                        const Backend::MemoryAccount& memory) {
  const auto millions = [](std::int64_t numbers) {
    return fmt::format("{:.2f} M numbers", 1e-6 * static_cast<double>(numbers));
  };
  const std::int64_t flat = model.parameters().flat_size();
  const std::size_t activations = memory.peak[static_cast<std::size_t>(MemoryUse::activations)];
  const std::int64_t tokens = model.batch().rows();
  const double per_token =
      static_cast<double>(activations) / 4 / static_cast<double>(tokens * config.model.n_layers);
  return {millions(flat) + (config.head.kind == HeadKind::vq ? ", and the code map" : ""), millions(flat),
          "AdamW's two moments of " + millions(flat / config.parallel.data),
          fmt::format("{} tokens x {} layers x {:.0f} numbers, kept from forward to backward", tokens,
                      config.model.n_layers, per_token),
          "one layer's temporaries, the head's (dense: a chunk of logits), token ids, losses"};
}

/// FLOP/s of matrix products: the best one by the wall clock, or, by processor time, their mean.
double matmul_peak(TimingBackend& timing, const ProcessGrid& grid, Clock clock) {
  timing.start();
  const double best = measure_matmul_peak(timing, grid.world());
  timing.stop();
  if (clock == wall_seconds) return best;
  for (const OpTime& op : timing.times()) {
    if (op.flops > 0) return op.flops / op.seconds;
  }
  return best;
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

StepBenchResult run_step_bench(Backend& backend, const ProcessGrid& grid, const Config& config,
                               const StepBenchOptions& options) {
  if (options.steps < 1 || options.warmup < 0 || options.profiled < 0) {
    throw UsageError(fmt::format(
        "bench step: {} timed, {} warm-up and {} profiled steps; choose at least 1 timed step and none "
        "below 0",
        options.steps, options.warmup, options.profiled));
  }
  TimingBackend timing(backend, options.clock);
  SyntheticTraining training(timing, grid, config);
  for (int i = 0; i < options.warmup; ++i) training.step();

  StepBenchResult result;
  result.model = describe_model(config);
  result.machine = fmt::format("{} data x {} tensor ranks, {}", grid.data_size(), grid.tensor_size(),
                               backend.description());
  result.clock = options.clock == wall_seconds ? "wall" : "cpu";
  result.parameters = static_cast<double>(training.model().parameters().global_count());
  result.tokens = static_cast<double>(config.train.global_batch * config.data.seq_len);
  result.flops_per_token = training.model().flops_per_token();
  result.matmul_peak_before = matmul_peak(timing, grid, options.clock);
  std::vector<double> heads;
  const double begin = wall_seconds(), cpu_begin = cpu_seconds();
  for (int i = 0; i < options.steps; ++i) {
    const double start = options.clock(), wall_start = wall_seconds();
    const double head = training.step();
    result.seconds.push_back(options.clock() - start);
    // The model knows the wall clock only; the head's share of it is taken from the step's time.
    heads.push_back(head / (wall_seconds() - wall_start) * result.seconds.back());
  }
  result.cpu_share = (cpu_seconds() - cpu_begin) / (wall_seconds() - begin);
  result.seconds_head = median(heads);
  result.matmul_peak_after = matmul_peak(timing, grid, options.clock);

  if (options.profiled > 0) {
    timing.start();
    const double start = options.clock();
    for (int i = 0; i < options.profiled; ++i) training.step();
    result.profiled_seconds = (options.clock() - start) / options.profiled;
    timing.stop();
    result.ops = timing.times();
    for (OpTime& op : result.ops) {
      op.calls /= options.profiled;
      op.seconds /= options.profiled;
      op.flops /= options.profiled;
    }
  }
  result.memory = backend.memory();
  result.resident_bytes = peak_resident_bytes();
  result.memory_notes = explain_memory(config, training.model(), result.memory);
  return result;
}

}  // namespace vqlm
