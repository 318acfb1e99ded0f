// What the parts of `vqlm codes` share.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <memory>
#include <string>

#include "core/cpu/cpu_backend.h"
#include "launch/environment.h"
#include "train/codes/map_maker.h"

namespace vqlm {

/// Tokens that are counted unless --max-tokens says otherwise: as many as `vqlm train` counts.
inline constexpr std::uint64_t counted_tokens = 200'000'000;

/// A job on CPUs: its ranks share the counting.
struct CountingJob {
  explicit CountingJob(Environment& environment)
      : backend(make_cpu_backend(environment.threads(0))),
        world(environment.mpi().split(0, environment.mpi().rank(), "world")),
        ranks(counting_ranks(*backend, *world)) {}

  std::unique_ptr<Backend> backend;
  std::unique_ptr<Communicator> world;
  CountingRanks ranks;
};

/// Throws UsageError where `out` is there and may not be replaced.
void refuse_existing(const std::string& out, bool force);
/// "16384 tokens in 128 clusters, 32 groups of 128 codes".
std::string sizes_text(const CodeMap& map);

void add_codes_make(CLI::App& codes);
void add_codes_refit(CLI::App& codes);

}  // namespace vqlm
