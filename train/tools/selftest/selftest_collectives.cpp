// Every collective on small integers: exact in any order and dtype.
#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <functional>
#include <numeric>
#include <string>
#include <vector>

#include "train/engine/stopwatch.h"
#include "train/tools/selftest/selftest.h"

namespace vqlm {
namespace {

constexpr std::int64_t n = 1003;  // prime-like: no number of ranks divides it

/// What rank `rank` has at i: an integer in [0, 6].
std::int64_t entry(int rank, std::int64_t i) {
  return (i * 5 + std::int64_t{rank} * 3) % 7;
}

/// Runs the collectives of one dtype and notes the wrong ones.
template <class T>
class CollectivesOf {
 public:
  CollectivesOf(Backend& backend, Communicator& group)
      : backend_(backend), group_(group), ranks_(group.size()), rank_(group.rank()) {}

  void reductions(std::vector<std::string>& wrong) {
    const auto over_ranks = [&](std::int64_t i, bool sum) {
      std::int64_t result = 0;
      for (int r = 0; r < ranks_; ++r) result = sum ? result + entry(r, i) : std::max(result, entry(r, i));
      return result;
    };
    const auto mine = [&](std::int64_t i) { return entry(rank_, i); };
    run(
        "all_reduce sum", wrong, n, n, mine, [&](Tensor out, Tensor in) { return reduce(out, in, Reduce::sum); },
        [&](std::int64_t i) { return over_ranks(i, true); });
    run(
        "all_reduce max", wrong, n, n, mine, [&](Tensor out, Tensor in) { return reduce(out, in, Reduce::max); },
        [&](std::int64_t i) { return over_ranks(i, false); });
    run(
        "reduce_scatter", wrong, n, ranks_ * n, mine,
        [&](Tensor out, Tensor in) { return group_.reduce_scatter(out, in, Reduce::sum, stream()); },
        [&](std::int64_t i) { return over_ranks(rank_ * n + i, true); });
  }

  void moves(std::vector<std::string>& wrong) {
    const auto mine = [&](std::int64_t i) { return entry(rank_, i); };
    run(
        "all_gather", wrong, ranks_ * n, n, mine,
        [&](Tensor out, Tensor in) { return group_.all_gather(out, in, stream()); },
        [&](std::int64_t i) { return entry(static_cast<int>(i / n), i % n); });
    run(
        "all_to_all", wrong, ranks_ * n, ranks_ * n, mine,
        [&](Tensor out, Tensor in) { return group_.all_to_all(out, in, stream()); },
        [&](std::int64_t i) { return entry(static_cast<int>(i / n), rank_ * n + i % n); });
    uneven_all_to_all(wrong);
    run(
        "broadcast", wrong, n, n, mine,
        [&](Tensor out, Tensor in) {
          backend_.copy(out, in);
          return group_.broadcast(out, ranks_ - 1, stream());
        },
        [&](std::int64_t i) { return entry(ranks_ - 1, i); });
  }

 private:
  using Entry = std::function<std::int64_t(std::int64_t)>;
  using Collective = std::function<Event(Tensor out, Tensor in)>;

  Stream stream() { return backend_.compute_stream(); }
  Event reduce(Tensor out, Tensor in, Reduce op) {
    backend_.copy(out, in);
    return group_.all_reduce(out, op, stream());
  }

  /// Blocks of 0, 101, 202 and 303 elements.
  void uneven_all_to_all(std::vector<std::string>& wrong) {
    const auto count = [](int from, int to) -> std::int64_t { return 101 * ((from + 2 * to) % 3 + (from == to ? 1 : 0)); };
    std::vector<std::int64_t> in_counts, out_counts, expected;
    for (int peer = 0; peer < ranks_; ++peer) {
      in_counts.push_back(count(rank_, peer));
      out_counts.push_back(count(peer, rank_));
      std::int64_t begin = 0;
      for (int to = 0; to < rank_; ++to) begin += count(peer, to);
      for (std::int64_t i = begin; i < begin + out_counts.back(); ++i) expected.push_back(entry(peer, i));
    }
    run(
        "all_to_all_v", wrong, static_cast<std::int64_t>(expected.size()),
        std::accumulate(in_counts.begin(), in_counts.end(), std::int64_t{0}),
        [&](std::int64_t i) { return entry(rank_, i); },
        [&](Tensor out, Tensor in) { return group_.all_to_all_v(out, out_counts, in, in_counts, stream()); },
        [&](std::int64_t i) { return expected[static_cast<std::size_t>(i)]; });
  }

  void run(const char* name, std::vector<std::string>& wrong, std::int64_t out_count, std::int64_t in_count,
           const Entry& input, const Collective& collective, const Entry& expected) {
    const auto bytes = [](std::int64_t count) { return static_cast<std::size_t>(count) * sizeof(T); };
    const Buffer in = backend_.allocate(bytes(in_count), MemoryUse::workspace);
    const Buffer out = backend_.allocate(bytes(out_count), MemoryUse::workspace);
    std::vector<T> host(static_cast<std::size_t>(in_count));
    for (std::size_t i = 0; i < host.size(); ++i) host[i] = static_cast<T>(input(static_cast<std::int64_t>(i)));
    const Tensor device_in = in.view({in_count}, dtype_of<T>()), device_out = out.view({out_count}, dtype_of<T>());
    backend_.copy_from_host(device_in, host.data());
    backend_.wait(stream(), collective(device_out, device_in));
    host.resize(static_cast<std::size_t>(out_count));
    backend_.copy_to_host(host.data(), device_out);
    std::int64_t count = 0;
    for (std::size_t i = 0; i < host.size(); ++i)
      count += host[i] == static_cast<T>(expected(static_cast<std::int64_t>(i))) ? 0 : 1;
    if (count > 0)
      wrong.push_back(fmt::format("{} of {} ({} of {} elements)", name, name_of(dtype_of<T>()), count, out_count));
  }

  Backend& backend_;
  Communicator& group_;
  int ranks_, rank_;
};

}  // namespace

DoctorCheck check_collectives(Backend& backend, Communicator& group) {
  const double begin = wall_seconds();
  std::vector<std::string> wrong;
  CollectivesOf<float> floats(backend, group);
  CollectivesOf<double> doubles(backend, group);
  CollectivesOf<std::int32_t> integers(backend, group);
  CollectivesOf<std::uint8_t> bytes(backend, group);
  floats.reductions(wrong);
  doubles.reductions(wrong);
  integers.reductions(wrong);
  floats.moves(wrong);
  integers.moves(wrong);
  bytes.moves(wrong);
  if (wrong.empty()) {
    // 3 reductions and 4 moves, each of 3 dtypes.
    return {.text = fmt::format("21 collectives exact over {} rank{}, {:.1f} ms", group.size(),
                                group.size() == 1 ? "" : "s", 1e3 * (wall_seconds() - begin))};
  }
  return {
      .ok = false,
      .text = fmt::format("{} wrong on rank {} of the {} group{}; to find the broken link run vqlm doctor with fewer "
                          "nodes, and try NCCL_P2P_DISABLE=1 and NCCL_IB_DISABLE=1 one by one",
                          wrong.front(), group.rank(), group.name(),
                          wrong.size() > 1 ? fmt::format(" and {} more", wrong.size() - 1) : "")};
}

}  // namespace vqlm
