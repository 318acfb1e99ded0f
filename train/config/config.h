// The configuration of a run: a TOML file, overridden key by key on the command line. Every key stands once,
// in the table of config_keys.cpp; reading, checking, help and writing all go through that table.
#pragma once

#include <cstdint>
#include <filesystem>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "core/dtype.h"
#include "core/model_config.h"

namespace vqlm {

/// A source of training text and its weight from a step on: an entry [[data.mix]] (docs/mixtures.md).
struct MixEntry {
  std::string name;
  std::string train = {};              // glob of its shards; empty where another entry of the name has it
  double weight = 0;                   // its share is this by the sum of all sources' weights
  std::int64_t from_step = 1;          // the first step that has this weight
  std::int64_t from_sample = not_set;  // the run's first sample that has it, once a run that was continued knows

  static constexpr std::int64_t not_set = -1;
  static constexpr double weight_unit = 1e6;
  /// The weight in whole millionths.
  std::int64_t share() const { return static_cast<std::int64_t>(weight * weight_unit + 0.5); }
  bool operator==(const MixEntry&) const = default;
};

/// A named held-out set: an entry [[data.heldout]].
struct HeldoutEntry {
  std::string name;
  std::string shards;  // glob
  bool operator==(const HeldoutEntry&) const = default;
};

/// What token counts and made code maps are of: the samples that the run trains on, or the whole shards.
enum class CountedText { trained, all };

struct DataSection {
  std::string train;    // glob of the training shards
  std::string heldout;  // glob of the held-out shards
  std::int64_t seq_len = 512;
  bool document_mask = false;  // a token sees its own document only
  CountedText counted_text = CountedText::trained;
  std::vector<MixEntry> mix;               // in place of train
  std::vector<HeldoutEntry> heldout_sets;  // in place of heldout

  /// Sources of training text.
  std::size_t sources() const {
    std::set<std::string> names;
    for (const MixEntry& entry : mix) names.insert(entry.name);
    return mix.empty() ? 1 : names.size();
  }
  bool trains() const { return !train.empty() || !mix.empty(); }
  /// Whether there is an evaluation while training.
  bool evaluates() const { return !heldout.empty() || !heldout_sets.empty(); }
};

/// Of activations and products; automatic: what the device computes in (CPU fp32, GPU bf16).
enum class Precision { automatic, fp32, bf16 };

struct TrainSection {
  std::int64_t steps = 1000;
  std::int64_t global_batch = 32;  // sequences a step, over all ranks
  std::int64_t micro_batch = 8;    // sequences a forward pass of one tensor-parallel group
  Recompute recompute = Recompute::none;
  std::int64_t seed = 1;
  float grad_clip = 1.0f;                   // global gradient norm; 0: off
  std::int64_t max_skipped_steps = 10;      // in a row, for a gradient that is not finite; then the run stops
  std::int64_t check_replicas_every = 100;  // steps; 0: off
  Precision precision = Precision::automatic;
  std::int64_t eval_every = 0;   // steps between held-out evaluations; 0: at the end only
  std::int64_t eval_tokens = 0;  // tokens of a held-out evaluation; 0: all
};

enum class ScheduleKind { constant, cosine, wsd };

/// muon: for the hidden matrices of the blocks, AdamW for all else (docs/optimizers.md).
enum class OptimizerKind { adamw, muon };

/// Of the embedding, or of the tables at the input: of all rows in every step, or of those that the step touches (docs/inputs.md).
enum class TableUpdate { dense, rows };

/// Of parameters of one role, by optim.lr and optim.weight_decay; what never decays, a bias, does not at any ratio.
struct RoleRatios {
  float lr_ratio = 1;
  float decay_ratio = 1;
};

struct OptimSection {
  OptimizerKind kind = OptimizerKind::adamw;
  float lr = 1e-3f;  // the highest rate, reached after warm-up
  float beta1 = 0.9f;
  float beta2 = 0.95f;
  float eps = 1e-8f;
  float weight_decay = 0.1f;
  ScheduleKind schedule = ScheduleKind::cosine;
  std::int64_t warmup_steps = 100;
  float min_lr_ratio = 0.1f;  // last rate / lr
  float muon_momentum = 0.95f;
  RoleRatios blocks, head, tables;
  RoleRatios embedding{.lr_ratio = 4}, input_tables{.lr_ratio = 4, .decay_ratio = 0};
  RoleRatios gains{.decay_ratio = 0};
  TableUpdate embedding_update = TableUpdate::dense, input_tables_update = TableUpdate::rows;
  float decay_fraction = 0.2f;  // wsd: the part of all steps that decays, at the end
};

struct ParallelSection {
  int data = 0;  // 0: ranks / tensor
  int tensor = 1;
  bool overlap = true;           // gradients are reduced beside backward, parameters gathered beside forward
  int nccl_max_ctas = 0;         // thread blocks of an NCCL collective at most; 0: NCCL's own limit
  float heartbeat_seconds = 45;  // without a sign of life from a rank; 0: off
  float timeout_seconds = 600;   // of a collective, or of a rank that keeps the others waiting; 0: off
};

struct CheckpointSection {
  std::int64_t every = 0;       // steps; 0: at the end only
  int keep = 2;                 // newest checkpoints kept; 0: all
  std::int64_t keep_every = 0;  // steps; checkpoints at multiples of it stay for good; 0: none
  int max_failed_saves = 10;    // in a row; then the run stops; 0: it never does
};

enum class DeviceKind { automatic, cpu, cuda };

struct RunSection {
  std::string dir = "runs/default";
  std::string name;  // for people; empty: the last part of dir
  DeviceKind device = DeviceKind::automatic;
  int threads = 0;  // of a rank on the CPU; 0: cores / ranks on this machine
  std::int64_t log_every = 10;
  bool cuda_graphs = true;       // record micro-batches and replay them (GPU)
  bool dependent_launch = true;  // kernels may begin before the one in front has ended (GPU)
  std::string products_file;     // algorithms of matrix products, timed by vqlm tune (GPU); empty: the library's first
  std::string began_from;        // what --init or --resume-from named; empty: random weights. The program writes it
  std::int64_t head_since = 0;   // the step after which the head is another one than before. The program writes it
  std::int64_t counted_samples =
      0;  // the run's first samples that counts and map are of; 0: all text. The program writes it
};

struct Config {
  ModelConfig model;
  HeadConfig head = VqHeadConfig{};
  DataSection data;
  TrainSection train;
  OptimSection optim;
  ParallelSection parallel;
  CheckpointSection checkpoint;
  RunSection run;

  /// Tokens of all steps, repeated ones as often as they are read; 0 where the run began from a model, which was trained on
  /// text of its own.
  double trained_tokens() const {
    if (!run.began_from.empty()) return 0;
    return static_cast<double>(train.steps) * static_cast<double>(train.global_batch * data.seq_len);
  }
};

/// Defaults, then the file (skipped where path is empty), then overrides "section.key=value" in order.
/// Strings need no quotes in an override. Keys of the file that an override's choice leaves out (head.kind=dense: those of
/// a VQ head) are dropped and logged. Throws Error for a file that cannot be read or is not TOML, and UsageError naming an
/// unknown key (with the nearest known one), a value of the wrong type or out of its range, or a key that what is chosen
/// beside it or before it leaves out (head.clusters with head.kind = "dense"). A config.toml in the folder of a run or of a
/// checkpoint is read as load_saved_config() does.
Config load_config(const std::filesystem::path& path, const std::vector<std::string>& overrides = {});

/// The same where what neither says is as in `base`: the model that a run starts from. A choice that differs from the base's
/// (head.kind) starts with its defaults. A run's or a checkpoint's config.toml says everything itself.
Config load_config(const std::filesystem::path& path, const std::vector<std::string>& overrides, const Config& base);

/// What to_toml() of this version or an earlier one wrote. Keys that the model has not are passed over: earlier versions
/// wrote all keys, and a key that they had not means what they did. Overrides as above.
Config load_saved_config(const std::filesystem::path& path, const std::vector<std::string>& overrides = {});

/// The full names of the keys whose last part is this.
std::vector<std::string> keys_named(std::string_view name);

/// Fills in what the shards and the job decide (model.vocab_size, model.n_kv_heads, model.d_ff,
/// parallel.data, run.name), replaces ~ in paths and checks keys against each other. ranks: of the whole job. Throws UsageError
/// naming both keys, their values and a choice that works.
void resolve(Config& config, std::int64_t vocab_size, int ranks);

/// Throws UsageError where the configuration asks for what the device cannot do, the one whose activation dtype this is (f32:
/// the CPU, bf16: a GPU): another train.precision, or a width of attention heads that the CUDA back end has no kernel for.
void check_device(const Config& config, DType activation);
/// Where a model runs that nobody named a device for: automatic, or the CPU where a GPU has no kernels for it.
DeviceKind automatic_device(const Config& config);

/// Every key that the configuration has as TOML; load_config gives the same Config back, bit for bit.
std::string to_toml(const Config& config);

/// One line for each key: name, default (where it is there), what it is. For --help.
std::string describe_keys();

}  // namespace vqlm
