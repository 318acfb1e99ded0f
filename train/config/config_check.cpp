// What the shards and the job decide, and the checks of keys against each other.
#include <spdlog/fmt/fmt.h>
#include <toml++/toml.h>

#include <algorithm>
#include <sstream>

#include "core/adaptive_bands.h"
#include "core/error.h"
#include "core/home_path.h"
#include "core/log.h"
#include "train/config/config.h"
#include "train/config/config_body_check.h"
#include "train/config/config_head_check.h"
#include "train/config/schedule.h"
#include "train/config/source_tables.h"

namespace vqlm {
namespace {

/// The multiple of `of` closest to value, at least `of`.
std::int64_t nearest_multiple(std::int64_t value, std::int64_t of) {
  return std::max<std::int64_t>(1, (value + of / 2) / of) * of;
}

void resolve_vocabulary(Config& config, std::int64_t vocab_size) {
  if (config.model.vocab_size != 0 && config.model.vocab_size < vocab_size) {
    throw UsageError(
        fmt::format("model.vocab_size = {} but the shards hold {} tokens: leave it 0, or name shards of "
                    "that vocabulary",
                    config.model.vocab_size, vocab_size));
  }
  if (config.model.vocab_size > vocab_size) {  // as many published models have
    log::info("model.vocab_size = {}: rows beyond the {} tokens of the shards only pad the vocabulary",
              config.model.vocab_size, vocab_size);
  }
  config.model.vocab_size = std::max(config.model.vocab_size, vocab_size);
}

/// A run's config.toml holds the configuration, and TOML is UTF-8; a file's name may be any bytes.
void check_text(const Config& config) {
  const std::string text = to_toml(config);
  try {
    const auto readable = toml::parse(text);
  } catch (const toml::parse_error& error) {
    std::istringstream lines(text);
    std::string line;
    for (toml::source_index i = 0; i < error.source().begin.line; ++i) std::getline(lines, line);
    throw UsageError(fmt::format("{}: is not UTF-8, which config.toml must be; rename the file or folder", line));
  }
}

void resolve_grid(ParallelSection& parallel, int ranks) {
  if (ranks % parallel.tensor != 0) {
    throw UsageError(fmt::format(
        "parallel.tensor = {} does not divide {} ranks: choose parallel.tensor = {} or start {} "
        "ranks",
        parallel.tensor, ranks, largest_divisor(ranks, parallel.tensor), nearest_multiple(ranks, parallel.tensor)));
  }
  if (parallel.data == 0) parallel.data = ranks / parallel.tensor;
  if (parallel.data * parallel.tensor != ranks) {
    throw UsageError(
        fmt::format("parallel.data = {} x parallel.tensor = {} is not {} ranks: choose parallel.data = {} "
                    "(or 0: what is left) or start {} ranks",
                    parallel.data, parallel.tensor, ranks, ranks / parallel.tensor, parallel.data * parallel.tensor));
  }
}

void resolve_model(ModelConfig& model) {
  if (model.n_kv_heads == 0) model.n_kv_heads = model.n_heads;
  if (model.head_width == 0 && model.d_model % model.n_heads != 0) {
    throw UsageError(
        fmt::format("model.d_model = {} does not divide by model.n_heads = {}: choose n_heads = {}, "
                    "d_model = {}, or a width of heads by model.head_dim",
                    model.d_model, model.n_heads, largest_divisor(model.d_model, model.n_heads),
                    nearest_multiple(model.d_model, 2 * model.n_heads)));
  }
  normalize_body(model);
  if (model.head_width % 2 != 0) {
    throw UsageError(fmt::format("model.head_dim = {} is odd, but rotary pairs need an even one: choose head_dim = {}",
                                 model.head_width, model.head_width + 1));
  }
  if (model.head_dim() % 2 != 0) {
    throw UsageError(fmt::format(
        "model.d_model = {} / model.n_heads = {} gives an odd head width {}, but rotary pairs "
        "need an even one: choose d_model = {}",
        model.d_model, model.n_heads, model.head_dim(), nearest_multiple(model.d_model, 2 * model.n_heads)));
  }
  if (model.n_heads % model.n_kv_heads != 0) {
    throw UsageError(fmt::format("model.n_heads = {} does not divide by model.n_kv_heads = {}: choose n_kv_heads = {}",
                                 model.n_heads, model.n_kv_heads, largest_divisor(model.n_heads, model.n_kv_heads)));
  }
  if (model.d_ff == 0) model.d_ff = (8 * model.d_model / 3 + 63) / 64 * 64;
}

void check_rope(const RopeScaling& rope) {
  if (rope.kind == RopeScaling::Kind::none && rope.factor != 1) {
    throw UsageError(
        fmt::format("model.rope_factor = {} with model.rope_scaling = \"none\" would change nothing: set "
                    "rope_scaling = \"linear\" or \"llama3\", or rope_factor = 1",
                    rope.factor));
  }
  if (rope.kind == RopeScaling::Kind::llama3 && rope.low_freq_factor >= rope.high_freq_factor) {
    throw UsageError(
        fmt::format("model.rope_low_freq_factor = {} is not below model.rope_high_freq_factor = {}: choose 1 "
                    "and 4, as Llama 3 does, or what the model's config.json says",
                    rope.low_freq_factor, rope.high_freq_factor));
  }
}

void check_tensor_parallel(const Config& config) {
  const int tensor = config.parallel.tensor;
  const auto check_divides = [&](const char* key, std::int64_t value) {
    if (value % tensor == 0) return;
    throw UsageError(
        fmt::format("model.{} = {} does not divide over parallel.tensor = {}: choose {} = {} or tensor = {}", key,
                    value, tensor, key, nearest_multiple(value, tensor), largest_divisor(value, tensor)));
  };
  check_divides("n_heads", config.model.n_heads);
  check_divides("n_kv_heads", config.model.n_kv_heads);
  check_divides("d_ff", config.model.d_ff);
  check_divides("d_model", config.model.d_model);
  if (vq_of(config.head) == nullptr && config.model.vocab_size < tensor) {
    throw UsageError(fmt::format("parallel.tensor = {} ranks share a vocabulary of {} tokens: choose tensor <= {}",
                                 tensor, config.model.vocab_size, config.model.vocab_size));
  }
  // Sequence parallelism: each rank of a tensor group keeps an equal share of a micro-batch's rows.
  const std::int64_t rows = config.train.micro_batch * config.data.seq_len;
  if (rows % tensor != 0) {
    throw UsageError(fmt::format(
        "train.micro_batch = {} x data.seq_len = {} = {} tokens do not divide over "
        "parallel.tensor = {}: choose seq_len = {}",
        config.train.micro_batch, config.data.seq_len, rows, tensor, nearest_multiple(config.data.seq_len, tensor)));
  }
}

void check_batch(const Config& config) {
  const std::int64_t at_once = config.parallel.data * config.train.micro_batch;
  if (config.train.global_batch % at_once == 0) return;
  throw UsageError(
      fmt::format("train.global_batch = {} does not divide by parallel.data = {} x train.micro_batch = {}: "
                  "choose global_batch = {}",
                  config.train.global_batch, config.parallel.data, config.train.micro_batch,
                  nearest_multiple(config.train.global_batch, at_once)));
}

void check_schedule(const Config& config) {
  const std::int64_t decay = decay_steps(config.optim, config.train.steps);
  if (config.optim.warmup_steps + decay <= config.train.steps) return;
  throw UsageError(
      fmt::format("optim.warmup_steps = {} and {} steps of decay do not fit into train.steps = {}: choose "
                  "warmup_steps <= {}",
                  config.optim.warmup_steps, decay, config.train.steps, config.train.steps - decay));
}

/// core/cuda's attention has kernels for these widths.
void check_head_dim(const ModelConfig& model) {
  constexpr std::int64_t widths[] = {128, 64, 32};
  const std::int64_t width = model.head_dim();
  std::string choices;
  for (const std::int64_t possible : widths) {
    if (width == possible) return;
    if (model.d_model % possible != 0) continue;
    choices += fmt::format("{}{}", choices.empty() ? "" : " or ", model.d_model / possible);
  }
  throw UsageError(fmt::format(
      "model.d_model = {} with model.n_heads = {} and model.head_dim = {} makes heads {} wide, and the CUDA "
      "back end has 32, 64 and 128: choose {}model.head_dim = one of these",
      model.d_model, model.n_heads, model.head_width, width,
      choices.empty() ? "" : "model.n_heads = " + choices + ", or "));
}

}  // namespace

void resolve(Config& config, std::int64_t vocab_size, int ranks) {
  VQLM_ASSERT(vocab_size > 0 && ranks > 0);
  resolve_vocabulary(config, vocab_size);
  resolve_grid(config.parallel, ranks);
  resolve_model(config.model);
  config.run.dir = expand_home(config.run.dir);
  config.run.products_file = expand_home(config.run.products_file);
  if (auto* head = std::get_if<VqHeadConfig>(&config.head)) head->map = expand_home(head->map);
  if (auto* head = std::get_if<AdaptiveHeadConfig>(&config.head); head != nullptr && head->cutoffs.empty())
    head->cutoffs = default_cutoffs(config.model.vocab_size);
  if (config.run.name.empty()) {
    // "runs/a" and "runs/a/" are both named a.
    config.run.name = (std::filesystem::path(config.run.dir) / "").lexically_normal().parent_path().filename().string();
  }
  source_tables::check(config.data);
  check_text(config);
  check_rope(config.model.rope_scaling);
  check_tensor_parallel(config);
  check_batch(config);
  check_body(config);
  check_head(config);
  check_schedule(config);
}

namespace {

void note_slow_bands(const Config& config) {
  const AdaptiveHeadConfig& head = *adaptive_of(config.head);
  for (const AdaptiveBand& band : adaptive_bands(head, config.model.vocab_size, config.model.d_model)) {
    if (band.width % 8 == 0) continue;
    log::info(
        "head.tail_ratio = {}: GPUs multiply rows of {} numbers, a tail band's width, slowly; another ratio may give "
        "multiples of 8",
        head.tail_ratio, band.width);
    return;
  }
}

/// Rows of the MLP's hidden states have d_ff / tensor numbers, a low-rank head's have head.rank, and a GPU's products want
/// multiples of 8.
void note_slow_width(const Config& config) {
  if (const auto* head = low_rank_of(config.head); head != nullptr && head->rank % 8 != 0) {
    log::info("head.rank = {}: GPUs multiply rows of {} numbers slowly; head.rank = {} would be faster", head->rank,
              head->rank, (head->rank + 7) / 8 * 8);
  }
  if (adaptive_of(config.head) != nullptr) {
    log::info(
        "head.kind = \"adaptive\": training goes without CUDA graphs, since how many rows a band has is another number in every "
        "micro-batch");
    note_slow_bands(config);
  }
  const std::int64_t width = config.model.d_ff / config.parallel.tensor;
  if (width % 8 == 0) return;
  const std::int64_t better = (width + 7) / 8 * 8 * config.parallel.tensor;
  log::info(
      "model.d_ff = {} on {} tensor rank{}: GPUs multiply rows of {} numbers slowly; model.d_ff = {} would be faster",
      config.model.d_ff, config.parallel.tensor, config.parallel.tensor == 1 ? "" : "s", width, better);
}

}  // namespace

void check_device(const Config& config, DType activation) {
  if (activation == DType::bf16) {
    check_head_dim(config.model);
    note_slow_width(config);
  }
  const Precision asked = config.train.precision;
  if (asked == Precision::bf16 && activation != DType::bf16) {
    throw UsageError(
        "train.precision = \"bf16\" with the CPU back end, which computes in fp32 only: set train.precision "
        "= \"auto\", or run on a GPU (run.device = \"cuda\")");
  }
  if (asked == Precision::fp32 && activation != DType::f32) {
    throw UsageError(
        "train.precision = \"fp32\" with the CUDA back end, which computes in bf16 (sums, master weights and "
        "moments in fp32): set train.precision = \"auto\", or run.device = \"cpu\"");
  }
}

DeviceKind automatic_device(const Config& config) {
  try {
    check_device(config, DType::bf16);
    return DeviceKind::automatic;
  } catch (const UsageError&) {
    return DeviceKind::cpu;
  }
}

}  // namespace vqlm
