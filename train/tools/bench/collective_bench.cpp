#include "train/tools/bench/collective_bench.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <utility>

#include "core/error.h"
#include "core/host_collectives.h"
#include "train/engine/stopwatch.h"

namespace vqlm {
namespace {

constexpr std::int64_t element = 4;  // bytes of an f32
constexpr std::int64_t most_bytes = std::int64_t{1} << 40;

void check(const CollectiveBenchOptions& o) {
  if (o.min_bytes < 1 || o.max_bytes < o.min_bytes || o.max_bytes > most_bytes || o.factor < 2 || !(o.seconds > 0)) {
    throw UsageError(fmt::format(
        "bench collectives: --min-bytes {}, --max-bytes {}, --factor {}, --seconds {}: choose sizes from 1 byte to 1 TiB, the "
        "last not below the first, a factor of 2 or more, and some time",
        o.min_bytes, o.max_bytes, o.factor, o.seconds));
  }
}

/// Times collectives of one group; every rank makes the same calls.
class GroupBench {
 public:
  using Call = std::function<Event(Tensor out, Tensor in, Stream stream)>;

  GroupBench(Backend& backend, Communicator& group, const CollectiveBenchOptions& options)
      : backend_(backend),
        group_(group),
        options_(options),
        in_(backend.allocate(static_cast<std::size_t>(padded(options.max_bytes)), MemoryUse::workspace)),
        out_(backend.allocate(static_cast<std::size_t>(padded(options.max_bytes)), MemoryUse::workspace)) {
    backend.fill(tensor(in_, padded(options.max_bytes) / element), 0);
  }

  GroupRates run() {
    GroupRates result{.group = group_.name(), .ranks = group_.size(), .rates = {}};
    const int P = group_.size();
    const std::pair<const char*, Call> calls[] = {
        {"all_reduce", [&](Tensor, Tensor in, Stream s) { return group_.all_reduce(in, Reduce::sum, s); }},
        {"reduce_scatter",
         [&](Tensor out, Tensor in, Stream s) {
           return group_.reduce_scatter(out.range(0, in.numel() / P), in, Reduce::sum, s);
         }},
        {"all_gather",
         [&](Tensor out, Tensor in, Stream s) { return group_.all_gather(out, in.range(0, out.numel() / P), s); }},
        {"all_to_all", [&](Tensor out, Tensor in, Stream s) { return group_.all_to_all(out, in, s); }}};
    for (const auto& [name, call] : calls) {
      for (const std::int64_t bytes : sizes()) {
        result.rates.push_back({.collective = name, .bytes = bytes, .seconds = seconds_of(call, bytes), .ranks = P});
      }
    }
    return result;
  }

 private:
  /// Each once, the last one included.
  std::vector<std::int64_t> sizes() const {
    std::vector<std::int64_t> all;
    for (std::int64_t size = options_.min_bytes; size < options_.max_bytes; size *= options_.factor)
      all.push_back(padded(size));
    all.push_back(padded(options_.max_bytes));
    all.erase(std::unique(all.begin(), all.end()), all.end());
    return all;
  }
  /// Whole blocks of whole elements for every rank.
  std::int64_t padded(std::int64_t bytes) const {
    const std::int64_t unit = element * group_.size();
    return (bytes + unit - 1) / unit * unit;
  }
  static Tensor tensor(const Buffer& buffer, std::int64_t elements) { return buffer.view({elements}); }

  /// Of one call, of the slowest rank.
  double seconds_of(const Call& call, std::int64_t bytes) {
    repeat(call, bytes, 1);  // the first one connects the ranks
    const double one = max_over(backend_, group_, repeat(call, bytes, 2) / 2);
    const int count = static_cast<int>(std::clamp(options_.seconds / std::max(one, 1e-9), 1.0, 1e5));
    return max_over(backend_, group_, repeat(call, bytes, count) / count);
  }

  double repeat(const Call& call, std::int64_t bytes, int count) {
    const Stream stream = backend_.compute_stream();
    const Tensor in = tensor(in_, bytes / element), out = tensor(out_, bytes / element);
    backend_.synchronize();
    group_.barrier();
    const double begin = wall_seconds();
    for (int i = 0; i < count; ++i) backend_.wait(stream, call(out, in, stream));
    backend_.synchronize();
    return wall_seconds() - begin;
  }

  Backend& backend_;
  Communicator& group_;
  const CollectiveBenchOptions& options_;
  Buffer in_, out_;
};

/// Each host, with its first rank.
std::vector<std::pair<std::string, int>> first_ranks(const std::vector<std::string>& hosts) {
  std::vector<std::pair<std::string, int>> found;
  for (std::size_t rank = 0; rank < hosts.size(); ++rank) {
    const auto same = [&](const auto& one) { return one.first == hosts[rank]; };
    if (std::ranges::none_of(found, same)) found.emplace_back(hosts[rank], static_cast<int>(rank));
  }
  return found;
}

/// Seconds of one exchange of `bytes` each way between this rank and `peer` (none: -1), beside those of the other pairs.
double exchange_seconds(Backend& backend, Communicator& world, int peer, std::int64_t bytes, int count) {
  const std::int64_t n = peer >= 0 ? bytes / element : 0;
  const Buffer in =
      backend.allocate(static_cast<std::size_t>(std::max<std::int64_t>(n, 1) * element), MemoryUse::workspace);
  const Buffer out =
      backend.allocate(static_cast<std::size_t>(std::max<std::int64_t>(n, 1) * element), MemoryUse::workspace);
  backend.fill(in.view({std::max<std::int64_t>(n, 1)}), 0);
  std::vector<std::int64_t> counts(static_cast<std::size_t>(world.size()), 0);
  if (peer >= 0) counts[static_cast<std::size_t>(peer)] = n;
  const Stream stream = backend.compute_stream();
  const auto exchange = [&](int times) {
    backend.synchronize();
    world.barrier();
    const double begin = wall_seconds();
    for (int i = 0; i < times; ++i) {
      backend.wait(stream, world.all_to_all_v(out.view({std::max<std::int64_t>(n, 1)}).range(0, n), counts,
                                              in.view({std::max<std::int64_t>(n, 1)}).range(0, n), counts, stream));
    }
    backend.synchronize();
    return (wall_seconds() - begin) / times;
  };
  exchange(1);
  return exchange(count);
}

void measure_pairs(Backend& backend, Communicator& world, const CollectiveBenchOptions& options,
                   CollectiveBenchResult& result) {
  const auto hosts = first_ranks(result.hosts);
  if (hosts.size() < 2) return;
  constexpr int exchanges = 4;
  for (const auto& round : rounds_of_pairs(static_cast<int>(hosts.size()))) {
    int peer = -1;
    for (const auto& [a, b] : round) {
      const int first = hosts[static_cast<std::size_t>(a)].second, second = hosts[static_cast<std::size_t>(b)].second;
      if (world.rank() == first) peer = second;
      if (world.rank() == second) peer = first;
    }
    const double own = exchange_seconds(backend, world, peer, options.max_bytes, exchanges);
    // Each pair's slower end, on every rank.
    std::vector<double> seconds(2 * round.size(), 0);
    for (std::size_t i = 0; i < round.size(); ++i) {
      if (world.rank() == hosts[static_cast<std::size_t>(round[i].first)].second) seconds[2 * i] = own;
      if (world.rank() == hosts[static_cast<std::size_t>(round[i].second)].second) seconds[2 * i + 1] = own;
    }
    sum_over(backend, world, seconds);
    for (std::size_t i = 0; i < round.size(); ++i) {
      const double slower = std::max(seconds[2 * i], seconds[2 * i + 1]);
      const double bytes = static_cast<double>(options.max_bytes / element * element);
      result.pairs.push_back({hosts[static_cast<std::size_t>(round[i].first)].first,
                              hosts[static_cast<std::size_t>(round[i].second)].first, bytes / slower});
    }
  }
}

}  // namespace

double CollectiveRate::bus_rate() const {
  const double share = static_cast<double>(ranks - 1) / ranks * (collective == "all_reduce" ? 2 : 1);
  return share * static_cast<double>(bytes) / seconds;
}

// The circle method: one host stays, the others move on by a place a round.
std::vector<std::vector<std::pair<int, int>>> rounds_of_pairs(int hosts) {
  const int places = hosts + hosts % 2;  // of an odd number the last place is empty
  std::vector<std::vector<std::pair<int, int>>> rounds;
  for (int round = 0; round + 1 < places; ++round) {
    const auto at = [&](int place) { return place == 0 ? 0 : 1 + (place - 1 + round) % (places - 1); };
    std::vector<std::pair<int, int>> pairs;
    for (int place = 0; place < places / 2; ++place) {
      const auto [a, b] = std::minmax({at(place), at(places - 1 - place)});
      if (b < hosts) pairs.emplace_back(a, b);
    }
    rounds.push_back(std::move(pairs));
  }
  return rounds;
}

CollectiveBenchResult run_collective_bench(Backend& backend, const ProcessGrid& grid,
                                           const std::vector<std::string>& hosts,
                                           const CollectiveBenchOptions& options) {
  check(options);
  VQLM_ASSERT(static_cast<int>(hosts.size()) == grid.world().size());
  CollectiveBenchResult result{.machine = backend.description(), .hosts = hosts, .groups = {}, .pairs = {}};
  for (Communicator* group : {&grid.world(), &grid.data(), &grid.tensor()}) {
    const bool is_world = group != &grid.world() && group->size() == grid.world().size();
    if (group->size() > 1 && !is_world) result.groups.push_back(GroupBench(backend, *group, options).run());
  }
  measure_pairs(backend, grid.world(), options, result);
  return result;
}

}  // namespace vqlm
