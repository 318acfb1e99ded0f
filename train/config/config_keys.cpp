#include "train/config/config_keys.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <type_traits>
#include <utility>

#include "core/error.h"
#include "train/config/enum_words.h"
#include "train/config/ngram_tables.h"
#include "train/config/whole_numbers.h"

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

/// Members of a head's part, which must be there.
constexpr auto vq = [](auto& config) -> auto& { return std::get<VqHeadConfig>(config.head); };
constexpr auto low_rank = [](auto& config) -> auto& { return std::get<LowRankHeadConfig>(config.head); };
constexpr auto adaptive = [](auto& config) -> auto& { return std::get<AdaptiveHeadConfig>(config.head); };
template <class Part>
constexpr auto members = [](auto& config) -> auto& { return std::get<Part>(vq(config).members); };
template <auto part, auto Member>
constexpr Field<std::remove_cvref_t<decltype(part(std::declval<Config&>()).*Member)>> in = {
    [](const Config& config) { return part(config).*Member; },
    [](Config& config, auto value) { part(config).*Member = std::move(value); }};

constexpr Field<bool> bias = {
    [](const Config& config) { return has_bias(config.head); },
    [](Config& config, bool value) { std::visit([&](auto& head) { head.bias = value; }, config.head); }};
template <auto Member>
constexpr Field<std::remove_cvref_t<decltype(std::declval<FutureHeadsConfig&>().*Member)>> of_future = {
    [](const Config& config) { return future_of(config.head).*Member; },
    [](Config& config, auto value) { std::visit([&](auto& head) { head.future.*Member = value; }, config.head); }};
constexpr Field<int> document_end = {[](const Config& config) { return int{config.model.document_end}; },
                                     [](Config& config, int value) { config.model.document_end = value; }};
constexpr Field<float> softcap = {
    [](const Config& config) { return std::get<DenseHeadConfig>(config.head).softcap; },
    [](Config& config, float value) { std::get<DenseHeadConfig>(config.head).softcap = value; }};
constexpr Field<float> z_loss = {[](const Config& config) { return z_loss_of(config.head); },
                                 [](Config& config, float value) {
                                   if (auto* dense = std::get_if<DenseHeadConfig>(&config.head)) dense->z_loss = value;
                                   if (auto* low = std::get_if<LowRankHeadConfig>(&config.head)) low->z_loss = value;
                                 }};
constexpr Field<float> commitment = {[](const Config& config) { return vq(config).commitment(); },
                                     [](Config& config, float value) {
                                       auto& learning = vq(config).learning;
                                       if (auto* loss = std::get_if<CommitmentLearningConfig>(&learning))
                                         loss->commitment = value;
                                       if (auto* ema = std::get_if<EmaLearningConfig>(&learning))
                                         ema->commitment = value;
                                     }};
constexpr Field<float> ema_decay = {
    [](const Config& config) { return std::get<EmaLearningConfig>(vq(config).learning).ema_decay; },
    [](Config& config, float value) { std::get<EmaLearningConfig>(vq(config).learning).ema_decay = value; }};

/// The alternatives of a variant; one that is chosen anew starts with its defaults.
template <class Enum, auto variant>
constexpr Choice alternative = {
    words<Enum>, [](const Config& config) { return static_cast<int>(variant(config).index()); },
    [](Config& config, int value) {
      auto& chosen = variant(config);
      if (static_cast<int>(chosen.index()) == value) return;
      [&]<std::size_t... index>(std::index_sequence<index...>) {
        ((value == static_cast<int>(index) ? void(chosen.template emplace<index>()) : void()), ...);
      }(std::make_index_sequence<words<Enum>.size()>());
    }};
constexpr auto head_of = [](auto& config) -> auto& { return config.head; };
constexpr auto members_of = [](auto& config) -> auto& { return vq(config).members; };
constexpr auto learning_of = [](auto& config) -> auto& { return vq(config).learning; };

constexpr Needs dense_head = {"head.kind", {"dense"}};
constexpr Needs vq_head = {"head.kind", {"vq"}};
constexpr Needs low_rank_head = {"head.kind", {"low_rank"}};
constexpr Needs adaptive_head = {"head.kind", {"adaptive"}};
constexpr Needs all_logits = {"head.kind", {"dense", "low_rank"}};
constexpr Needs embedding_members = {"head.members", {"embedding"}};
constexpr Needs code_members = {"head.members", {"codes"}};
constexpr Needs commitment_loss = {"head.learning", {"commitment", "ema"}};
constexpr Needs muon = {"optim.kind", {"muon"}};
constexpr Needs averages = {"head.learning", {"ema"}};

constexpr Range any{};
constexpr double many = 1e12;       // steps, tokens: beyond every run
constexpr double ids = 2147483647;  // token ids are 32-bit
constexpr Range::Low excluded = Range::Low::excluded;

constexpr auto model = &Config::model;
constexpr auto rope_scaling = &ModelConfig::rope_scaling;
constexpr auto data = &Config::data;
constexpr auto train = &Config::train;
constexpr auto optim = &Config::optim;
template <auto role>
constexpr auto lr_ratio = field<optim, role, &RoleRatios::lr_ratio>;
template <auto role>
constexpr auto decay_ratio = field<optim, role, &RoleRatios::decay_ratio>;
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
    {"model", "head_dim", field<model, &ModelConfig::head_width>, {0, 65536}, "width of an attention head; 0: d_model / n_heads", Identity::model},
    {"model", "attention_bias", field<model, &ModelConfig::attention_bias>, any, "biases of the query, key and value projections, as in Qwen2", Identity::model},
    {"model", "qk_norm", choice<model, &ModelConfig::qk_norm>, any, "RMSNorm of queries and keys before the rotation: over each head (Qwen3), or the whole width (OLMo 2)", Identity::model},
    {"model", "norm_placement", choice<model, &ModelConfig::norm_placement>, any, "RMSNorm of the stream before each branch, of the branch's output (OLMo 2), or both (Gemma 3)", Identity::model},
    {"model", "activation", choice<model, &ModelConfig::activation>, any, "gated unit of the MLP: by SiLU, or by GELU in its tanh form", Identity::model},
    {"model", "zero_init_outputs", field<model, &ModelConfig::zero_init_outputs>, any, "output projections of attention and MLP start at zero"},
    {"model", "nope_every", field<model, &ModelConfig::nope_every>, {0, 10000}, "every n-th layer has no rotary positions (SmolLM 3: 4); 0: none", Identity::model},
    {"model", "embedding_scale", field<model, &ModelConfig::embedding_scale>, {0, 1e6, excluded}, "factor of the embedding at the input (Gemma: sqrt(d_model))", Identity::model},
    {"model", "attention_scale", field<model, &ModelConfig::attention_scale>, {0, 1e9}, "attention scores are divided by its root (Gemma's query_pre_attn_scalar); 0: the width of a head", Identity::model},
    {"model", "window", field<model, &ModelConfig::window>, {0, many}, "positions that attention sees, a token's own among them; 0: all before it", Identity::model},
    {"model", "window_pattern", field<model, &ModelConfig::window_pattern>, {0, 10000}, "window: every n-th layer sees all positions (Gemma 3: 6); 0: none does", Identity::model},
    {"model", "window_rope_theta", field<model, &ModelConfig::window_rope_theta>, {0, 1e12}, "rotary base of layers with a window, which rope_scaling leaves alone; 0: as of all", Identity::model},
    {"model", "document_end", document_end, {-1, ids}, "written by the program (data.document_mask): the token behind which attention starts anew; -1: none"},
    {"model", "tie_embeddings", field<model, &ModelConfig::tie_embeddings>, any, "dense: the head's matrix is the embedding table; low_rank: its product is (ALBERT)", Identity::model, all_logits},

    {"input", "tables", field<model, &ModelConfig::ngram_tables>, any, "tables of rows added to the embedding by a hash of the last tokens: [{order = 2, rows = 8192}] for pairs", Identity::model},

    {"head", "kind", alternative<HeadKind, head_of>, any, "output layer", Identity::model},
    {"head", "bias", bias, any, "token bias, started at log unigram counts", Identity::model},
    {"head", "future", of_future<&FutureHeadsConfig::heads>, {0, 16}, "heads for the tokens behind the next one, which share all of the output head but a d x d matrix each; 0: none", Identity::model},
    {"head", "future_weight", of_future<&FutureHeadsConfig::weight>, {0, 100, excluded}, "future: weight of the mean of these heads' losses"},
    {"head", "z_loss", z_loss, {0, 1}, "dense, low_rank: weight of the squared log of the softmax's sum (PaLM: 1e-4); 0: none", Identity::no, all_logits},
    {"head", "softcap", softcap, {0, 1e6}, "dense: logits x become c tanh(x / c) for this c (Gemma 2: 30); 0: they stay", Identity::model, dense_head},
    {"head", "rank", in<low_rank, &LowRankHeadConfig::rank>, {1, 1 << 20}, "low_rank: rank r of the vocabulary matrix U A, U (V, r) and A (r, d)", Identity::model, low_rank_head},
    {"head", "cutoffs", in<adaptive, &AdaptiveHeadConfig::cutoffs>, any, "adaptive: tokens by falling frequency are cut into bands at these ranks, rising; []: at V / 8 and V / 2", Identity::model, adaptive_head},
    {"head", "tail_ratio", in<adaptive, &AdaptiveHeadConfig::tail_ratio>, {1, 65536}, "adaptive: the i-th tail band is scored at width d_model / tail_ratio^i, at least 1", Identity::model, adaptive_head},
    {"head", "clusters", in<vq, &VqHeadConfig::clusters>, {1, ids}, "vq: clusters K of tokens", Identity::model, vq_head},
    {"head", "members", alternative<MemberVectors, members_of>, any, "vq: vectors of a cluster's members: rows of the input embedding, product codes, or none (the published VQ-Logits)", Identity::model, vq_head},
    {"head", "member_mean", in<members<EmbeddingMembersConfig>, &EmbeddingMembersConfig::mean>, any, "members embedding: clusters are scored by their code plus the mean of their members' vectors", Identity::model, embedding_members},
    {"head", "groups", in<members<CodeMembersConfig>, &CodeMembersConfig::groups>, {0, 65536}, "members codes: groups G of a member vector; 0: members none", Identity::model, code_members},
    {"head", "codes", in<members<CodeMembersConfig>, &CodeMembersConfig::codes>, {1, 256}, "members codes: codes Q of a group (one byte each)", Identity::model, code_members},
    {"head", "input_codes", in<vq, &VqHeadConfig::input_codes>, any, "vq: tokens are fed in as their embedding plus a vector of their cluster", Identity::model, vq_head},
    {"head", "map", in<vq, &VqHeadConfig::map>, any, "vq: random, contiguous, frequency, corpus, or the path of a map file", Identity::no, vq_head},
    {"head", "own_tokens", in<vq, &VqHeadConfig::own_tokens>, {0, ids}, "vq: the most frequent tokens that have clusters of their own, of the K", Identity::no, vq_head},
    {"head", "learning", alternative<CodebookLearning, learning_of>, any, "vq: how the codes learn", Identity::averages, vq_head},
    {"head", "commitment", commitment, {0, 1e6}, "learning commitment or ema: weight of the commitment loss", Identity::no, commitment_loss},
    {"head", "ema_decay", ema_decay, {0, 0.99999}, "learning ema: decay of the clusters' moving averages, a step", Identity::no, averages},

    {"data", "train", field<data, &DataSection::train>, any, "glob of the training shards"},
    {"data", "heldout", field<data, &DataSection::heldout>, any, "glob of the held-out shards; empty: no evaluation while training"},
    {"data", "document_mask", field<data, &DataSection::document_mask>, any, "a token sees its own document only (the shards' end-of-text token ends one)"},
    {"data", "counted_text", choice<data, &DataSection::counted_text>, any, "text that token biases start from and head.map is made of: what the run trains on, or all of the shards"},
    {"data", "seq_len", field<data, &DataSection::seq_len>, {1, 1 << 24}, "tokens of a sample T", Identity::samples},

    {"train", "steps", field<train, &TrainSection::steps>, {1, many}, "optimizer steps of the whole run"},
    {"train", "global_batch", field<train, &TrainSection::global_batch>, {1, 1 << 24}, "sequences a step, over all ranks"},
    {"train", "micro_batch", field<train, &TrainSection::micro_batch>, {1, 1 << 20}, "sequences a forward pass of one tensor-parallel group"},
    {"train", "recompute", choice<train, &TrainSection::recompute>, any, "what backward computes again in place of keeping it: cheap: norms and SwiGLU, block: all of a block but its input"},
    {"train", "seed", field<train, &TrainSection::seed>, {0, 9007199254740992.0}, "seed of weights, map and sample order", Identity::samples},
    {"train", "grad_clip", field<train, &TrainSection::grad_clip>, {0, 1e9}, "largest global gradient norm; 0: off"},
    {"train", "max_skipped_steps", field<train, &TrainSection::max_skipped_steps>, {0, many}, "updates skipped in a row for a gradient that is not finite, before the run stops"},
    {"train", "check_replicas_every", field<train, &TrainSection::check_replicas_every>, {0, many}, "steps between comparisons of what ranks hold copies of; 0: off"},
    {"train", "precision", choice<train, &TrainSection::precision>, any, "of activations and products; auto: fp32 on the CPU, bf16 on a GPU"},
    {"train", "eval_every", field<train, &TrainSection::eval_every>, {0, many}, "steps between held-out evaluations; 0: at the end only"},
    {"train", "eval_tokens", field<train, &TrainSection::eval_tokens>, {0, many}, "tokens of a held-out evaluation; 0: all"},

    {"optim", "kind", choice<optim, &OptimSection::kind>, any, "of the blocks' matrices; all else is AdamW's", Identity::optimizer},
    {"optim", "muon_momentum", field<optim, &OptimSection::muon_momentum>, {0, 0.99999}, "muon: momentum", Identity::no, muon},
    {"optim", "lr", field<optim, &OptimSection::lr>, {0, 100, excluded}, "highest learning rate"},
    {"optim", "beta1", field<optim, &OptimSection::beta1>, {0, 0.99999}, "AdamW: decay of the mean"},
    {"optim", "beta2", field<optim, &OptimSection::beta2>, {0, 0.99999}, "AdamW: decay of the squares"},
    {"optim", "eps", field<optim, &OptimSection::eps>, {0, 1, excluded}, "AdamW: added to the root"},
    {"optim", "weight_decay", field<optim, &OptimSection::weight_decay>, {0, 10}, "decay of matrices, times the role's ratio"},
    {"optim", "schedule", choice<optim, &OptimSection::schedule>, any, "learning rate after warm-up"},
    {"optim", "warmup_steps", field<optim, &OptimSection::warmup_steps>, {0, many}, "steps of the linear rise from 0 to lr"},
    {"optim", "min_lr_ratio", field<optim, &OptimSection::min_lr_ratio>, {0, 1}, "last learning rate / lr"},
    {"optim", "embedding_lr_ratio", lr_ratio<&OptimSection::embedding>, {0, 1e3, excluded}, "learning rate of the embedding table / lr"},
    {"optim", "blocks_lr_ratio", lr_ratio<&OptimSection::blocks>, {0, 1e3, excluded}, "learning rate of attention and MLP / lr, by AdamW and by Muon"},
    {"optim", "head_lr_ratio", lr_ratio<&OptimSection::head>, {0, 1e3, excluded}, "learning rate of a dense, low-rank or adaptive head's matrices and of any head's biases / lr"},
    {"optim", "tables_lr_ratio", lr_ratio<&OptimSection::tables>, {0, 1e3, excluded}, "learning rate of a VQ head's codebooks / lr"},
    {"optim", "input_tables_lr_ratio", lr_ratio<&OptimSection::input_tables>, {0, 1e3, excluded}, "learning rate of the tables at the input / lr"},
    {"optim", "gains_lr_ratio", lr_ratio<&OptimSection::gains>, {0, 1e3, excluded}, "learning rate of the norms' gains / lr"},
    {"optim", "embedding_decay_ratio", decay_ratio<&OptimSection::embedding>, {0, 1e3}, "decay of the embedding table / weight_decay"},
    {"optim", "blocks_decay_ratio", decay_ratio<&OptimSection::blocks>, {0, 1e3}, "decay of attention and MLP / weight_decay"},
    {"optim", "head_decay_ratio", decay_ratio<&OptimSection::head>, {0, 1e3}, "decay of a dense, low-rank or adaptive head's matrices / weight_decay"},
    {"optim", "tables_decay_ratio", decay_ratio<&OptimSection::tables>, {0, 1e3}, "decay of a VQ head's codebooks / weight_decay"},
    {"optim", "input_tables_decay_ratio", decay_ratio<&OptimSection::input_tables>, {0, 1e3}, "decay of the tables at the input / weight_decay"},
    {"optim", "input_tables_update", choice<optim, &OptimSection::input_tables_update>, any, "of the tables at the input: of all rows in every step, or of those that the step touches"},
    {"optim", "embedding_update", choice<optim, &OptimSection::embedding_update>, any, "of the embedding: of all rows in every step, or of those that the step touches"},
    {"optim", "gains_decay_ratio", decay_ratio<&OptimSection::gains>, {0, 1e3}, "decay of the norms' gains / weight_decay"},
    {"optim", "decay_fraction", field<optim, &OptimSection::decay_fraction>, {0, 1}, "wsd: the part of all steps that decays, at the end"},

    {"parallel", "data", field<parallel, &ParallelSection::data>, {0, 1 << 20}, "data-parallel groups; 0: ranks / tensor"},
    {"parallel", "tensor", field<parallel, &ParallelSection::tensor>, {1, 65536}, "ranks that share one copy of the model"},
    {"parallel", "overlap", field<parallel, &ParallelSection::overlap>, any, "gradients are reduced beside backward, and parameters gathered beside forward"},
    {"parallel", "nccl_max_ctas", field<parallel, &ParallelSection::nccl_max_ctas>, {0, 64}, "GPU: a collective of NCCL takes at most so many thread blocks, the others are left to what runs beside it; 0: as NCCL chooses"},
    {"parallel", "heartbeat_seconds", field<parallel, &ParallelSection::heartbeat_seconds>, {0, 1e6}, "a rank that gives no sign of life for longer ends the job; 0: off"},
    {"parallel", "timeout_seconds", field<parallel, &ParallelSection::timeout_seconds>, {0, 1e6}, "a collective that takes longer, or a rank that keeps others waiting for longer, ends the job; 0: off"},

    {"checkpoint", "every", field<checkpoint, &CheckpointSection::every>, {0, many}, "steps between checkpoints; 0: at the end only"},
    {"checkpoint", "keep", field<checkpoint, &CheckpointSection::keep>, {0, 1 << 30}, "newest checkpoints kept; 0: all"},
    {"checkpoint", "keep_every", field<checkpoint, &CheckpointSection::keep_every>, {0, many}, "checkpoints of steps that this divides stay for good; 0: none"},
    {"checkpoint", "max_failed_saves", field<checkpoint, &CheckpointSection::max_failed_saves>, {0, 1 << 30}, "saves that fail in a row before the run stops; 0: it goes on"},

    {"run", "dir", field<run, &RunSection::dir>, any, "folder of the run"},
    {"run", "name", field<run, &RunSection::name>, any, "name in tables and plots; empty: the last part of dir"},
    {"run", "device", choice<run, &RunSection::device>, any, "where to compute"},
    {"run", "threads", field<run, &RunSection::threads>, {0, 4096}, "threads of a rank on the CPU; 0: cores / ranks on this machine"},
    {"run", "log_every", field<run, &RunSection::log_every>, {1, many}, "steps between log lines"},
    {"run", "cuda_graphs", field<run, &RunSection::cuda_graphs>, any, "GPU: record micro-batches as graphs and replay them"},
    {"run", "dependent_launch", field<run, &RunSection::dependent_launch>, any, "GPU, compute capability 9.0: kernels may begin before the one in front of them has ended, and wait for it by themselves"},
    {"run", "products_file", field<run, &RunSection::products_file>, any, "GPU: file of vqlm tune, with the algorithms of matrix products; empty: the library's first"},
    {"run", "head_since", field<run, &RunSection::head_since>, {0, many}, "written by the program: the step after which --resume-from went on with another head"},
    {"run", "counted_samples", field<run, &RunSection::counted_samples>, {0, 9007199254740992.0}, "written by the program: the run's first samples that token counts and map are of; 0: all text"},
    {"run", "began_from", field<run, &RunSection::began_from>, any, "written by the program: the model or checkpoint that the run started from"},
};
// clang-format on

}  // namespace

std::span<const Key> all() {
  return table;
}

namespace {

const Key& key_named(std::string_view full_name) {
  const Key* const found = std::ranges::find(table, full_name, &Key::full_name);
  VQLM_ASSERT(found != std::end(table));
  return *found;
}

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

const Needs* Key::missing(const Config& config) const {
  if (needs.key.empty()) return nullptr;
  const Key& decider = key_named(needs.key);
  if (const Needs* outer = decider.missing(config)) return outer;
  const auto& choice = std::get<Choice>(decider.member);
  const std::string_view chosen = choice.words[static_cast<std::size_t>(choice.get(config))];
  return chosen == needs.words[0] || chosen == needs.words[1] ? nullptr : &needs;
}

std::string Key::text(const Config& config) const {
  return std::visit(
      Overloaded{
          [&](const Field<bool>& field) { return std::string(field.get(config) ? "true" : "false"); },
          [&](const Field<std::string>& field) { return toml_string(field.get(config)); },
          [&](const Field<float>& field) { return float_text(field.get(config)); },
          [&](const Field<std::vector<NgramTable>>& field) { return ngram_tables_text(field.get(config)); },
          [&](const Field<std::vector<std::int64_t>>& field) { return whole_numbers_text(field.get(config)); },
          [&](const Choice& choice) { return toml_string(choice.words[static_cast<std::size_t>(choice.get(config))]); },
          [&](const auto& whole) { return fmt::format("{}", whole.get(config)); },
      },
      member);
}

bool decides(const Key& key) {
  return std::ranges::any_of(table, [&](const Key& other) { return other.needs.key == key.full_name(); });
}

Config with_key(Config config, const Key& key) {
  while (const Needs* const needs = key.missing(config)) {
    const auto& choice = std::get<Choice>(key_named(needs->key).member);
    choice.set(config, static_cast<int>(std::ranges::find(choice.words, needs->words[0]) - choice.words.begin()));
  }
  return config;
}

}  // namespace vqlm::config_keys
