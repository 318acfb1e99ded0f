#include "data/prepare/prepare.h"

#include <gmock/gmock.h>

#include <set>

#include "data/prepare/encode_pipeline.h"
#include "data/tokenizer/tokenizer.h"
#include "tests/data/prepare_fixture.h"

namespace vqlm {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;

TEST_F(PrepareTest, WritesEveryDocumentOnceInOrderAndClosed) {
  const PrepareReport report = prepare(options());
  const Tokenizer tokenizer = Tokenizer::open(shard("tokenizer.model"));
  const HeldoutRule rule{0.05, 0};
  PerSplit<std::vector<std::string>> expected;
  for (const auto& file : documents_) {
    for (const auto& text : file) expected[rule.holds_out(text) ? Split::heldout : Split::train].push_back(text);
  }
  for (const Split split : all_splits) {
    const auto documents = documents_of(shard(std::string(name_of(split)) + "-*.h5"));
    ASSERT_EQ(documents.size(), expected[split].size());
    SplitCounts counts;
    for (std::size_t i = 0; i < documents.size(); ++i) {
      EXPECT_EQ(documents[i].back(), tokenizer.eos_id());
      ASSERT_EQ(tokenizer.decode(documents[i]), expected[split][i]);
      counts += {1, documents[i].size(), expected[split][i].size()};
    }
    EXPECT_EQ(report.counts[split].documents, counts.documents);
    EXPECT_EQ(report.counts[split].tokens, counts.tokens);
    EXPECT_EQ(report.counts[split].text_bytes, counts.text_bytes);
    EXPECT_EQ(report.shards[split], 3u);
  }
  // 1,200 documents, 5 %: 60 expected, standard deviation sqrt(1200 * 0.05 * 0.95) = 7.6; 5 of these.
  EXPECT_NEAR(static_cast<double>(expected[Split::heldout].size()), 60, 38);
  const ShardMeta meta = ShardReader(shard("train-00001.h5")).meta();
  EXPECT_EQ(meta.tokenizer_sha256, tokenizer.sha256());
  ASSERT_EQ(meta.sources.size(), 1u);
  EXPECT_EQ(meta.sources[0].path, input(1));
  EXPECT_EQ(meta.sources[0].bytes, fs::file_size(input(1)));
}

TEST_F(PrepareTest, GivesTheSameBytesForAnyNumberOfJobs) {
  for (const int jobs : {1, 2, 7}) {
    PrepareOptions o = options("jobs" + std::to_string(jobs));
    o.jobs = jobs;
    o.shard_tokens = 5000;
    prepare(o);
  }
  EXPECT_GT(contents("jobs1").size(), 10u);
  EXPECT_EQ(contents("jobs1"), contents("jobs2"));
  EXPECT_EQ(contents("jobs1"), contents("jobs7"));
}

TEST_F(PrepareTest, BeginsTheNextShardAfterSoManyTokens) {
  PrepareOptions o = options();
  o.shard_tokens = 5000;
  const PrepareReport report = prepare(o);
  EXPECT_GT(report.shards[Split::train], 6u);
  for (const std::string& path : expand_glob(shard("train-*.h5"))) {
    ShardReader reader(path);
    const auto offsets = reader.documents();
    EXPECT_LT(offsets[offsets.size() - 2], 5000u) << path;  // full only with its last document
  }
  const auto cut = documents_of(shard("train-*.h5"));
  prepare(options("whole"));
  EXPECT_EQ(cut, documents_of(out("whole") + "/train-*.h5"));
}

TEST_F(PrepareTest, HoldsOutByTextAndSeedOnly) {
  const auto heldout_with = [&](const std::string& name, std::uint64_t seed, const std::vector<std::string>& inputs) {
    PrepareOptions o = options(name);
    o.seed = seed;
    o.inputs = inputs;
    prepare(o);
    const auto documents = documents_of(out(name) + "/heldout-*.h5");
    return std::set<std::vector<std::int32_t>>(documents.begin(), documents.end());
  };
  const auto forward = heldout_with("a", 0, {input(0), input(1)});
  EXPECT_EQ(forward, heldout_with("b", 0, {input(1), input(0)}));
  EXPECT_NE(forward, heldout_with("c", 1, {input(0), input(1)}));
}

TEST_F(PrepareTest, HoldsOutWholeFiles) {
  PrepareOptions o = options();
  o.inputs = {input(0), input(1)};
  o.heldout_inputs = {input(2)};
  o.heldout = 0;
  const PrepareReport report = prepare(o);
  EXPECT_EQ(report.counts[Split::train].documents, 2 * documents_per_file);
  EXPECT_EQ(report.counts[Split::heldout].documents, documents_per_file);
}

TEST(HeldoutRule, HoldsOutTheFractionAskedFor) {
  std::size_t held_out = 0;
  std::size_t moved = 0;
  for (int i = 0; i < 4000; ++i) {
    const std::string text = "All documents begin with the same words, number " + std::to_string(i);
    const bool chosen = HeldoutRule{0.25, 7}.holds_out(text);
    held_out += chosen ? 1 : 0;
    moved += chosen != HeldoutRule{0.25, 8}.holds_out(text) ? 1 : 0;
    EXPECT_FALSE((HeldoutRule{0, 7}.holds_out(text)));
    EXPECT_TRUE((HeldoutRule{1, 7}.holds_out(text)));
  }
  // Standard deviations: sqrt(4000 * 0.25 * 0.75) = 27 and sqrt(4000 * 0.375 * 0.625) = 31; 6 of these.
  EXPECT_NEAR(static_cast<double>(held_out), 1000, 164);
  EXPECT_NEAR(static_cast<double>(moved), 1500, 184);
}

TEST_F(PrepareTest, CountsBadLinesAndStopsAtTheLimit) {
  std::string lines = json_lines(documents_[0]);
  lines.insert(0, "{\"text\": \"cut\n{\"body\": 1}\n{\"text\": \"\xFF\"}\n");
  write_bytes(folder_.file("bad.jsonl"), lines + "[]\n");
  PrepareOptions o = options();
  o.inputs = {folder_.file("bad.jsonl")};
  o.max_bad_lines = 4;
  testing::internal::CaptureStdout();
  PrepareReport report = prepare(o);
  const std::string log = testing::internal::GetCapturedStdout();
  EXPECT_THAT(log, HasSubstr("bad.jsonl:1: skipped: not a JSON object"));
  EXPECT_THAT(log, HasSubstr("bad.jsonl:2: skipped: no text field"));
  EXPECT_THAT(log, HasSubstr("bad.jsonl:3: skipped: not valid UTF-8"));
  EXPECT_THAT(log, HasSubstr("bad.jsonl:" + std::to_string(documents_per_file + 4) + ": skipped"));
  EXPECT_THAT(report.bad, ElementsAre(2, 1, 1, 0, 0));
  EXPECT_EQ(report.documents_encoded, documents_per_file);
  report = prepare(o);  // the counts are kept with the shards
  EXPECT_THAT(report.bad, ElementsAre(2, 1, 1, 0, 0));
  PrepareOptions strict = options("strict");
  strict.inputs = o.inputs;
  strict.max_bad_lines = 2;
  const std::string error = error_of(strict);
  EXPECT_THAT(error,
              HasSubstr("bad.jsonl:3: not valid UTF-8, or with a NUL in plain text; this is bad record number 3"));
  for (const auto& [name, bytes] : contents("strict")) EXPECT_FALSE(name.ends_with(".partial")) << name;
}

TEST_F(PrepareTest, TrainsATokenizerOnceAndNotOnHeldOutText) {
  PrepareOptions o = options();
  o.tokenizer.clear();
  o.train_tokenizer = 600;
  o.heldout = 0.5;
  prepare(o);
  const std::string model = read_bytes(shard("tokenizer.model"));
  EXPECT_EQ(Tokenizer::open(shard("tokenizer.model")).vocab_size(), 600);
  prepare(o);
  EXPECT_EQ(read_bytes(shard("tokenizer.model")), model);
  o.train_tokenizer = 640;
  EXPECT_THAT(error_of(o), HasSubstr("is already there with 600 pieces, --train-tokenizer asks for 640"));
  // The sample is the training split's text.
  std::vector<std::string> train;
  for (const auto& file : documents_) {
    for (const auto& text : file) {
      if (!HeldoutRule{0.5, 0}.holds_out(text)) train.push_back(text);
    }
  }
  EXPECT_EQ(train_tokenizer(train, {600, 1}), model);
  o = options("large");
  o.tokenizer.clear();
  o.train_tokenizer = 100'000;
  EXPECT_THAT(error_of(o), HasSubstr("a tokenizer of 100000 pieces cannot be trained"));
}

TEST_F(PrepareTest, TakesATokenizerJsonWithTheFilesBesideIt) {
  const std::string model = read_bytes(std::string(VQLM_SOURCE_DIR) + "/tests/tokenizers/qwen2.json");
  fs::create_directory(folder_.file("qwen2"));
  write_bytes(folder_.file("qwen2/tokenizer.json"), model);
  write_bytes(folder_.file("qwen2/tokenizer_config.json"), R"({"eos_token": "<|im_end|>"})");
  write_bytes(folder_.file("qwen2/config.json"), "{}");
  PrepareOptions o = options();
  o.tokenizer = folder_.file("qwen2");
  const PrepareReport report = prepare(o);
  EXPECT_EQ(report.vocab_size, 562);
  EXPECT_EQ(read_bytes(shard("tokenizer.json")), model);
  EXPECT_TRUE(fs::exists(shard("tokenizer_config.json")));
  EXPECT_FALSE(fs::exists(shard("config.json")));
  const Tokenizer tokenizer = Tokenizer::open(out());
  const ShardMeta meta = ShardReader(shard("train-00000.h5")).meta();
  EXPECT_EQ(meta.tokenizer_sha256, tokenizer.sha256());
  EXPECT_EQ(meta.eos_id, tokenizer.id_of("<|im_end|>"));
  std::uint64_t text_bytes = 0;
  for (const auto& file : documents_) {
    for (const auto& text : file) text_bytes += text.size();
  }
  EXPECT_EQ(report.counts[Split::train].text_bytes + report.counts[Split::heldout].text_bytes, text_bytes);
  const auto documents = documents_of(shard("heldout-*.h5"));
  ASSERT_FALSE(documents.empty());
  const HeldoutRule rule{0.05, 0};
  std::size_t next = 0;
  for (const auto& file : documents_) {
    for (const auto& text : file) {
      if (!rule.holds_out(text)) continue;
      ASSERT_LT(next, documents.size());
      ASSERT_EQ(tokenizer.decode(documents[next++]), text);
    }
  }
  EXPECT_EQ(next, documents.size());
  // Another end of text, which the folder then tells.
  o.eos_id = 0;
  EXPECT_THAT(error_of(o), HasSubstr("--eos left out, here 0"));
  o.out = out("other");
  prepare(o);
  EXPECT_EQ(ShardReader(o.out + "/train-00000.h5").meta().eos_id, 0);
  EXPECT_EQ(Tokenizer::open(o.out).eos_id(), 0);
  o.eos_id = 562;
  EXPECT_THAT(error_of(o), HasSubstr("--eos 562: is outside the vocabulary [0, 562)"));
  o = options("third");
  o.eos_id = 0;
  EXPECT_THAT(error_of(o), HasSubstr("--eos: a SentencePiece model has its own end of text"));
}

TEST_F(PrepareTest, AsksForTheEndOfTextThatNothingTells) {
  PrepareOptions o = options();
  o.tokenizer = folder_.file("roberta.json");
  std::string model = read_bytes(std::string(VQLM_SOURCE_DIR) + "/tests/tokenizers/roberta.json");
  for (std::size_t at = model.find("</s>"); at != std::string::npos; at = model.find("</s>"))
    model.replace(at, 4, "<e>");
  write_bytes(o.tokenizer, model);
  EXPECT_THAT(error_of(o), HasSubstr("roberta.json: nothing tells which token ends a document"));
  o.eos_id = 1;
  prepare(o);
  EXPECT_EQ(Tokenizer::open(out()).eos_id(), 1);
  write_bytes(shard("tokenizer.model"), "x");
  EXPECT_THAT(error_of(o), HasSubstr("tokenizer.model: is another tokenizer than tokenizer.json"));
}

TEST_F(PrepareTest, TrainsAByteLevelTokenizerForAnyNumberOfJobs) {
  PrepareOptions o = options();
  o.tokenizer.clear();
  o.train_tokenizer = 600;
  o.kind = TokenizerKind::byte_level_bpe;
  prepare(o);
  const std::string model = read_bytes(shard("tokenizer.json"));
  const Tokenizer tokenizer = Tokenizer::open(out());
  EXPECT_EQ(tokenizer.vocab_size(), 600);
  EXPECT_EQ(tokenizer.piece(tokenizer.eos_id()), "<|endoftext|>");
  EXPECT_EQ(prepare(o).parts_made, 0u);
  o.out = out("jobs3");
  o.jobs = 3;
  prepare(o);
  EXPECT_EQ(contents("jobs3"), contents("shards"));
  o.train_tokenizer = 640;
  EXPECT_THAT(error_of(o), HasSubstr("is already there with 600 pieces, --train-tokenizer asks for 640"));
  o.out = out("large");
  o.train_tokenizer = 100'000;
  EXPECT_THAT(error_of(o), HasSubstr("a tokenizer of 100000 tokens cannot be trained"));
  o.train_tokenizer = 256;
  EXPECT_THAT(error_of(o), HasSubstr("has no room for <|endoftext|> and the 256 bytes"));
}

TEST_F(PrepareTest, SaysWhatIsWrongWithTheCommand) {
  PrepareOptions o = options();
  o.inputs = {folder_.file("none.*.gz")};
  EXPECT_THAT(error_of(o), HasSubstr("none.*.gz: no file matches"));
  o.inputs = {input(0), input(0)};
  EXPECT_THAT(error_of(o), HasSubstr("is given twice"));
  o.inputs.clear();
  EXPECT_THROW(prepare(o), UsageError);
  o = options();
  o.train_tokenizer = 600;
  EXPECT_THROW(prepare(o), UsageError);
  o = options();
  o.heldout = 1;
  EXPECT_THAT(error_of(o), HasSubstr("--heldout 1"));
  write_bytes(folder_.file("empty.json"), "\n");
  o = options("empty");
  o.inputs = {folder_.file("empty.json")};
  EXPECT_THAT(error_of(o), HasSubstr("no documents in 1 input files; check --input"));
  write_bytes(folder_.file("bad.json"), "1\n2\n{}\n");
  o = options("bad");
  o.inputs = {folder_.file("bad.json")};
  EXPECT_THAT(error_of(o), HasSubstr("skipped 2 records: not a JSON object, 1 record: no text field"));
  o = options("pointer");
  o.tokenizer = folder_.file("pointer.model");
  write_bytes(o.tokenizer, "version https://git-lfs.github.com/spec/v1\n");
  EXPECT_THAT(error_of(o), HasSubstr("pointer.model: is a Git LFS pointer"));
  o = options("sp.model");  // a file, not a folder
  EXPECT_THAT(error_of(o), HasSubstr("sp.model: "));
}

TEST_F(PrepareTest, ReadsPlainText) {
  write_bytes(folder_.file("a.txt"), "taren koli\nmarest\n\ningol\n");
  PrepareOptions o = options();
  o.inputs = {folder_.file("a.txt")};
  o.heldout = 0;
  prepare(o);
  const Tokenizer tokenizer = Tokenizer::open(shard("tokenizer.model"));
  const auto documents = documents_of(shard("train-*.h5"));
  ASSERT_EQ(documents.size(), 2u);
  EXPECT_EQ(tokenizer.decode(documents[0]), "taren koli\nmarest");
  EXPECT_EQ(tokenizer.decode(documents[1]), "ingol");
}

}  // namespace
}  // namespace vqlm
