#include "train/tools/selftest/doctor.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <vector>

#include "core/error.h"
#include "core/host_collectives.h"
#include "core/product_algorithms.h"
#include "data/files/atomic_file.h"
#include "train/engine/matmul_peak.h"
#include "train/engine/products_file.h"
#include "train/engine/stopwatch.h"

namespace vqlm {
namespace {

// No tile size divides them, and rows begin at multiples of 8 elements, as a GPU wants them.
constexpr std::int64_t product_rows = 136, product_columns = 72, product_depth = 264;

/// Integers in [-2, 2]: exact in bf16, and |sum| <= 4 product_depth is exact in fp32.
float entry(std::int64_t i) {
  return static_cast<float>(i * 7 % 5 - 2);
}

/// (rows, columns) on the device in the activation dtype, filled by entry().
class Operand {
 public:
  Operand(Backend& backend, std::int64_t rows, std::int64_t columns)
      : buffer_(backend.allocate(static_cast<std::size_t>(rows * columns) * sizeof(float), MemoryUse::workspace)),
        tensor_(buffer_.view({rows, columns}, backend.activation_dtype())) {
    const Buffer exact = backend.allocate(buffer_.bytes(), MemoryUse::workspace);
    std::vector<float> values(static_cast<std::size_t>(rows * columns));
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = entry(static_cast<std::int64_t>(i));
    const Tensor flat = exact.view({rows * columns});
    backend.copy_from_host(flat, values.data());
    backend.round_to_activation(tensor_.view({rows * columns}), flat);
  }
  Tensor tensor() const { return tensor_; }

 private:
  Buffer buffer_;
  Tensor tensor_;
};

/// How many elements of c = op(a) op(b) are wrong.
int wrong_elements(Backend& backend, Transpose ta, Transpose tb) {
  const bool a_turned = ta == Transpose::yes, b_turned = tb == Transpose::yes;
  const Operand a(backend, a_turned ? product_depth : product_rows, a_turned ? product_rows : product_depth);
  const Operand b(backend, b_turned ? product_columns : product_depth, b_turned ? product_depth : product_columns);
  const Buffer product = backend.allocate(product_rows * product_columns * sizeof(float), MemoryUse::workspace);
  backend.run(Matmul{.c = product.view({product_rows, product_columns}),
                     .a = a.tensor(),
                     .b = b.tensor(),
                     .ta = ta,
                     .tb = tb,
                     .accumulate = Accumulate::no});
  std::vector<float> c(product_rows * product_columns);
  backend.copy_to_host(c.data(), product.view({product_rows, product_columns}));
  int wrong = 0;
  for (std::int64_t row = 0; row < product_rows; ++row) {
    for (std::int64_t column = 0; column < product_columns; ++column) {
      float sum = 0;
      for (std::int64_t depth = 0; depth < product_depth; ++depth) {
        sum += entry(a_turned ? depth * product_rows + row : row * product_depth + depth) *
               entry(b_turned ? column * product_depth + depth : depth * product_columns + column);
      }
      wrong += c[static_cast<std::size_t>(row * product_columns + column)] == sum ? 0 : 1;
    }
  }
  return wrong;
}

/// How many elements are wrong after a sum over the group of (rank + 1) * (1 .. 5).
std::int64_t wrong_sums(Backend& backend, Communicator& group) {
  constexpr std::int64_t count = (1 << 20) + 3;  // no number of ranks but 1 divides it
  std::vector<float> values(count);
  const auto share = [](std::int64_t i) { return static_cast<float>(i % 5 + 1); };
  for (std::int64_t i = 0; i < count; ++i)
    values[static_cast<std::size_t>(i)] = static_cast<float>(group.rank() + 1) * share(i);
  const Buffer buffer = backend.allocate(count * sizeof(float), MemoryUse::workspace);
  const Tensor x = buffer.view({count});
  backend.copy_from_host(x, values.data());
  backend.wait(backend.compute_stream(), group.all_reduce(x, Reduce::sum, backend.compute_stream()));
  backend.copy_to_host(values.data(), x);
  const auto ranks = static_cast<float>(group.size());
  std::int64_t wrong = 0;
  for (std::int64_t i = 0; i < count; ++i)
    wrong += values[static_cast<std::size_t>(i)] == ranks * (ranks + 1) / 2 * share(i) ? 0 : 1;
  return wrong;
}

/// Of `count` all-reduces of x, which is zero and stays it.
double seconds_of(Backend& backend, Communicator& group, Tensor x, int count) {
  const Stream stream = backend.compute_stream();
  backend.synchronize();
  group.barrier();
  const double begin = wall_seconds();
  for (int i = 0; i < count; ++i) backend.wait(stream, group.all_reduce(x, Reduce::sum, stream));
  backend.synchronize();
  return wall_seconds() - begin;
}

}  // namespace

DoctorCheck check_matmul_result(Backend& backend) {
  const int wrong =
      wrong_elements(backend, Transpose::no, Transpose::yes) + wrong_elements(backend, Transpose::yes, Transpose::no);
  if (wrong == 0)
    return {.text =
                fmt::format("exact for {} x {} x {} in both layouts", product_rows, product_columns, product_depth)};
  return {.ok = false,
          .text = fmt::format("{} of {} elements of exact products are wrong on {}: the device, its driver or a "
                              "library is broken; compute on another one",
                              wrong, 2 * product_rows * product_columns, backend.description())};
}

DoctorCheck check_matmul_speed(Backend& backend, Communicator& world) {
  const MatmulPeak peak = measure_matmul_peak(backend, world);
  const bool tera = peak.flops_per_second >= 1e12;
  return {.text = fmt::format("{:.4g} {}FLOP/s {}in {} at {}^3", peak.flops_per_second * (tera ? 1e-12 : 1e-9),
                              tera ? "T" : "G", world.size() > 1 ? fmt::format("by {} ranks ", world.size()) : "",
                              name_of(backend.activation_dtype()), peak.size),
          .rate = peak.flops_per_second,
          .unit = "FLOP/s"};
}

DoctorCheck check_all_reduce(Backend& backend, Communicator& group) {
  if (group.size() == 1) return {.text = "one rank: nothing to exchange"};
  const std::int64_t wrong = wrong_sums(backend, group);
  const std::int64_t bytes = std::int64_t{backend.host_accessible() ? 8 : 64} << 20;
  const Buffer buffer = backend.allocate(static_cast<std::size_t>(bytes), MemoryUse::workspace);
  const Tensor x = buffer.view({bytes / 4});
  backend.fill(x, 0);
  seconds_of(backend, group, x, 1);  // the first one connects the ranks
  std::vector<double> seconds{seconds_of(backend, group, x, 2) / 2};
  sum_over(backend, group, seconds);  // so that every rank repeats as often
  const int count = static_cast<int>(std::clamp(0.5 * group.size() / seconds[0], 1.0, 1e5));
  const double one = seconds_of(backend, group, x, count) / count;
  if (wrong > 0) {
    return {.ok = false,
            .text = fmt::format("{} elements of an exact sum over {} ranks are wrong on rank {} of the group; to find "
                                "the broken link try NCCL_P2P_DISABLE=1 and NCCL_IB_DISABLE=1 one by one, with "
                                "NCCL_DEBUG=INFO",
                                wrong, group.size(), group.rank())};
  }
  const double rate = 2.0 * (group.size() - 1) / group.size() * static_cast<double>(bytes) / one;
  return {.text = fmt::format("exact over {} ranks; {} MiB in {:.3g} ms, bus bandwidth {:.4g} GB/s", group.size(),
                              bytes >> 20, 1e3 * one, 1e-9 * rate),
          .rate = rate,
          .unit = "B/s"};
}

DoctorCheck check_products(Backend& backend, const std::string& file) {
  ProductAlgorithms* const algorithms = product_algorithms_of(backend);
  if (algorithms == nullptr)
    return {.ok = false, .text = fmt::format("{}: {} makes every product in one way", file, backend.description())};
  const ProductsFile read = parse_products_file(read_file(file), file);
  const ProductMachine here = algorithms->machine();
  if (!(here == read.machine)) {
    return {.ok = false,
            .text = fmt::format("{}: was made on {}, here is {}: trainings pass it over; run vqlm tune here", file,
                                read.machine.str(), here.str())};
  }
  for (const TunedProduct& product : read.products) {
    if (!product.algorithm) continue;
    if (const std::string why = algorithms->refusal(product.shape, *product.algorithm); !why.empty()) {
      return {.ok = false,
              .text = fmt::format("{}: {} refuses the algorithm for a product of {} ({}): {}; run vqlm tune again",
                                  file, here.library, product.shape.str(), product.algorithm->str(), why)};
    }
  }
  return {.text = fmt::format("{}: {} shapes, for this card and library, which takes all their algorithms", file,
                              read.products.size())};
}

DoctorCheck check_shards(const std::string& glob, int part, int parts) {
  ShardSet shards(glob);
  std::vector<std::int32_t> tokens(std::size_t{1} << 16);
  const std::uint64_t total = shards.total_tokens();
  const std::uint64_t first = total / static_cast<std::uint64_t>(parts) * static_cast<std::uint64_t>(part);
  std::uint64_t read = 0;
  const double begin = wall_seconds();
  double seconds = 0;
  while (seconds < 1 && first + read < total) {
    const std::size_t count = std::min<std::uint64_t>(tokens.size(), total - first - read);
    shards.read(first + read, std::span(tokens).first(count));
    read += count;
    seconds = wall_seconds() - begin;
  }
  const double rate = static_cast<double>(read) / std::max(seconds, 1e-9);
  return {.text = fmt::format("{} of {} tokens in {} files read, checksums right; {:.3g} M tokens/s", read, total,
                              shards.shards().size(), 1e-6 * rate),
          .rate = rate,
          .unit = "tokens/s"};
}

}  // namespace vqlm
