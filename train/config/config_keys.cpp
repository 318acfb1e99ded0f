#include "train/config/config_keys.h"

#include <array>

namespace vqlm::config_keys {
namespace {

/// The member at the end of a path of members: section, field, and a field's own field.
template <auto... Path>
auto& at(Config& config) {
  return (config.*....*Path);
}

template <auto... Path>
constexpr Choice choice(std::span<const std::string_view> words) {
  return {words, [](const Config& config) { return static_cast<int>((config.*....*Path)); },
          [](Config& config, int value) {
            auto& field = at<Path...>(config);
            field = static_cast<std::remove_reference_t<decltype(field)>>(value);
          }};
}

// In the order of the enums' values.
constexpr std::array<std::string_view, 3> rope_scalings = {"none", "linear", "llama3"};
constexpr std::array<std::string_view, 2> head_kinds = {"dense", "vq"};
constexpr std::array<std::string_view, 3> codebook_learnings = {"gradient", "commitment", "ema"};
constexpr std::array<std::string_view, 2> member_vectors = {"codes", "embedding"};
constexpr std::array<std::string_view, 3> precisions = {"auto", "fp32", "bf16"};
constexpr std::array<std::string_view, 3> schedules = {"constant", "cosine", "wsd"};
constexpr std::array<std::string_view, 3> devices = {"auto", "cpu", "cuda"};

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
    {"model", "vocab_size", &at<model, &ModelConfig::vocab_size>, {0, ids}, "tokens of the vocabulary; 0: as the shards say"},
    {"model", "d_model", &at<model, &ModelConfig::d_model>, {1, 1 << 20}, "model width d"},
    {"model", "n_layers", &at<model, &ModelConfig::n_layers>, {1, 10000}, "decoder blocks"},
    {"model", "n_heads", &at<model, &ModelConfig::n_heads>, {1, 65536}, "query heads"},
    {"model", "n_kv_heads", &at<model, &ModelConfig::n_kv_heads>, {0, 65536}, "key/value heads; 0: n_heads"},
    {"model", "d_ff", &at<model, &ModelConfig::d_ff>, {0, 1 << 24}, "MLP width; 0: 8/3 d_model, up to a multiple of 64"},
    {"model", "rope_theta", &at<model, &ModelConfig::rope_theta>, {0, 1e12, excluded}, "rotary base"},
    {"model", "rope_scaling", choice<model, rope_scaling, &RopeScaling::kind>(rope_scalings), any, "rotary frequencies for contexts longer than in pretraining"},
    {"model", "rope_factor", &at<model, rope_scaling, &RopeScaling::factor>, {1, 1e6}, "linear, llama3: how many times longer contexts become"},
    {"model", "rope_low_freq_factor", &at<model, rope_scaling, &RopeScaling::low_freq_factor>, {0, 1e6, excluded}, "llama3: turns over the original positions below which pairs slow down by rope_factor"},
    {"model", "rope_high_freq_factor", &at<model, rope_scaling, &RopeScaling::high_freq_factor>, {0, 1e6, excluded}, "llama3: turns above which pairs stay as they are"},
    {"model", "rope_original_positions", &at<model, rope_scaling, &RopeScaling::original_positions>, {1, many}, "llama3: longest context of pretraining"},
    {"model", "norm_eps", &at<model, &ModelConfig::norm_eps>, {0, 1, excluded}, "epsilon of RMSNorm"},
    {"model", "tie_embeddings", &at<model, &ModelConfig::tie_embeddings>, any, "dense head only: its matrix is the embedding table"},

    {"head", "kind", choice<head, &HeadConfig::kind>(head_kinds), any, "output layer"},
    {"head", "bias", &at<head, &HeadConfig::bias>, any, "token bias, started at log unigram counts"},
    {"head", "clusters", &at<head, &HeadConfig::clusters>, {1, ids}, "vq: clusters K of tokens"},
    {"head", "groups", &at<head, &HeadConfig::groups>, {0, 65536}, "vq: groups G of a member vector; 0: the published VQ-Logits"},
    {"head", "codes", &at<head, &HeadConfig::codes>, {1, 256}, "vq: codes Q of a group (one byte each)"},
    {"head", "members", choice<head, &HeadConfig::members>(member_vectors), any, "vq: vectors of a cluster's members: codes, or embedding: rows of the input embedding (no groups and codes then)"},
    {"head", "member_rank", &at<head, &HeadConfig::member_rank>, {0, 1 << 20}, "vq, members = embedding: columns of the embedding that are used; 0: all"},
    {"head", "member_scale", &at<head, &HeadConfig::member_scale>, {0, 1e6, excluded}, "vq, members = embedding: factor of these vectors"},
    {"head", "member_mean", &at<head, &HeadConfig::member_mean>, any, "vq, members = embedding: clusters are scored by their code plus the mean of their members' vectors"},
    {"head", "input_codes", &at<head, &HeadConfig::input_codes>, any, "vq: tokens are fed in as their embedding plus a vector of their cluster; not with a learned map"},
    {"head", "map", &at<head, &HeadConfig::map>, any, "vq: random, contiguous, frequency, corpus, learned, or the path of a map file"},
    {"head", "refit_every", &at<head, &HeadConfig::refit_every>, {0, many}, "learned map: steps between re-fits; 0: a tenth of train.steps"},
    {"head", "refit_until", &at<head, &HeadConfig::refit_until>, {0, many}, "learned map: the last step that may have a re-fit; 0: half of train.steps"},
    {"head", "refit_dims", &at<head, &HeadConfig::refit_dims>, {1, 1 << 20}, "learned map: dimensions that hidden states are projected to, at most d_model"},
    {"head", "own_tokens", &at<head, &HeadConfig::own_tokens>, {0, ids}, "vq: the most frequent tokens that have clusters of their own, of the K"},
    {"head", "learning", choice<head, &HeadConfig::learning>(codebook_learnings), any, "vq: how the codes learn"},
    {"head", "commitment", &at<head, &HeadConfig::commitment>, {0, 1e6}, "vq, learning commitment or ema: weight of the commitment loss"},
    {"head", "ema_decay", &at<head, &HeadConfig::ema_decay>, {0, 0.99999}, "vq, learning ema: decay of the clusters' moving averages, a step"},
    {"head", "dead_code_share", &at<head, &HeadConfig::dead_code_share>, {0, 0.5}, "vq, learning ema: codes below this part of the mean count are revived; 0: none"},

    {"data", "train", &at<data, &DataSection::train>, any, "glob of the training shards"},
    {"data", "heldout", &at<data, &DataSection::heldout>, any, "glob of the held-out shards; empty: no evaluation while training"},
    {"data", "seq_len", &at<data, &DataSection::seq_len>, {1, 1 << 24}, "tokens of a sample T"},

    {"train", "steps", &at<train, &TrainSection::steps>, {1, many}, "optimizer steps of the whole run"},
    {"train", "global_batch", &at<train, &TrainSection::global_batch>, {1, 1 << 24}, "sequences a step, over all ranks"},
    {"train", "micro_batch", &at<train, &TrainSection::micro_batch>, {1, 1 << 20}, "sequences a forward pass of one tensor-parallel group"},
    {"train", "seed", &at<train, &TrainSection::seed>, {0, 9007199254740992.0}, "seed of weights, map and sample order"},
    {"train", "grad_clip", &at<train, &TrainSection::grad_clip>, {0, 1e9}, "largest global gradient norm; 0: off"},
    {"train", "max_skipped_steps", &at<train, &TrainSection::max_skipped_steps>, {0, many}, "updates skipped in a row for a gradient that is not finite, before the run stops"},
    {"train", "check_replicas_every", &at<train, &TrainSection::check_replicas_every>, {0, many}, "steps between comparisons of what ranks hold copies of; 0: off"},
    {"train", "precision", choice<train, &TrainSection::precision>(precisions), any, "of activations and products; auto: fp32 on the CPU, bf16 on a GPU"},
    {"train", "eval_every", &at<train, &TrainSection::eval_every>, {0, many}, "steps between held-out evaluations; 0: at the end only"},
    {"train", "eval_tokens", &at<train, &TrainSection::eval_tokens>, {0, many}, "tokens of a held-out evaluation; 0: all"},

    {"optim", "lr", &at<optim, &OptimSection::lr>, {0, 100, excluded}, "highest learning rate"},
    {"optim", "beta1", &at<optim, &OptimSection::beta1>, {0, 0.99999}, "AdamW: decay of the mean"},
    {"optim", "beta2", &at<optim, &OptimSection::beta2>, {0, 0.99999}, "AdamW: decay of the squares"},
    {"optim", "eps", &at<optim, &OptimSection::eps>, {0, 1, excluded}, "AdamW: added to the root"},
    {"optim", "weight_decay", &at<optim, &OptimSection::weight_decay>, {0, 10}, "AdamW: decay of matrices"},
    {"optim", "schedule", choice<optim, &OptimSection::schedule>(schedules), any, "learning rate after warm-up"},
    {"optim", "warmup_steps", &at<optim, &OptimSection::warmup_steps>, {0, many}, "steps of the linear rise from 0 to lr"},
    {"optim", "min_lr_ratio", &at<optim, &OptimSection::min_lr_ratio>, {0, 1}, "last learning rate / lr"},
    {"optim", "embedding_lr_ratio", &at<optim, &OptimSection::embedding_lr_ratio>, {0, 1e3, excluded}, "learning rate of the embedding table / that of all else"},
    {"optim", "decay_fraction", &at<optim, &OptimSection::decay_fraction>, {0, 1}, "wsd: the part of all steps that decays, at the end"},

    {"parallel", "data", &at<parallel, &ParallelSection::data>, {0, 1 << 20}, "data-parallel groups; 0: ranks / tensor"},
    {"parallel", "tensor", &at<parallel, &ParallelSection::tensor>, {1, 65536}, "ranks that share one copy of the model"},
    {"parallel", "overlap", &at<parallel, &ParallelSection::overlap>, any, "GPU: gradient reductions run beside backward"},
    {"parallel", "timeout_seconds", &at<parallel, &ParallelSection::timeout_seconds>, {0, 1e6}, "GPU: a collective that takes longer ends the job; 0: off"},

    {"checkpoint", "every", &at<checkpoint, &CheckpointSection::every>, {0, many}, "steps between checkpoints; 0: at the end only"},
    {"checkpoint", "keep", &at<checkpoint, &CheckpointSection::keep>, {0, 1 << 30}, "newest checkpoints kept; 0: all"},
    {"checkpoint", "keep_every", &at<checkpoint, &CheckpointSection::keep_every>, {0, many}, "checkpoints of steps that this divides stay for good; 0: none"},

    {"run", "dir", &at<run, &RunSection::dir>, any, "folder of the run"},
    {"run", "name", &at<run, &RunSection::name>, any, "name in tables and plots; empty: the last part of dir"},
    {"run", "device", choice<run, &RunSection::device>(devices), any, "where to compute"},
    {"run", "threads", &at<run, &RunSection::threads>, {0, 4096}, "threads of a rank on the CPU; 0: cores / ranks on this machine"},
    {"run", "log_every", &at<run, &RunSection::log_every>, {1, many}, "steps between log lines"},
    {"run", "cuda_graphs", &at<run, &RunSection::cuda_graphs>, any, "GPU: record micro-batches as graphs and replay them"},
};
// clang-format on

}  // namespace

std::span<const Key> all() {
  return table;
}

}  // namespace vqlm::config_keys
