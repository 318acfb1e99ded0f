#include "train/tools/bench/op_bench.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/model/rope.h"
#include "train/engine/bench_tensors.h"
#include "train/tools/bench/synthetic_tokens.h"

namespace vqlm {
namespace {

void check(const OpBenchOptions& o) {
  for (const auto& [option, value] :
       {std::pair{"rows", o.rows}, std::pair{"seq-len", o.seq_len}, std::pair{"width", o.width},
        std::pair{"head-dim", o.head_dim}, std::pair{"d-ff", o.d_ff}, std::pair{"vocab", o.vocab_size},
        std::pair{"logit-rows", o.logit_rows}, std::pair{"numbers", o.numbers}}) {
    if (value < 1) throw UsageError(fmt::format("bench ops: --{} {}: choose 1 or more", option, value));
  }
  if (o.head_dim % 2 != 0 || o.width % o.head_dim != 0) {
    throw UsageError(fmt::format("bench ops: --head-dim {} for --width {}: choose an even divisor of the width",
                                 o.head_dim, o.width));
  }
  if (o.vocab_size > INT32_MAX) {
    throw UsageError(
        fmt::format("bench ops: --vocab {}: token ids are 32-bit, choose at most {}", o.vocab_size, INT32_MAX));
  }
}

/// Measures ops one after the other; each part's arrays end with it.
class OpBench {
 public:
  OpBench(Backend& backend, const OpBenchOptions& options, OpBenchResult& result)
      : backend_(backend), o_(options), result_(result), type_(backend.activation_dtype()) {}

  void flat() {
    BenchTensors tensors(backend_);
    const std::int64_t n = o_.numbers;
    const bool rounds = type_ != DType::f32;
    const std::string shape = fmt::format("({})", n);
    const Tensor param = tensors.normal({n}, DType::f32, 0.02f), grad = tensors.normal({n}, DType::f32, 1e-3f);
    const Tensor m = tensors.make({n}, DType::f32), v = tensors.make({n}, DType::f32);
    const Tensor rounded = rounds ? tensors.make({n}, type_) : Tensor{};
    const Tensor norm = tensors.make({1}, DType::f64);
    backend_.fill(m, 0.0f);
    backend_.fill(v, 0.0f);
    const double zero = 0;
    backend_.copy_from_host(norm, &zero);
    add_call("copy", shape + " f32", 8 * n, [&] { backend_.copy(m, v); });
    add_call("fill", shape + " f32", 4 * n, [&] { backend_.fill(m, 0.0f); });
    if (rounds) {
      add_call("round_to_activation", shape, (4 + width()) * n, [&] { backend_.round_to_activation(rounded, param); });
    }
    add(shape, AddSumOfSquares{.out = norm, .x = grad});
    const AdamWStep step{.lr = 1e-4f, .weight_decay = 0.1f, .step = 100, .max_norm = 1.0f};
    add(shape,
        AdamW{.param = param, .rounded = rounded, .m = m, .v = v, .grad = grad, .norm_squared = norm, .step = step});
  }

  void norms() {
    BenchTensors tensors(backend_);
    const std::int64_t n = o_.rows, d = o_.width;
    const std::string shape = fmt::format("({}, {})", n, d);
    const Tensor x = tensors.normal({n, d}, type_), branch = tensors.normal({n, d}, type_);
    const Tensor y = tensors.make({n, d}, type_), sum = tensors.make({n, d}, type_);
    const Tensor rstd = tensors.make({n}, DType::f32), gain = tensors.normal({d}, DType::f32);
    const Tensor dgain = tensors.make({d}, DType::f32);
    backend_.fill(dgain, 0.0f);
    backend_.fill(sum, 0.0f);
    add(shape, RmsnormForward{.y = y, .rstd = rstd, .x = x, .gain = gain, .eps = 1e-5f});
    add(shape, RmsnormForward{.y = y, .rstd = rstd, .sum = sum, .x = x, .branch = branch, .gain = gain, .eps = 1e-5f},
        " + residual");
    add(shape, RmsnormBackward{.dx = y,
                               .dgain = dgain,
                               .dy = branch,
                               .x = x,
                               .gain = gain,
                               .rstd = rstd,
                               .accumulate_dx = Accumulate::no});
    add(shape,
        RmsnormBackward{.dx = sum,
                        .dgain = dgain,
                        .dy = branch,
                        .x = x,
                        .gain = gain,
                        .rstd = rstd,
                        .accumulate_dx = Accumulate::yes},
        ", adding");
  }

  void positions() {
    BenchTensors tensors(backend_);
    const std::int64_t t = o_.rows % o_.seq_len == 0 ? o_.seq_len : o_.rows;
    const int heads = static_cast<int>(o_.width / o_.head_dim);
    const AttentionShape s{o_.rows / t, t, heads, heads, static_cast<int>(o_.head_dim)};
    const std::string shape = fmt::format("({}, {}, {})", s.batch, t, s.row());
    const Tensor qkv = tensors.normal({s.batch, t, s.row()}, type_);
    const std::vector<double> frequencies =
        rope_frequencies({.d_model = o_.head_dim, .n_heads = 1, .rope_theta = 10000.0f});
    const RopePositions positions{tensors.make({o_.head_dim / 2}, DType::f64)};
    backend_.copy_from_host(positions.frequencies, frequencies.data());
    add(shape, RopeForward{.qkv = qkv, .shape = s, .positions = positions});
    add(shape, RopeBackward{.dqkv = qkv, .shape = s, .positions = positions});
  }

  /// Decoding: the last token of as many sequences as have room, over a cache of all that came before it.
  void cached_attention() {
    BenchTensors tensors(backend_);
    const std::int64_t t = o_.seq_len, batch = std::max<std::int64_t>(o_.rows / t, 1), d = o_.head_dim;
    const int heads = static_cast<int>(o_.width / d);
    const AttentionShape s{batch, 1, heads, heads, static_cast<int>(d)};
    const std::string shape = fmt::format("({}, {}, {}, {})", batch, heads, t, d);
    const Tensor keys = tensors.normal({batch, heads, t, d}, type_),
                 values = tensors.normal({batch, heads, t, d}, type_);
    const Tensor qkv = tensors.normal({batch, 1, s.row()}, type_), out = tensors.make({batch, 1, o_.width}, type_);
    add(shape, AttentionCached{.out = out, .keys = keys, .values = values, .qkv = qkv, .shape = s, .past = t - 1});
  }

  void swiglu() {
    BenchTensors tensors(backend_);
    const std::int64_t n = o_.rows, f = o_.d_ff;
    const std::string shape = fmt::format("({}, 2 x {})", n, f);
    const Tensor gate_up = tensors.normal({n, 2 * f}, type_), dgate_up = tensors.make({n, 2 * f}, type_);
    const Tensor y = tensors.normal({n, f}, type_);
    add(shape, SwigluBackward{.dgate_up = dgate_up, .dy = y, .gate_up = gate_up});
    add(shape, SwigluForward{.y = y, .gate_up = gate_up});
  }

  void silu() {
    BenchTensors tensors(backend_);
    const Shape rows{o_.rows, o_.width};
    const std::string shape = fmt::format("({}, {})", o_.rows, o_.width);
    const Tensor x = tensors.normal(rows, type_), z = tensors.normal(rows, type_), y = tensors.make(rows, type_);
    add(shape, SiluResidualBackward{.dz = y, .dy = x, .z = z});
    add(shape, SiluResidualForward{.y = y, .x = x, .z = z});
  }

  void embedding() {
    BenchTensors tensors(backend_);
    const std::int64_t n = o_.rows, d = o_.width, vocab = o_.vocab_size;
    const std::string shape = fmt::format("({}, {}) of {}", n, d, vocab);
    const Tensor table = tensors.normal({vocab, d}, type_), out = tensors.normal({n, d}, type_);
    const Tensor dtable = tensors.make({vocab, d}, DType::f32), ids = tensors.make({n}, DType::i32);
    backend_.fill(dtable, 0.0f);
    const auto tokens = draw_tokens(synthetic_counts(TokenDistribution::zipf, vocab), n, 1, "bench ids");
    backend_.copy_from_host(ids, tokens.data());
    const auto distinct = static_cast<std::int64_t>(std::set(tokens.begin(), tokens.end()).size());
    // A row that is asked for again is in the cache.
    add(shape, EmbeddingForward{.out = out, .ids = ids, .table = table, .first_row = 0}, "",
        4 * n + width() * (n + distinct) * d);
    add(shape, EmbeddingBackward{.dtable = dtable, .dout = out, .ids = ids, .first_row = 0}, "",
        4 * n + width() * n * d + 8 * distinct * d);
    scatter(tensors, dtable, n);
  }

  /// As many rows of the table as the batch has, in reverse order.
  void scatter(BenchTensors& tensors, Tensor dtable, std::int64_t rows) {
    const std::int64_t vocab = dtable.extent(0), d = dtable.extent(1), n = std::min(rows, vocab);
    const std::string shape = fmt::format("({}, {}) of {}", n, d, vocab);
    const Tensor ids = tensors.make({n}, DType::i32), dout = tensors.normal({n, d}, DType::f32);
    std::vector<std::int32_t> order(static_cast<std::size_t>(n));
    std::iota(order.rbegin(), order.rend(), 0);
    backend_.copy_from_host(ids, order.data());
    add(shape, ScatterAddRows{.dtable = dtable, .dout = dout, .rows = ids});
  }

  void softmax() {
    BenchTensors tensors(backend_);
    const std::int64_t n = o_.logit_rows, vocab = o_.vocab_size;
    const std::string shape = fmt::format("({}, {})", n, vocab);
    const Tensor logits = tensors.normal({n, backend_.padded_classes(vocab)}, type_),
                 bias = tensors.normal({vocab}, DType::f32);
    const Tensor statistics = tensors.make({1, n, 3}, DType::f32), targets = tensors.make({n}, DType::i32);
    const Tensor nll = tensors.make({n}, DType::f32), lse = tensors.make({n}, DType::f32);
    backend_.fill(targets, 0.0f);
    add(shape, SoftmaxStatistics{.statistics = statistics.view({n, 3}),
                                 .logits = logits,
                                 .bias = bias,
                                 .targets = targets,
                                 .classes = {.count = vocab}});
    backend_.run(SoftmaxCombine{.nll = nll, .lse = lse, .statistics = statistics, .targets = targets});
    add(shape, SoftmaxGradient{.logits = logits,
                               .bias = bias,
                               .lse = lse,
                               .targets = targets,
                               .classes = {.count = vocab},
                               .scale = 1.0f});
    add(shape, SoftmaxCrossEntropy{.nll = nll,
                                   .lse = lse,
                                   .dbias = tensors.normal({vocab}, DType::f32),
                                   .logits = logits,
                                   .statistics = statistics.view({n, 3}),
                                   .bias = bias,
                                   .targets = targets,
                                   .classes = {.count = vocab},
                                   .scale = 1.0f});
  }

 private:
  std::int64_t width() const { return static_cast<std::int64_t>(size_of(type_)); }

  template <class Call>
  void add_call(std::string name, std::string shape, double bytes, const Call& call) {
    result_.ops.push_back({std::move(name), std::move(shape), bytes, time_calls(backend_, call, o_.seconds, o_.laps)});
  }
  /// `variant` is added to the op's name; bytes: what it moves where that is not what it costs.
  template <class O>
  void add(std::string shape, const O& op, std::string_view variant = "", std::optional<double> bytes = {}) {
    const OpCost cost = op.cost();
    add_call(fmt::format("{}{}", op.name, variant), std::move(shape),
             bytes.value_or(cost.bytes_read + cost.bytes_written), [&] { backend_.run(op); });
  }

  Backend& backend_;
  const OpBenchOptions& o_;
  OpBenchResult& result_;
  DType type_;
};

double measure_copy(Backend& backend, const OpBenchOptions& options) {
  BenchTensors tensors(backend);
  const Tensor from = tensors.normal({options.numbers}, DType::f32);
  const Tensor to = tensors.make({options.numbers}, DType::f32);
  const CallTime time = time_calls(backend, [&] { backend.copy(to, from); }, options.seconds, options.laps);
  return 8.0 * static_cast<double>(options.numbers) / time.seconds;
}

}  // namespace

OpBenchResult run_op_bench(Backend& backend, const OpBenchOptions& options) {
  check(options);
  OpBenchResult result;
  result.machine = backend.description();
  result.dtype = name_of(backend.activation_dtype());
  const double before = measure_copy(backend, options);
  OpBench bench(backend, options, result);
  bench.flat();
  bench.norms();
  bench.positions();
  bench.cached_attention();
  bench.swiglu();
  bench.silu();
  bench.embedding();
  bench.softmax();
  result.copy_rate = std::max(before, measure_copy(backend, options));
  return result;
}

std::string to_text(const OpBenchResult& result) {
  std::string text = fmt::format(
      "bytes: every operand read or written once\nmachine {}; {}; copies at {:.1f} GB/s\n\n"
      "  {:<28} {:<28} {:>10} {:>10} {:>9}\n",
      result.machine, result.dtype, 1e-9 * result.copy_rate, "op", "shape", "us", "GB/s", "of copy");
  for (const OpRate& op : result.ops) {
    text += fmt::format("  {:<28} {:<28} {:>10.2f} {:>10.1f} {:>7.1f} %\n", op.name, op.shape, 1e6 * op.time.seconds,
                        1e-9 * op.bytes_per_second(), 100 * op.bytes_per_second() / result.copy_rate);
  }
  return text;
}

std::string to_json(const OpBenchResult& result) {
  nlohmann::ordered_json json;
  json["machine"] = result.machine;
  json["dtype"] = result.dtype;
  json["copy_bytes_per_second"] = result.copy_rate;
  json["ops"] = nlohmann::ordered_json::array();
  for (const OpRate& op : result.ops) {
    json["ops"].push_back({{"name", op.name},
                           {"shape", op.shape},
                           {"bytes", op.bytes},
                           {"seconds", op.time.seconds},
                           {"seconds_min", op.time.seconds_min},
                           {"bytes_per_second", op.bytes_per_second()},
                           {"share_of_copy", op.bytes_per_second() / result.copy_rate}});
  }
  return json.dump(2) + "\n";
}

}  // namespace vqlm
