#include "train/config/config_keys.h"

#include <spdlog/fmt/fmt.h>

#include <type_traits>
#include <utility>

#include "train/config/enum_words.h"

namespace vqlm::config_keys {
namespace {

/// The member at the end of a path of members: section, field, and a field's own field.
template <auto... Path>
using MemberOf = std::remove_cvref_t<decltype((std::declval<Config&>().*....*Path))>;

template <auto... Path>
constexpr Field<MemberOf<Path...>> field = {
    [](const Config& config) { return (config.*....*Path); },
    [](Config& config, MemberOf<Path...> value) { (config.*....*Path) = std::move(value); }};

template <auto... Path>
constexpr Choice choice = {
    words<MemberOf<Path...>>, [](const Config& config) { return static_cast<int>((config.*....*Path)); },
    [](Config& config, int value) { (config.*....*Path) = static_cast<MemberOf<Path...>>(value); }};

constexpr Range any{};
constexpr double many = 1e12;       // steps, tokens: beyond every run
constexpr double ids = 2147483647;  // token ids are 32-bit
constexpr Range::Low excluded = Range::Low::excluded;

constexpr auto model = &Config::model;
constexpr auto rope_scaling = &ModelConfig::rope_scaling;
constexpr auto head = &Config::head;
constexpr auto data = &Config::data;
constexpr auto train = &Config::train;
constexpr auto optim = &Config::optim;
constexpr auto parallel = &Config::parallel;
constexpr auto checkpoint = &Config::checkpoint;
constexpr auto run = &Config::run;

// clang-format off
constexpr Key table[] = {
    {"model", "vocab_size", field<model, &ModelConfig::vocab_size>, {0, ids}, "tokens of the vocabulary; 0: as the shards say", Identity::model},
    {"model", "d_model", field<model, &ModelConfig::d_model>, {1, 1 << 20}, "model width d", Identity::model},
    {"model", "n_layers", field<model, &ModelConfig::n_layers>, {1, 10000}, "decoder blocks", Identity::model},
    {"model", "n_heads", field<model, &ModelConfig::n_heads>, {1, 65536}, "query heads", Identity::model},
    {"model", "n_kv_heads", field<model, &ModelConfig::n_kv_heads>, {0, 65536}, "key/value heads; 0: n_heads", Identity::model},
    {"model", "d_ff", field<model, &ModelConfig::d_ff>, {0, 1 << 24}, "MLP width; 0: 8/3 d_model, up to a multiple of 64", Identity::model},
    {"model", "rope_theta", field<model, &ModelConfig::rope_theta>, {0, 1e12, excluded}, "rotary base", Identity::model},
    {"model", "rope_scaling", choice<model, rope_scaling, &RopeScaling::kind>, any, "rotary frequencies for contexts longer than in pretraining", Identity::model},
    {"model", "rope_factor", field<model, rope_scaling, &RopeScaling::factor>, {1, 1e6}, "linear, llama3: how many times longer contexts become", Identity::model},
    {"model", "rope_low_freq_factor", field<model, rope_scaling, &RopeScaling::low_freq_factor>, {0, 1e6, excluded}, "llama3: turns over the original positions below which pairs slow down by rope_factor", Identity::model},
    {"model", "rope_high_freq_factor", field<model, rope_scaling, &RopeScaling::high_freq_factor>, {0, 1e6, excluded}, "llama3: turns above which pairs stay as they are", Identity::model},
    {"model", "rope_original_positions", field<model, rope_scaling, &RopeScaling::original_positions>, {1, many}, "llama3: longest context of pretraining", Identity::model},
    {"model", "norm_eps", field<model, &ModelConfig::norm_eps>, {0, 1, excluded}, "epsilon of RMSNorm", Identity::model},
    {"model", "tie_embeddings", field<model, &ModelConfig::tie_embeddings>, any, "dense head only: its matrix is the embedding table", Identity::model},

    {"head", "kind", choice<head, &HeadConfig::kind>, any, "output layer", Identity::model},
    {"head", "bias", field<head, &HeadConfig::bias>, any, "token bias, started at log unigram counts", Identity::model},
    {"head", "clusters", field<head, &HeadConfig::clusters>, {1, ids}, "vq: clusters K of tokens", Identity::vq},
    {"head", "groups", field<head, &HeadConfig::groups>, {0, 65536}, "vq: groups G of a member vector; 0: the published VQ-Logits", Identity::vq},
    {"head", "codes", field<head, &HeadConfig::codes>, {1, 256}, "vq: codes Q of a group (one byte each)", Identity::product_codes},
    {"head", "members", choice<head, &HeadConfig::members>, any, "vq: vectors of a cluster's members: codes, or embedding: rows of the input embedding (no groups and codes then)", Identity::vq},
    {"head", "member_mean", field<head, &HeadConfig::member_mean>, any, "vq, members = embedding: clusters are scored by their code plus the mean of their members' vectors", Identity::embedding_members},
    {"head", "input_codes", field<head, &HeadConfig::input_codes>, any, "vq: tokens are fed in as their embedding plus a vector of their cluster", Identity::vq},
    {"head", "map", field<head, &HeadConfig::map>, any, "vq: random, contiguous, frequency, corpus, or the path of a map file"},
    {"head", "own_tokens", field<head, &HeadConfig::own_tokens>, {0, ids}, "vq: the most frequent tokens that have clusters of their own, of the K"},
    {"head", "learning", choice<head, &HeadConfig::learning>, any, "vq: how the codes learn", Identity::averages},
    {"head", "commitment", field<head, &HeadConfig::commitment>, {0, 1e6}, "vq, learning commitment or ema: weight of the commitment loss"},
    {"head", "ema_decay", field<head, &HeadConfig::ema_decay>, {0, 0.99999}, "vq, learning ema: decay of the clusters' moving averages, a step"},

    {"data", "train", field<data, &DataSection::train>, any, "glob of the training shards"},
    {"data", "heldout", field<data, &DataSection::heldout>, any, "glob of the held-out shards; empty: no evaluation while training"},
    {"data", "seq_len", field<data, &DataSection::seq_len>, {1, 1 << 24}, "tokens of a sample T", Identity::samples},

    {"train", "steps", field<train, &TrainSection::steps>, {1, many}, "optimizer steps of the whole run"},
    {"train", "global_batch", field<train, &TrainSection::global_batch>, {1, 1 << 24}, "sequences a step, over all ranks"},
    {"train", "micro_batch", field<train, &TrainSection::micro_batch>, {1, 1 << 20}, "sequences a forward pass of one tensor-parallel group"},
    {"train", "seed", field<train, &TrainSection::seed>, {0, 9007199254740992.0}, "seed of weights, map and sample order", Identity::samples},
    {"train", "grad_clip", field<train, &TrainSection::grad_clip>, {0, 1e9}, "largest global gradient norm; 0: off"},
    {"train", "max_skipped_steps", field<train, &TrainSection::max_skipped_steps>, {0, many}, "updates skipped in a row for a gradient that is not finite, before the run stops"},
    {"train", "check_replicas_every", field<train, &TrainSection::check_replicas_every>, {0, many}, "steps between comparisons of what ranks hold copies of; 0: off"},
    {"train", "precision", choice<train, &TrainSection::precision>, any, "of activations and products; auto: fp32 on the CPU, bf16 on a GPU"},
    {"train", "eval_every", field<train, &TrainSection::eval_every>, {0, many}, "steps between held-out evaluations; 0: at the end only"},
    {"train", "eval_tokens", field<train, &TrainSection::eval_tokens>, {0, many}, "tokens of a held-out evaluation; 0: all"},

    {"optim", "lr", field<optim, &OptimSection::lr>, {0, 100, excluded}, "highest learning rate"},
    {"optim", "beta1", field<optim, &OptimSection::beta1>, {0, 0.99999}, "AdamW: decay of the mean"},
    {"optim", "beta2", field<optim, &OptimSection::beta2>, {0, 0.99999}, "AdamW: decay of the squares"},
    {"optim", "eps", field<optim, &OptimSection::eps>, {0, 1, excluded}, "AdamW: added to the root"},
    {"optim", "weight_decay", field<optim, &OptimSection::weight_decay>, {0, 10}, "AdamW: decay of matrices"},
    {"optim", "schedule", choice<optim, &OptimSection::schedule>, any, "learning rate after warm-up"},
    {"optim", "warmup_steps", field<optim, &OptimSection::warmup_steps>, {0, many}, "steps of the linear rise from 0 to lr"},
    {"optim", "min_lr_ratio", field<optim, &OptimSection::min_lr_ratio>, {0, 1}, "last learning rate / lr"},
    {"optim", "embedding_lr_ratio", field<optim, &OptimSection::embedding_lr_ratio>, {0, 1e3, excluded}, "learning rate of the embedding table / that of all else"},
    {"optim", "decay_fraction", field<optim, &OptimSection::decay_fraction>, {0, 1}, "wsd: the part of all steps that decays, at the end"},

    {"parallel", "data", field<parallel, &ParallelSection::data>, {0, 1 << 20}, "data-parallel groups; 0: ranks / tensor"},
    {"parallel", "tensor", field<parallel, &ParallelSection::tensor>, {1, 65536}, "ranks that share one copy of the model"},
    {"parallel", "overlap", field<parallel, &ParallelSection::overlap>, any, "GPU: gradient reductions run beside backward"},
    {"parallel", "timeout_seconds", field<parallel, &ParallelSection::timeout_seconds>, {0, 1e6}, "GPU: a collective that takes longer ends the job; 0: off"},

    {"checkpoint", "every", field<checkpoint, &CheckpointSection::every>, {0, many}, "steps between checkpoints; 0: at the end only"},
    {"checkpoint", "keep", field<checkpoint, &CheckpointSection::keep>, {0, 1 << 30}, "newest checkpoints kept; 0: all"},
    {"checkpoint", "keep_every", field<checkpoint, &CheckpointSection::keep_every>, {0, many}, "checkpoints of steps that this divides stay for good; 0: none"},

    {"run", "dir", field<run, &RunSection::dir>, any, "folder of the run"},
    {"run", "name", field<run, &RunSection::name>, any, "name in tables and plots; empty: the last part of dir"},
    {"run", "device", choice<run, &RunSection::device>, any, "where to compute"},
    {"run", "threads", field<run, &RunSection::threads>, {0, 4096}, "threads of a rank on the CPU; 0: cores / ranks on this machine"},
    {"run", "log_every", field<run, &RunSection::log_every>, {1, many}, "steps between log lines"},
    {"run", "cuda_graphs", field<run, &RunSection::cuda_graphs>, any, "GPU: record micro-batches as graphs and replay them"},
};
// clang-format on

}  // namespace

std::span<const Key> all() {
  return table;
}

namespace {

/// "0.0003", "10000.0": the shortest text that reads back as the same float, always a TOML float.
std::string float_text(float value) {
  std::string text = fmt::format("{}", value);
  if (text.find_first_of(".e") == std::string::npos) text += ".0";
  return text;
}

}  // namespace

std::string toml_string(std::string_view text) {
  std::string out = "\"";
  for (char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    const bool control = static_cast<unsigned char>(c) < 0x20 || c == 0x7F;
    out += control ? fmt::format("\\u{:04X}", static_cast<unsigned>(c)) : std::string(1, c);
  }
  return out + '"';
}

std::optional<HeadKind> Key::head_kind() const {
  if (section == "head" && name != "kind" && name != "bias") return HeadKind::vq;
  if (section == "model" && name == "tie_embeddings") return HeadKind::dense;
  return std::nullopt;
}

std::string Key::text(const Config& config) const {
  return std::visit(
      Overloaded{
          [&](const Field<bool>& field) { return std::string(field.get(config) ? "true" : "false"); },
          [&](const Field<std::string>& field) { return toml_string(field.get(config)); },
          [&](const Field<float>& field) { return float_text(field.get(config)); },
          [&](const Choice& choice) { return toml_string(choice.words[static_cast<std::size_t>(choice.get(config))]); },
          [&](const auto& whole) { return fmt::format("{}", whole.get(config)); },
      },
      member);
}

}  // namespace vqlm::config_keys
