#include "train/engine/replica_check.h"

#include <spdlog/fmt/fmt.h>
#include <spdlog/fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <map>
#include <numeric>
#include <utility>

#include "core/error.h"
#include "core/host_collectives.h"

namespace vqlm {
namespace {

/// The holders whose copy most of them do not have; nothing where all are the same.
ReplicaDifference compare(const std::string& bucket, const std::vector<int>& holders,
                          const std::vector<std::uint64_t>& copies) {
  std::map<std::uint64_t, std::size_t> votes;
  for (const std::uint64_t copy : copies) ++votes[copy];
  const auto most =
      std::max_element(votes.begin(), votes.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  ReplicaDifference difference{.bucket = bucket, .ranks = {}, .majority = 2 * most->second > holders.size()};
  for (std::size_t i = 0; i < holders.size(); ++i) {
    if (votes.size() > 1 && (!difference.majority || copies[i] != most->first)) difference.ranks.push_back(holders[i]);
  }
  return difference;
}

std::string host_name() {
  std::array<char, 256> name{};
  if (gethostname(name.data(), name.size() - 1) != 0) return "an unnamed host";
  return name.data();
}

}  // namespace

std::vector<ReplicaDifference> compare_replicas(const std::vector<std::uint64_t>& fingerprints,
                                                const std::vector<ParameterBucket>& buckets, int tensor_size) {
  VQLM_ASSERT(!buckets.empty() && fingerprints.size() % buckets.size() == 0);
  const int ranks = static_cast<int>(fingerprints.size() / buckets.size());
  std::vector<ReplicaDifference> differences;
  for (std::size_t b = 0; b < buckets.size(); ++b) {
    // A replicated bucket has one set of holders, the others one for each tensor rank.
    const int stride = buckets[b].replicated ? 1 : tensor_size;
    for (int first = 0; first < stride; ++first) {
      std::vector<int> holders;
      std::vector<std::uint64_t> copies;
      for (int rank = first; rank < ranks; rank += stride) {
        holders.push_back(rank);
        copies.push_back(fingerprints[static_cast<std::size_t>(rank) * buckets.size() + b]);
      }
      ReplicaDifference difference = compare(buckets[b].name, holders, copies);
      if (!difference.ranks.empty()) differences.push_back(std::move(difference));
    }
  }
  return differences;
}

bool ReplicaCheck::has_copies(const ParameterBucket& bucket) const {
  return bucket.count > 0 && (bucket.replicated ? grid_.world().size() : grid_.data_size()) > 1;
}

std::uint64_t ReplicaCheck::fingerprint(const ParameterBucket& bucket) const {
  VQLM_ASSERT(!bucket.stale);
  const auto of_values = [&] { return backend_.fingerprint(parameters_.masters(bucket.begin, bucket.count)); };
  const Tensor all_rounded = parameters_.flat_rounded();
  if (!all_rounded) return of_values();
  // Where ops read a rounded copy, an f32 matrix has no copy; a bucket with vectors is gathered in f32.
  const std::uint64_t rounded = backend_.fingerprint(all_rounded.range(bucket.begin, bucket.count));
  return bucket.only_matrices ? rounded : 31 * rounded + of_values();
}

void ReplicaCheck::run(std::int64_t step) const {
  const std::vector<ParameterBucket>& buckets = parameters_.buckets();
  std::vector<std::uint64_t> own(buckets.size(), 0);
  bool any = false;  // the same on every rank
  for (std::size_t b = 0; b < buckets.size(); ++b) {
    if (!has_copies(buckets[b])) continue;
    own[b] = fingerprint(buckets[b]);
    any = true;
  }
  if (!any) return;
  const auto differences =
      compare_replicas(gather_from_all(backend_, grid_.world(), own), buckets, grid_.tensor_size());
  if (!differences.empty()) throw Error(message(step, differences));
}

std::string ReplicaCheck::message(std::int64_t step, const std::vector<ReplicaDifference>& differences) const {
  constexpr std::size_t width = 256;
  std::vector<std::uint8_t> own(width, 0);
  const std::string host = host_name();
  std::copy(host.begin(), host.end(), own.begin());
  const std::vector<std::uint8_t> hosts = gather_from_all(backend_, grid_.world(), own);
  const auto describe = [&](int rank) {
    const auto* const name = reinterpret_cast<const char*>(hosts.data()) + static_cast<std::size_t>(rank) * width;
    return fmt::format("rank {} (data {}, tensor {}, {})", rank, rank / grid_.tensor_size(), rank % grid_.tensor_size(),
                       name);
  };
  // The buckets of each group of suspects.
  std::map<std::pair<bool, std::vector<int>>, std::vector<std::string>> buckets_of;
  for (const ReplicaDifference& d : differences) buckets_of[{!d.majority, d.ranks}].push_back(d.bucket);
  constexpr std::size_t most_named = 8;  // ranks and buckets; a thousand would hide the rest of the line
  std::vector<std::string> suspects;
  for (const auto& [key, buckets] : buckets_of) {
    const auto& [undecided, ranks] = key;
    std::vector<std::string> names;
    for (std::size_t i = 0; i < std::min(most_named, ranks.size()); ++i) names.push_back(describe(ranks[i]));
    if (ranks.size() > most_named) names.push_back(fmt::format("{} more", ranks.size() - most_named));
    std::vector<std::string> of(buckets.begin(),
                                buckets.begin() + static_cast<std::ptrdiff_t>(std::min(most_named, buckets.size())));
    if (buckets.size() > most_named) of.push_back(fmt::format("{} more", buckets.size() - most_named));
    suspects.push_back(fmt::format("{}{} in {}", undecided ? "no majority among " : "", fmt::join(names, " and "),
                                   fmt::join(of, ", ")));
    if (suspects.size() == most_named) break;
  }
  return fmt::format(
      "step {}: copies of the parameters differ: {}; memory, processor or a link there is suspect. Nothing was saved "
      "after the difference was found and earlier checkpoints are intact: leave that machine out and continue with "
      "--resume",
      step, fmt::join(suspects, "; "));
}

}  // namespace vqlm
