#include "train/bench/head_bench.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>
#include <vector>

#include "core/model/dense_head.h"
#include "core/model/vq_head.h"
#include "core/rng.h"
#include "dist/self_communicator.h"
#include "train/bench/bench_tensors.h"
#include "train/bench/lap_timer.h"
#include "train/bench/matmul_peak.h"

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

void check(const Backend& backend, const HeadBenchOptions& options) {
  if (options.clock != wall_seconds && !backend.host_accessible()) {
    throw UsageError(
        fmt::format("bench head: --clock cpu on {}: it has a clock of its own; leave --clock out",
                    backend.description()));
  }
  check_at_least_one("vocab", options.vocab_size);
  check_at_least_one("width", options.width);
  check_at_least_one("rows", options.rows);
  check_at_least_one("clusters", options.clusters);
  check_at_least_one("repeats", options.repeats);
  if (options.vocab_size > INT32_MAX) {
    throw UsageError(fmt::format("bench head: --vocab {}: token ids are 32-bit, choose at most {}",
                                 options.vocab_size, INT32_MAX));
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
  if (options.groups < 0 || (options.groups > 0 && options.width % options.groups != 0)) {
    throw UsageError(
        fmt::format("bench head: --groups {} does not divide --width {}: choose --groups {}, or 0 for "
                    "VQ-Logits",
                    options.groups, options.width, divisor_below(options.width, options.groups)));
  }
  if (options.groups > 0 && (options.codes < 1 || options.codes > 256)) {
    throw UsageError(
        fmt::format("bench head: --codes {}: a code is one byte, choose 1 to 256", options.codes));
  }
}

std::size_t bytes_in_use(Backend& backend) {
  const auto in_use = backend.memory().in_use;
  return std::accumulate(in_use.begin(), in_use.end(), std::size_t{0});
}

/// Hidden states, targets and results that both heads share.
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

/// One head with parameters of its own.
class TimedHead {
 public:
  /// map: null for the dense head.
  TimedHead(const TensorParallel& tensor, const ModelConfig& model, const HeadConfig& config,
            const HeadBenchOptions& options, const std::vector<std::int64_t>& counts, const CodeMap* map)
      : backend_(tensor.backend()),
        clock_(options.clock),
        bytes_before_(bytes_in_use(backend_)),
        parameters_(backend_, 1) {
    parameters_.add_bucket("head", map != nullptr);
    const HeadContext context{tensor, model, config, parameters_, options.rows, true};
    if (map != nullptr) {
      head_ = std::make_unique<VqHead>(context, *map);
    } else {
      head_ = std::make_unique<DenseHead>(context, std::nullopt);
    }
    parameters_.allocate(true);
    parameters_.initialize(options.seed);
    head_->initialize(counts);
    bytes_ = bytes_in_use(backend_) - bytes_before_;
  }

  void pass(const HeadInputs& inputs) {
    head_->forward_backward(inputs.nll, inputs.penalty, inputs.dh, inputs.h, inputs.targets, inputs.scale);
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

  HeadTiming timing(const HeadInputs& inputs) {
    pass(inputs);
    backend_.synchronize();
    const std::int64_t rows = inputs.nll.numel();
    std::vector<float> nll(static_cast<std::size_t>(rows));
    backend_.copy_to_host(nll.data(), inputs.nll);
    const HeadCost cost = head_->cost();
    HeadTiming timing;
    timing.seconds = median(seconds_);
    timing.seconds_min = *std::min_element(seconds_.begin(), seconds_.end());
    timing.flops_per_second = 6.0 * cost.multiply_adds * static_cast<double>(rows) / timing.seconds;
    timing.bytes = static_cast<double>(bytes_);
    timing.matrix_parameters = cost.matrix_parameters;
    timing.bias_parameters = cost.bias_parameters;
    timing.mean_nll = std::accumulate(nll.begin(), nll.end(), 0.0) / static_cast<double>(rows);
    return timing;
  }

 private:
  Backend& backend_;
  Clock clock_;
  std::size_t bytes_before_, bytes_ = 0;
  ParameterStore parameters_;
  std::unique_ptr<OutputHead> head_;
  std::vector<double> seconds_;
};

std::string line_of(const char* name, const HeadTiming& head) {
  return fmt::format("  {:<6} {:>10.2f} {:>10.2f} {:>10.1f} {:>10.1f} {:>14} {:>12} {:>10.4f}\n", name,
                     1e3 * head.seconds, 1e3 * head.seconds_min, 1e-9 * head.flops_per_second,
                     head.bytes / (1 << 20), head.matrix_parameters, head.bias_parameters, head.mean_nll);
}

nlohmann::ordered_json json_of(const HeadTiming& head) {
  return {{"seconds", head.seconds},
          {"seconds_min", head.seconds_min},
          {"flops_per_second", head.flops_per_second},
          {"bytes", head.bytes},
          {"matrix_parameters", head.matrix_parameters},
          {"bias_parameters", head.bias_parameters},
          {"mean_nll", head.mean_nll}};
}

const char* name_of(TokenDistribution distribution) {
  return distribution == TokenDistribution::zipf ? "zipf" : "uniform";
}

}  // namespace

HeadBenchResult run_head_bench(Backend& backend, const HeadBenchOptions& options) {
  check(backend, options);
  const std::vector<std::int64_t> counts = synthetic_counts(options.targets, options.vocab_size);
  const int codes = options.groups > 0 ? options.codes : 0;
  const CodeMap map =
      options.map == "frequency"
          ? make_frequency_map(counts, options.clusters, options.groups, codes, options.seed)
          : make_random_map(options.vocab_size, options.clusters, options.groups, codes, options.seed);
  ModelConfig model;
  model.vocab_size = options.vocab_size;
  model.d_model = options.width;
  HeadConfig config;
  config.clusters = options.clusters;
  config.groups = options.groups;
  config.codes = options.codes;

  SelfCommunicator self(backend, "tensor");
  const TensorParallel tensor(backend, self);
  const HeadInputs inputs(backend, options, counts);
  TimedHead dense(tensor, model, config, options, counts, nullptr);
  TimedHead vq(tensor, model, config, options, counts, &map);
  dense.pass(inputs);  // the first pass touches memory and generates code
  vq.pass(inputs);
  backend.synchronize();
  for (int i = 0; i < options.repeats; ++i) {
    dense.timed_passes(inputs);
    vq.timed_passes(inputs);
  }
  HeadBenchResult result;
  result.machine = backend.description();
  result.dtype = name_of(backend.activation_dtype());
  result.options = options;
  result.dense = dense.timing(inputs);
  result.vq = vq.timing(inputs);
  result.matmul_peak = measure_matmul_peak(backend, self).flops_per_second;
  return result;
}

std::string to_text(const HeadBenchResult& result) {
  const HeadBenchOptions& o = result.options;
  std::string text = fmt::format(
      "forward and backward of {} rows of width {}, vocabulary {}, {} targets, K={} G={} Q={}, {} map\n"
      "machine {}; {}; medians of {} passes in turns; products peak at {:.1f} GFLOP/s\n\n",
      o.rows, o.width, o.vocab_size, name_of(o.targets), o.clusters, o.groups, o.codes, o.map, result.machine,
      result.dtype, o.repeats, 1e-9 * result.matmul_peak);
  text += fmt::format("  {:<6} {:>10} {:>10} {:>10} {:>10} {:>14} {:>12} {:>10}\n", "head", "ms", "fastest",
                      "GFLOP/s", "MiB", "parameters", "biases", "nll");
  text += line_of("dense", result.dense) + line_of("vq", result.vq);
  return text + fmt::format("\ndense / vq: {:.1f} times the seconds, {:.1f} times the parameters\n",
                            result.ratio_dense_over_vq(),
                            static_cast<double>(result.dense.matrix_parameters) /
                                static_cast<double>(result.vq.matrix_parameters));
}

std::string to_json(const HeadBenchResult& result) {
  const HeadBenchOptions& o = result.options;
  nlohmann::ordered_json json;
  json["ratio_dense_over_vq"] = result.ratio_dense_over_vq();
  json["seconds_dense"] = result.dense.seconds;
  json["seconds_vq"] = result.vq.seconds;
  json["dense"] = json_of(result.dense);
  json["vq"] = json_of(result.vq);
  json["machine"] = result.machine;
  json["dtype"] = result.dtype;
  json["matmul_peak_flops"] = result.matmul_peak;
  json["vocab_size"] = o.vocab_size;
  json["width"] = o.width;
  json["rows"] = o.rows;
  json["clusters"] = o.clusters;
  json["groups"] = o.groups;
  json["codes"] = o.codes;
  json["targets"] = name_of(o.targets);
  json["map"] = o.map;
  return json.dump(2) + "\n";
}

}  // namespace vqlm
