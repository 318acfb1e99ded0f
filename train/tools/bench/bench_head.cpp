#include "train/tools/bench/bench_head.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <fstream>
#include <numeric>
#include <string>

#include "dist/self_communicator.h"
#include "train/engine/human_bytes.h"
#include "train/engine/planning_backend.h"

namespace vqlm {
namespace {

std::size_t bytes_in_use(Backend& backend) {
  const auto in_use = backend.memory().in_use;
  return std::accumulate(in_use.begin(), in_use.end(), std::size_t{0});
}

bool is_dense(BenchedHead kind) {
  return kind == BenchedHead::dense || kind == BenchedHead::dense_plain;
}

/// Host memory that the kernel would give to a new process without swapping; 0 where it does not say.
double available_host_memory() {
  std::ifstream lines("/proc/meminfo");
  for (std::string key, line; lines >> key; std::getline(lines, line)) {
    double kibibytes = 0;
    if (key == "MemAvailable:" && lines >> kibibytes) return 1024 * kibibytes;
  }
  return 0;
}

HeadConfig config_of(const HeadBenchOptions& options, BenchedHead kind) {
  if (is_dense(kind)) return DenseHeadConfig{};
  if (kind == BenchedHead::low_rank) return LowRankHeadConfig{.rank = options.low_rank()};
  VqHeadConfig config = code_head(options.clusters, options.groups, options.codes);
  if (kind == BenchedHead::vq_embedding) config.members = EmbeddingMembersConfig{};
  if (kind == BenchedHead::vq_logits) {
    if (options.groups > 0) config.clusters += options.codes;  // as many parameters
    config.clusters = std::min(config.clusters, options.vocab_size);
    config.members = NoMembersConfig{};
  }
  return config;
}

/// A parameter's value, its rounded copy where there is one, and its gradient.
double bytes_of_parameter(const Backend& backend, HeadUse use) {
  const DType a = backend.activation_dtype();
  return static_cast<double>(sizeof(float) + (a == DType::f32 ? 0 : size_of(a)) +
                             (use == HeadUse::training ? sizeof(float) : 0));
}

/// Bytes that a head takes, with the embedding where it needs one: what it asks of a back end without memory.
double planned_bytes(const HeadSetting& setting, BenchedHead kind, HeadUse use) {
  PlannedMachine machine{StatedRates{}};
  PlanningBackend backend(machine, setting.tensor.backend().activation_dtype());
  SelfCommunicator alone(backend, "self");
  const TensorParallel tensor(backend, alone);
  const BenchHead head({.tensor = tensor, .options = setting.options, .counts = setting.counts}, kind, use);
  return static_cast<double>(bytes_in_use(backend));
}

}  // namespace

BenchHead::BenchHead(const HeadSetting& setting, BenchedHead kind, HeadUse use)
    : config_(config_of(setting.options, kind)), parameters_(setting.tensor.backend(), DataShare{}) {
  const HeadBenchOptions& options = setting.options;
  Backend& backend = setting.tensor.backend();
  const std::size_t before = bytes_in_use(backend);
  model_.vocab_size = options.vocab_size;
  model_.d_model = options.width;
  const bool trains = use == HeadUse::training;
  const VqHeadConfig* const vq = vq_of(config_);
  const int bucket = parameters_.add_bucket("head", vq != nullptr);
  const int biases = vq == nullptr ? parameters_.add_bucket("head bias", false) : bucket;
  const int replicated = low_rank_of(config_) != nullptr ? parameters_.add_bucket("replicated", true) : bucket;
  const bool reads_table = table_numbers() > 0;
  ParameterId table = 0;
  if (reads_table) {
    table = parameters_.add(bucket, {{.name = "model.embed_tokens.weight",
                                      .global_shape = {options.vocab_size, options.width},
                                      .offset = {0, 0},
                                      .shape = {options.vocab_size, options.width},
                                      .init = {.stddev = 0.02f},
                                      .role = ParameterRole::embedding}});
  }
  const HeadContext context{
      .tensor = setting.tensor,
      .model = model_,
      .parameters = parameters_,
      .buckets = {bucket, biases, replicated},
      .rows = trains ? options.rows : 1,
      .trainable = trains,
      .logits = kind == BenchedHead::dense_plain ? LogitChunks::one_for_all : LogitChunks::by_budget,
      .embedding = table};
  if (const LowRankHeadConfig* const low_rank = low_rank_of(config_)) {
    head_ = std::make_unique<LowRankHead>(context, *low_rank, std::nullopt);
  } else if (vq == nullptr) {
    head_ = std::make_unique<DenseHead>(context, std::get<DenseHeadConfig>(config_), std::nullopt);
  } else {
    const CodeMap map =
        options.map == "frequency"
            ? make_frequency_map(setting.counts, vq->clusters, vq->groups(), vq->codes(), options.seed)
            : make_random_map(options.vocab_size, vq->clusters, vq->groups(), vq->codes(), options.seed);
    auto head = std::make_unique<VqHead>(context, *vq, map);
    vq_ = head.get();
    head_ = std::move(head);
  }
  parameters_.allocate(trains);
  if (trains) parameters_.begin_gradients();
  bytes_ = bytes_in_use(backend) - before -
           static_cast<std::size_t>(static_cast<double>(table_numbers()) * bytes_of_parameter(backend, use));
}

void BenchHead::initialize(const HeadSetting& setting) {
  parameters_.initialize(setting.options.seed);
  head_->initialize(setting.counts);
}

std::string memory_refusal(const HeadSetting& setting, BenchedHead kind, HeadUse use) {
  const HeadBenchOptions& options = setting.options;
  // Four fifths: the rest is for the hidden states, libraries and other processes. A device refuses by itself.
  const double available = options.memory > 0                           ? static_cast<double>(options.memory)
                           : setting.tensor.backend().host_accessible() ? 0.8 * available_host_memory()
                                                                        : 0;
  const double needed = planned_bytes(setting, kind, use);
  if (available == 0 || needed <= available) return {};
  return fmt::format("needs {}, may take {}; {}", human_bytes(needed), human_bytes(available),
                     kind == BenchedHead::dense_plain && use == HeadUse::training
                         ? "N x V logits at once: fewer --rows, or see the chunked head"
                         : "choose a smaller --vocab or --width, or more --memory");
}

}  // namespace vqlm
