// `vqlm prepare --from-tokens`: files of ids to shards.
#include <gmock/gmock.h>

#include "tests/data/id_files.h"
#include "tests/data/prepare_fixture.h"

namespace vqlm {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::UnorderedElementsAre;

class PrepareIdsTest : public testing::Test {
 protected:
  void SetUp() override {
    // 300 documents of 1 to 40 ids, each closed by a 0.
    std::vector<std::uint16_t> ids;
    for (std::uint16_t d = 0; d < 300; ++d) {
      for (std::uint16_t i = 0; i < 1 + d % 40; ++i) ids.push_back(static_cast<std::uint16_t>(1 + (d * 7 + i) % 499));
      ids.push_back(0);
    }
    ids_.assign(ids.begin(), ids.end());
    write_bytes(folder_.file("a.npy"), npy("<u2", little(ids)));
    write_bytes(folder_.file("b.bin"), llmc_file(little(ids), 20240520, 1, static_cast<std::int32_t>(ids.size())));
  }

  PrepareOptions options(const std::string& inputs = "a.npy") const {
    PrepareOptions o;
    o.inputs = {folder_.file(inputs)};
    o.ids = TokenInputs{500, 0, ""};
    o.out = folder_.file("shards");
    o.heldout = 0.1;
    return o;
  }
  std::string error_of(const PrepareOptions& o) {
    try {
      prepare(o);
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  }
  std::string shard(const std::string& name) const { return folder_.file("shards/" + name); }

  TemporaryFolder folder_;
  std::vector<std::int32_t> ids_;
};

TEST_F(PrepareIdsTest, RefusesAnEndOfTextThatNoFileHas) {
  PrepareOptions o = options();
  o.ids->eos_id = 499;
  std::vector<std::uint16_t> none = {1, 2, 3};
  write_bytes(folder_.file("c.npy"), npy("<u2", little(none)));
  o.inputs = {folder_.file("c.npy")};
  EXPECT_THAT(error_of(o),
              testing::AllOf(HasSubstr("--eos 499"), HasSubstr("none of the 1 files"), HasSubstr("leave --eos out")));
  EXPECT_FALSE(fs::exists(shard("prepare.json")));
  o.inputs = {folder_.file("c.npy"), folder_.file("a.npy")};  // one file that has it is enough
  EXPECT_EQ(error_of(o), "no error");
}

TEST_F(PrepareIdsTest, KeepsEveryIdOnce) {
  const PrepareReport report = prepare(options());
  EXPECT_EQ(report.counts[Split::train].documents + report.counts[Split::heldout].documents, 300u);
  // Held-out documents among 300: binomial, mean 30, deviation 5.2; five of them.
  EXPECT_NEAR(static_cast<double>(report.counts[Split::heldout].documents), 30, 26);
  EXPECT_EQ(report.tokens_encoded, ids_.size());
  const auto train = documents_of(shard("train-*.h5"));
  const auto heldout = documents_of(shard("heldout-*.h5"));
  // Put together in the order of the file they are the file.
  std::vector<std::int32_t> together;
  auto t = train.begin(), h = heldout.begin();
  while (together.size() < ids_.size()) {
    const auto at = ids_.begin() + static_cast<std::ptrdiff_t>(together.size());
    const bool from_train = t != train.end() && std::equal(t->begin(), t->end(), at);
    auto& next = from_train ? t : h;
    ASSERT_TRUE(from_train || (h != heldout.end() && std::equal(h->begin(), h->end(), at)));
    together.insert(together.end(), next->begin(), next->end());
    ++next;
  }
  EXPECT_EQ(together, ids_);
  ShardSet set(shard("train-*.h5"));
  EXPECT_EQ(set.vocab_size(), 500);
  EXPECT_EQ(set.eos_id(), 0);
  EXPECT_EQ(set.tokenizer_sha256(), "");
  EXPECT_FALSE(set.text_bytes_known());
  EXPECT_THAT(read_bytes(shard("prepare.json")), testing::Not(HasSubstr("text_bytes")));
}

TEST_F(PrepareIdsTest, TheSameIdsMakeTheSameShardsFromAnyFile) {
  prepare(options());
  const auto train = documents_of(shard("train-*.h5"));
  PrepareOptions o = options("b.bin");
  EXPECT_THAT(error_of(o), HasSubstr("give the same inputs"));
  o.force = true;
  prepare(o);
  EXPECT_EQ(documents_of(shard("train-*.h5")), train);
}

TEST_F(PrepareIdsTest, ContinuesAndMendsLikeText) {
  PrepareOptions o = options();
  o.shard_tokens = 1000;
  prepare(o);
  const auto whole = documents_of(shard("train-*.h5"));
  const std::string second = read_bytes(shard("train-00001.h5"));
  write_bytes(shard("train-00001.h5"), second.substr(0, 500));
  fs::remove(shard("train-00003.h5"));
  const PrepareReport again = prepare(o);
  EXPECT_EQ(again.parts_made, 2u);
  EXPECT_GE(again.parts_kept, 2u);
  EXPECT_EQ(documents_of(shard("train-*.h5")), whole);
  EXPECT_EQ(read_bytes(shard("train-00001.h5")), second);
  o.ids->vocab_size = 501;
  EXPECT_THAT(error_of(o), HasSubstr("--vocab-size 500, here 501"));
  o = options();
  o.shard_tokens = 1000;
  o.ids->eos_id.reset();
  EXPECT_THAT(error_of(o), HasSubstr("--eos 0, here -1"));
}

TEST_F(PrepareIdsTest, AMegatronPairIsMadeAgainWhenItsIndexChanges) {
  MegatronPair pair = megatron({{3}, {2, 1}});
  write_bytes(folder_.file("m.bin"), pair.data);
  write_bytes(folder_.file("m.idx"), pair.index);
  PrepareOptions o = options("m.bin");
  o.heldout = 0;
  prepare(o);
  EXPECT_EQ(documents_of(shard("train-*.h5")), (std::vector<std::vector<std::int32_t>>{{0, 1, 2}, {3, 4, 5}}));
  write_bytes(folder_.file("m.idx"), megatron({{3, 3}}).index);
  EXPECT_EQ(prepare(o).parts_made, 1u);
  EXPECT_EQ(documents_of(shard("train-*.h5")), (std::vector<std::vector<std::int32_t>>{{0, 1, 2, 3, 4, 5}}));
}

TEST_F(PrepareIdsTest, TakesTheTokenizerAlong) {
  fs::create_directory(folder_.file("tokenizer"));
  write_bytes(folder_.file("tokenizer/tokenizer.json"), R"({"model": {"vocab": {"a": 0, "b": 511}}})");
  write_bytes(folder_.file("tokenizer/tokenizer_config.json"), "{}");
  write_bytes(folder_.file("tokenizer/model.safetensors"), "weights");
  PrepareOptions o = options();
  o.ids = TokenInputs{0, std::nullopt, folder_.file("tokenizer")};
  o.heldout = 0;
  EXPECT_EQ(prepare(o).vocab_size, 512);
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder_.file("shards"))) names.push_back(entry.path().filename());
  EXPECT_THAT(names, UnorderedElementsAre("train-00000.h5", "prepare.json", "tokenizer.json", "tokenizer_config.json"));
  const ShardSet set(shard("train-*.h5"));
  EXPECT_EQ(set.eos_id(), no_eos);
  EXPECT_EQ(set.tokenizer_sha256().size(), 64u);
  // --force with the tokenizer in the folder itself.
  o.ids->tokenizer_files = o.out;
  o.ids->eos_id = 0;
  o.force = true;
  EXPECT_EQ(prepare(o).vocab_size, 512);
  EXPECT_TRUE(fs::exists(shard("tokenizer.json")));
  o.ids->vocab_size = 500;
  EXPECT_EQ(prepare(o).vocab_size, 500);  // added tokens may lie beyond a model's matrix
  EXPECT_EQ(ShardSet(shard("train-*.h5")).vocab_size(), 500);
  o.ids->vocab_size = 600;
  EXPECT_EQ(prepare(o).vocab_size, 600);
  fs::create_directory(folder_.file("empty"));
  o.ids->tokenizer_files = folder_.file("empty");
  EXPECT_THAT(error_of(o), HasSubstr("holds none of tokenizer.model"));
}

TEST_F(PrepareIdsTest, RefusesOptionsThatMakeNoSense) {
  PrepareOptions o = options();
  o.ids = TokenInputs{};
  EXPECT_THAT(error_of(o), HasSubstr("--vocab-size or --tokenizer-files"));
  o.ids = TokenInputs{500, 500, ""};
  EXPECT_THAT(error_of(o), HasSubstr("--eos 500: is outside"));
  o.ids = TokenInputs{500, -1, ""};
  EXPECT_THAT(error_of(o), HasSubstr("--eos -1"));
  o.ids = TokenInputs{-5, {}, ""};
  EXPECT_THAT(error_of(o), HasSubstr("--vocab-size -5"));
  o.ids = TokenInputs{400, 0, ""};
  EXPECT_THAT(error_of(o), HasSubstr("a.npy: id "));
  o = options();
  o.tokenizer = "sp.model";
  EXPECT_THAT(error_of(o), HasSubstr("leave out --tokenizer"));
}

TEST_F(PrepareIdsTest, TextAndIdsDoNotMixInAFolder) {
  prepare(options());
  write_bytes(folder_.file("sp.model"), made_up_tokenizer());
  PrepareOptions o = options();
  o.ids.reset();
  o.tokenizer = folder_.file("sp.model");
  EXPECT_THAT(error_of(o), HasSubstr("--from-tokens, here --input"));
}

TEST_F(PrepareIdsTest, BytesAreAbsentNotZero) {
  prepare(options());
  h5::File file = h5::File::open(shard("train-00000.h5"));
  EXPECT_FALSE(file.exists("bytes"));
  EXPECT_FALSE(file.has_attribute("text_bytes"));
  ShardReader reader(shard("train-00000.h5"));
  EXPECT_EQ(reader.bytes(), std::vector<std::uint64_t>(reader.document_count(), 0));
  reader.verify();
}

}  // namespace
}  // namespace vqlm
