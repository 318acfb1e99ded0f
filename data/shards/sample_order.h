// Which sample a run reads as its n-th: the sources' turns, and each source's own permuted epochs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "data/shards/apportionment.h"
#include "data/shards/shard_set.h"

namespace vqlm {

/// A run of one source reads it in the order that a source of this name has among others.
constexpr const char* only_source = "train";

/// From a sample of the run on, each source's share, in whole numbers (Apportionment).
struct MixtureStage {
  std::uint64_t first_sample = 0;
  std::vector<std::uint64_t> shares;
};

/// A source is a part of the stream, and its sample i is the tokens [i T, i T + T] of that part. Epoch e of it visits all
/// its samples in the order pi_{seed, e} (Permutation); the epochs follow each other without a seam. The stages say whose
/// turn the run's n-th sample is. So a number n is all there is to know of a run's place, whatever the grid.
class SampleOrder {
 public:
  /// One source: the whole stream. Throws Error where it holds no whole sample.
  SampleOrder(const ShardSet& shards, std::uint64_t seq_len, std::uint64_t seed);
  /// sources: names of parts of `shards`, in the order of the stages' shares. The first stage begins at 0, and they rise.
  /// A source's order depends on `seed` and its name alone. Throws Error where one that has a share holds no whole sample.
  SampleOrder(const ShardSet& shards, const std::vector<std::string>& sources, std::vector<MixtureStage> stages,
              std::uint64_t seq_len, std::uint64_t seed);

  struct Sample {
    std::size_t source = 0;
    std::uint64_t epoch = 0;
    std::uint64_t number = 0;       // in its source
    std::uint64_t first_token = 0;  // in the whole stream
  };
  /// The run's n-th sample, from 0. Steps forward are cheap.
  Sample at(std::uint64_t n);

  /// Samples of each source among the run's first n.
  std::vector<std::uint64_t> drawn(std::uint64_t n);
  /// The n below `end`, rising, with which the run reads sample `number` of a source: at most one in each epoch of it.
  std::vector<std::uint64_t> positions(std::size_t source, std::uint64_t number, std::uint64_t end);

  /// Different samples among the run's first n: an epoch of a source at most.
  std::uint64_t distinct(std::uint64_t n);
  /// The first tokens of these, in the whole stream, rising.
  std::vector<std::uint64_t> distinct_first_tokens(std::uint64_t n);

  std::uint64_t seq_len() const { return seq_len_; }
  std::size_t sources() const { return sources_.size(); }
  const std::string& name(std::size_t source) const { return sources_[source].name; }
  std::uint64_t samples_per_epoch(std::size_t source) const { return sources_[source].samples; }
  std::uint64_t first_token(std::size_t source) const { return sources_[source].first_token; }

 private:
  struct Source {
    std::string name;
    std::uint64_t first_token = 0;
    std::uint64_t samples = 0;  // of an epoch
    std::uint64_t seed = 0;
  };
  struct Stage {
    std::uint64_t first_sample = 0;
    Apportionment turns;
    std::vector<std::uint64_t> before;  // samples of each source in earlier stages
  };
  void add_stages(std::vector<MixtureStage> stages);
  Stage& stage_of(std::uint64_t n);
  /// The n-th turn of a source, from 0, as a place in the run; it must come.
  std::uint64_t place_of_turn(std::size_t source, std::uint64_t turn);

  std::uint64_t seq_len_;
  std::vector<Source> sources_;
  std::vector<Stage> stages_;
};

}  // namespace vqlm
