#include "train/tools/bench/product_tuning.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "core/error.h"
#include "core/host_collectives.h"
#include "train/engine/bench_tensors.h"
#include "train/engine/stopwatch.h"
#include "train/tools/bench/synthetic_training.h"

namespace vqlm {
namespace {

using Calls = std::map<ProductShape, std::int64_t>;

void check(Backend& backend, const TuningOptions& options) {
  if (product_algorithms_of(backend) == nullptr) {
    throw UsageError(fmt::format("tune: {} makes every matrix product in one way; choose a GPU (--device cuda)",
                                 backend.description()));
  }
  if (options.algorithms < 1 || options.repeats < 1) {
    throw UsageError(fmt::format("tune: --algorithms {}, --repeats {}: choose 1 or more of each", options.algorithms,
                                 options.repeats));
  }
}

struct AskedShapes {
  Calls calls;  // of those that two steps ask for
  std::int64_t varying = 0;
};

AskedShapes shapes_of_steps(Backend& backend, const ProcessGrid& grid, const Config& config) {
  ProductAlgorithms& algorithms = *product_algorithms_of(backend);
  SyntheticTraining training(backend, grid, config);
  Calls steps[2];
  for (int step = 0; step < 2; ++step) {
    training.draw_tokens(step);
    algorithms.choose({}, "");
    training.step_by_ops();
    for (const ProductAlgorithms::Use& use : algorithms.uses()) steps[step][use.shape] = use.calls;
  }
  backend.synchronize();
  AskedShapes asked;
  for (const auto& [shape, calls] : steps[0]) {
    if (steps[1].contains(shape)) asked.calls[shape] = std::max(calls, steps[1].at(shape));
  }
  asked.varying = static_cast<std::int64_t>(steps[0].size() + steps[1].size() - 2 * asked.calls.size());
  return asked;
}

/// The shapes of all ranks with the calls of the one that has most, on every rank.
Calls of_all_ranks(Backend& backend, Communicator& world, const Calls& own) {
  Calls all;
  for (int rank = 0; rank < world.size(); ++rank) {
    std::vector<ProductShape> shapes;
    std::vector<std::int64_t> calls;
    for (const auto& [shape, count] : own) {
      shapes.push_back(shape);
      calls.push_back(count);
    }
    const std::string text = rank == world.rank() ? to_json(shapes) : "";
    std::vector<std::uint8_t> bytes(text.begin(), text.end());
    broadcast_from(backend, world, rank, bytes);
    broadcast_from(backend, world, rank, calls);
    shapes = parse_product_shapes({bytes.begin(), bytes.end()});
    VQLM_ASSERT(shapes.size() == calls.size());
    for (std::size_t i = 0; i < shapes.size(); ++i) all[shapes[i]] = std::max(all[shapes[i]], calls[i]);
  }
  return all;
}

/// An operand's storage, at an address of this alignment and no greater one.
class Operand {
 public:
  Operand(Backend& backend, DType type, std::int64_t rows, std::int64_t leading, int alignment)
      : skipped_(alignment < 256 ? alignment / static_cast<std::int64_t>(size_of(type)) : 0),
        numbers_(rows * leading),
        storage_(backend.allocate(static_cast<std::size_t>(skipped_ + numbers_) * size_of(type), MemoryUse::workspace)),
        type_(type) {}
  Tensor all() const { return storage_.view({skipped_ + numbers_}, type_); }
  Tensor numbers() const { return all().range(skipped_, numbers_); }
  void* data() const { return numbers().data(); }

 private:
  std::int64_t skipped_, numbers_;
  Buffer storage_;
  DType type_;
};

class ProductTuner {
 public:
  ProductTuner(Backend& backend, const TuningOptions& options)
      : backend_(backend),
        algorithms_(*product_algorithms_of(backend)),
        options_(options),
        cache_(backend.allocate(2 * cache_bytes(), MemoryUse::workspace)) {}

  TunedShape tune(const ProductShape& shape, std::int64_t calls) {
    const Operand a(backend_, shape.operands, shape.rows_a(), shape.leading_a, shape.alignment_a);
    const Operand b(backend_, shape.operands, shape.rows_b(), shape.leading_b, shape.alignment_b);
    const Operand c(backend_, shape.result, shape.m, shape.leading_c, shape.alignment_c);
    fill_normal(backend_, a.all(), "a");
    fill_normal(backend_, b.all(), "b", 0.02f);
    TunedShape result{.product = {.shape = shape}, .calls = calls};
    std::vector<Timed> timed = steady_ones(shape, a, b, c, result);
    for (int round = 0; round < options_.repeats; ++round) {
      for (Timed& one : timed) time(one, a, b, c);
    }
    backend_.synchronize();
    choose(timed, result);
    return result;
  }

 private:
  struct Timed {
    std::optional<ProductAlgorithm> algorithm;
    ProductAlgorithms::Product run;
    std::vector<std::pair<Event, Event>> marks = {};
  };

  std::size_t cache_bytes() const { return std::max<std::size_t>(algorithms_.cache_bytes(), 4); }

  void time(Timed& one, const Operand& a, const Operand& b, const Operand& c) {
    const auto half = static_cast<std::int64_t>(cache_bytes() / sizeof(float));
    const Tensor cache = cache_.view({2 * half});
    backend_.copy(cache.range(0, half), cache.range(half, half));
    const Stream stream = backend_.compute_stream();
    const Event begin = backend_.mark_time(stream);
    one.run(a.data(), b.data(), c.data());
    one.marks.emplace_back(begin, backend_.mark_time(stream));
  }

  /// The candidates whose result is the same in every call, ready to run; the first one is the library's own choice, whatever it
  /// does: it is what would run else.
  std::vector<Timed> steady_ones(const ProductShape& shape, const Operand& a, const Operand& b, const Operand& c,
                                 TunedShape& result) {
    const ProductAlgorithms::Candidates candidates = algorithms_.candidates(shape, options_.algorithms);
    VQLM_ASSERT(!candidates.algorithms.empty());  // a step has run the product
    result.refused = candidates.refused;
    std::vector<Timed> steady;
    for (const std::optional<ProductAlgorithm>& algorithm : candidates.algorithms) {
      Timed one{.algorithm = algorithm, .run = algorithms_.prepare(algorithm, shape)};
      const bool same = is_steady(one, a, b, c, result);
      if (same || steady.empty()) steady.push_back(std::move(one));
    }
    result.timed = static_cast<int>(steady.size());
    return steady;
  }

  bool is_steady(const Timed& one, const Operand& a, const Operand& b, const Operand& c, TunedShape& result) {
    std::set<std::uint64_t> results;
    try {
      for (int call = 0; call < options_.checks; ++call) {
        backend_.fill(c.all(), 0.0f);
        one.run(a.data(), b.data(), c.data());
        results.insert(backend_.fingerprint(c.all()));
      }
    } catch (const Error&) {  // what was checked may still not run
      ++result.refused;
      return false;
    }
    if (results.size() > 1) ++result.unsteady;
    return results.size() == 1;
  }

  void choose(const std::vector<Timed>& timed, TunedShape& result) {
    std::vector<double> medians;
    for (const Timed& one : timed) {
      std::vector<double> seconds;
      for (const auto& [begin, end] : one.marks) seconds.push_back(backend_.seconds_between(begin, end));
      medians.push_back(median(seconds));
    }
    const auto best = static_cast<std::size_t>(std::ranges::min_element(medians) - medians.begin());
    const std::size_t chosen = medians[best] < (1 - options_.margin) * medians.front() ? best : 0;
    result.product.algorithm = timed[chosen].algorithm;
    result.product.microseconds = 1e6 * medians[chosen];
    result.product.microseconds_first = 1e6 * medians.front();
  }

  Backend& backend_;
  ProductAlgorithms& algorithms_;
  const TuningOptions options_;
  Buffer cache_;
};

}  // namespace

ProductsFile TuningResult::file() const {
  ProductsFile file{.machine = machine, .products = {}};
  for (const TunedShape& shape : shapes) file.products.push_back(shape.product);
  return file;
}

TuningResult tune_products(Backend& backend, const ProcessGrid& grid, const Config& config,
                           const TuningOptions& options) {
  check(backend, options);
  const AskedShapes asked = shapes_of_steps(backend, grid, config);  // whose model is gone by now
  const Calls calls = of_all_ranks(backend, grid.world(), asked.calls);
  TuningResult result{
      .machine = product_algorithms_of(backend)->machine(),
      .micro_batches = micro_batches_of(config),
      .varying = static_cast<std::int64_t>(max_over(backend, grid.world(), static_cast<double>(asked.varying)))};
  {
    const auto wait = grid.world().expect_long_wait("timing products");
    if (grid.world().rank() == 0) {
      ProductTuner tuner(backend, options);
      for (const auto& [shape, count] : calls) result.shapes.push_back(tuner.tune(shape, count));
    }
    grid.world().barrier();
  }
  return result;
}

std::string to_text(const TuningResult& result) {
  std::string text = fmt::format("products of a step of {} micro-batch{} on {}\n", result.micro_batches,
                                 result.micro_batches == 1 ? "" : "es", result.machine.str());
  text +=
      fmt::format("  {:>6} {:>10} {:>10} {:>7}  {}\n", "calls", "first us", "chosen us", "gain", "product, algorithm");
  double first = 0, chosen = 0;
  std::int64_t changed = 0;
  for (const TunedShape& shape : result.shapes) {
    const TunedProduct& product = shape.product;
    first += static_cast<double>(shape.calls) * product.microseconds_first;
    chosen += static_cast<double>(shape.calls) * product.microseconds;
    if (product.microseconds < product.microseconds_first) ++changed;
    text += fmt::format("  {:>6} {:>10.1f} {:>10.1f} {:>6.1f}%  {}: {}; {} timed{}{}\n", shape.calls,
                        product.microseconds_first, product.microseconds,
                        100 * (1 - product.microseconds / std::max(product.microseconds_first, 1e-9)),
                        product.shape.str(), product.algorithm ? product.algorithm->str() : "the library's first",
                        shape.timed, shape.refused > 0 ? fmt::format(", {} refused", shape.refused) : "",
                        shape.unsteady > 0 ? fmt::format(", {} of changing bits left out", shape.unsteady) : "");
  }
  text += fmt::format(
      "{} of {} shapes get another algorithm; the step's products: {:.3f} ms by the first ones, {:.3f} ms now\n",
      changed, result.shapes.size(), 1e-3 * first, 1e-3 * chosen);
  if (result.varying > 0) {
    text += fmt::format("{} shapes follow from the tokens and keep the library's first\n", result.varying);
  }
  return text;
}

}  // namespace vqlm
