// Maps made by several ranks: the same bytes as by one.
#include <gtest/gtest.h>

#include "tests/data/test_shards.h"
#include "tests/train/training_world.h"
#include "train/codes/code_map_file.h"
#include "train/codes/map_information.h"
#include "train/codes/map_maker.h"

namespace vqlm {
namespace {

using testing::session;

class CodesOverRanks : public ::testing::Test {
 protected:
  CodesOverRanks() : backend_(make_cpu_backend(1)), world_(session().split(0, session().rank(), "world")) {
    path_ = session().gather_texts(session().rank() == 0 ? folder_.file("train-0.h5") : "").front();
    // About 600,000 tokens: ten blocks, so that no rank of four is without one and parts differ in size.
    if (session().rank() == 0) write_shard(path_, random_documents(211, 3000, 9), {211, 0, "t", {}});
    world_->barrier();
  }
  ~CodesOverRanks() override { world_->barrier(); }  // nobody reads the root's folder any more

  TemporaryFolder folder_;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Communicator> world_;
  std::string path_;
};

TEST_F(CodesOverRanks, MapsAreTheSameBytesForAnyNumberOfRanks) {
  const ShardSet shards(path_);
  const CountingRanks ranks = counting_ranks(*backend_, *world_);
  const TextToCount texts[] = {{shards, 1'000'000},                                      // all
                               {shards, 300'000},                                        // a part
                               {shards, SampleOrder(shards, 24, 7), 9'000, 1'000'000}};  // what a run reads
  for (const TextToCount& text : texts) {
    const auto counts = count_tokens(text, ranks);
    EXPECT_EQ(counts, count_tokens(text));
    for (const char* name : {"corpus", "frequency", "random", "contiguous"}) {
      CorpusMapOptions options{.clusters = 12, .groups = 4, .codes = 16, .own_tokens = 3, .seed = 2};
      options.offsets = {1, -1, -2};
      options.contexts = 150;
      const FittedMap together = make_code_map(name, options, text, counts, *backend_, ranks);
      if (session().rank() > 0) continue;
      const FittedMap alone = make_code_map(name, options, text, counts, *backend_, {});
      const std::string a = folder_.file("a.h5"), b = folder_.file("b.h5");
      save_code_map(a, together.map, {counts, together.dims, together.vectors});
      save_code_map(b, alone.map, {counts, alone.dims, alone.vectors});
      EXPECT_EQ(read_bytes(a), read_bytes(b)) << name;
      EXPECT_EQ(load_map_evidence(a).counts, counts);
      EXPECT_EQ(load_map_evidence(a).vectors, together.vectors);
    }
  }
  for (const std::uint64_t max_tokens : {std::uint64_t{1'000'000}, std::uint64_t{300'000}}) {
    const auto counts = count_tokens(shards, max_tokens);
    const BigramTable table = count_bigrams(shards, max_tokens, counts, 100, ranks);
    const BigramTable expected = count_bigrams(shards, max_tokens, counts, 100);
    EXPECT_EQ(table.counts.column, expected.counts.column);
    EXPECT_EQ(table.counts.value, expected.counts.value);
  }
}

}  // namespace
}  // namespace vqlm
