#include "data/prepare.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <filesystem>
#include <set>

#include "core/error.h"
#include "data/part_writer.h"
#include "data/shard_set.h"
#include "data/tokenizer.h"
#include "tests/data/temporary_folder.h"
#include "tests/data/test_text.h"

namespace vqlm {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::UnorderedElementsAre;

constexpr std::size_t documents_per_file = 400;

/// Every document of a split, in order: its tokens (with the closing one).
std::vector<std::vector<std::int32_t>> documents_of(const std::string& glob) {
  std::vector<std::vector<std::int32_t>> documents;
  for (const std::string& path : expand_glob(glob)) {
    ShardReader shard(path);
    const auto offsets = shard.documents();
    for (std::size_t i = 0; i + 1 < offsets.size(); ++i) {
      documents.emplace_back(offsets[i + 1] - offsets[i]);
      shard.read_tokens(offsets[i], documents.back());
    }
  }
  return documents;
}

class PrepareTest : public testing::Test {
 protected:
  void SetUp() override {
    write_bytes(folder_.file("sp.model"), made_up_tokenizer());
    for (std::uint64_t i = 0; i < 3; ++i) {
      documents_.push_back(made_up_documents(10 + i, documents_per_file));
      write_bytes(input(i), gzip(json_lines(documents_.back())));
    }
  }

  std::string input(std::uint64_t i) const {
    return folder_.file("c4-train.0000" + std::to_string(i) + ".json.gz");
  }
  std::string out(const std::string& name = "shards") const { return folder_.file(name); }
  std::string shard(const std::string& name) const { return out() + "/" + name; }

  PrepareOptions options(const std::string& folder = "shards") const {
    PrepareOptions options;
    options.inputs = {folder_.file("c4-train.*.json.gz")};
    options.tokenizer = folder_.file("sp.model");
    options.out = out(folder);
    options.heldout = 0.05;
    return options;
  }

  std::string error_of(const PrepareOptions& options) {
    try {
      prepare(options);
    } catch (const Error& error) {
      EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos) << error.what();
      return error.what();
    }
    return "no error";
  }

  /// name -> bytes of every file in the folder of shards.
  std::map<std::string, std::string> contents(const std::string& name = "shards") const {
    std::map<std::string, std::string> files;
    for (const auto& entry : fs::directory_iterator(out(name))) {
      files[entry.path().filename().string()] = read_bytes(entry.path().string());
    }
    return files;
  }

  TemporaryFolder folder_;
  std::vector<std::vector<std::string>> documents_;  // of each input
};

TEST_F(PrepareTest, WritesEveryDocumentOnceInOrderAndClosed) {
  const PrepareReport report = prepare(options());
  const Tokenizer tokenizer = Tokenizer::load(shard("tokenizer.model"));
  const HeldoutRule rule{0.05, 0};
  PerSplit<std::vector<std::string>> expected;
  for (const auto& file : documents_) {
    for (const auto& text : file)
      expected[rule.holds_out(text) ? Split::heldout : Split::train].push_back(text);
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
  const auto heldout_with = [&](const std::string& name, std::uint64_t seed,
                                const std::vector<std::string>& inputs) {
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

TEST_F(PrepareTest, SkipsFinishedPartsAndAddsInputs) {
  PrepareOptions o = options();
  o.inputs = {input(0), input(1)};
  prepare(o);
  const auto time = fs::last_write_time(shard("train-00000.h5"));
  o.inputs = {input(0), input(1), input(2)};
  const PrepareReport report = prepare(o);
  EXPECT_EQ(report.parts_kept, 2u);
  EXPECT_EQ(report.parts_made, 1u);
  EXPECT_EQ(report.documents_encoded, documents_per_file);
  EXPECT_EQ(report.counts[Split::train].documents + report.counts[Split::heldout].documents,
            3 * documents_per_file);
  EXPECT_EQ(fs::last_write_time(shard("train-00000.h5")), time);
  prepare(options("whole"));
  EXPECT_EQ(contents(), contents("whole"));
}

TEST_F(PrepareTest, MakesShardsWithAnyFlippedBitAgain) {
  PrepareOptions o = options();
  o.inputs = {input(0)};
  prepare(o);
  const auto documents = documents_of(shard("train-00000.h5"));
  const auto before = read_bytes(shard("train-00000.h5"));
  const std::size_t stride = before.size() / 40;
  std::size_t noticed = 0;
  for (std::size_t at = 0; at < before.size(); at += stride) {
    std::string damaged = before;
    damaged[at] ^= 4;
    write_bytes(shard("train-00000.h5"), damaged);
    const PrepareReport report = prepare(o);
    noticed += report.parts_made;
    // A bit that nobody noticed lies in a gap of the file: what the shard says is the same.
    ASSERT_EQ(documents_of(shard("train-00000.h5")), documents) << "byte " << at;
    ASSERT_TRUE(report.parts_made == 0 || read_bytes(shard("train-00000.h5")) == before) << "byte " << at;
  }
  EXPECT_GE(noticed, 30u);
}

TEST_F(PrepareTest, MakesDamagedAndMissingShardsAgain) {
  PrepareOptions o = options();
  o.shard_tokens = 5000;
  prepare(o);
  const auto before = contents();
  write_bytes(shard("train-00002.h5"), "not a shard");
  write_bytes(shard("train-00004.h5"), before.at("train-00004.h5").substr(0, 1000));
  write_bytes(shard("train-00005.h5"), before.at("train-00006.h5"));  // whole, but another one
  fs::remove(shard("heldout-00000.h5"));
  write_bytes(shard("train-00001.h5.partial"), "left by a crash");
  write_bytes(shard("train-00099.h5"), "renamed by a run that was killed before it could say so");
  testing::internal::CaptureStdout();
  const PrepareReport report = prepare(o);
  const std::string log = testing::internal::GetCapturedStdout();
  for (const char* name : {"train-00002.h5", "train-00004.h5", "train-00005.h5", "heldout-00000.h5"}) {
    EXPECT_THAT(log, HasSubstr(name));
  }
  EXPECT_GE(report.parts_made, 4u);
  EXPECT_LE(report.parts_made, 5u);
  EXPECT_EQ(contents(), before);
}

TEST_F(PrepareTest, GoesOnAfterTheLastWholePart) {
  PrepareOptions o = options();
  o.shard_tokens = 5000;
  prepare(o);
  const auto whole = contents();
  struct Stopped {};
  PrepareOptions stopped = options("stopped");
  stopped.shard_tokens = 5000;
  const auto stop = [](const PrepareProgress& progress) {
    if (progress.source_number == 2) throw Stopped{};
  };
  EXPECT_THROW(prepare(stopped, stop), Stopped);
  EXPECT_LT(contents("stopped").size(), whole.size());
  const PrepareReport report = prepare(stopped);
  EXPECT_GT(report.parts_kept, 2u);
  EXPECT_EQ(contents("stopped"), whole);
}

TEST_F(PrepareTest, RefusesShardsOfOtherInputsAndOptions) {
  prepare(options());
  const auto before = contents();
  PrepareOptions o = options();
  o.heldout = 0.1;
  EXPECT_THAT(error_of(o), HasSubstr("its shards were made with --heldout 0.05, here 0.1"));
  o = options();
  o.seed = 3;
  EXPECT_THAT(error_of(o), HasSubstr("--seed 0, here 3"));
  o = options();
  o.inputs = {input(1), input(0), input(2)};
  EXPECT_THAT(error_of(o), HasSubstr("number 1 is " + input(0) + ", here " + input(1)));
  o.inputs = {input(0)};
  EXPECT_THAT(error_of(o), HasSubstr("number 2 is " + input(1) + ", here missing"));
  o = options();
  write_bytes(folder_.file("other.model"), made_up_tokenizer(620));
  o.tokenizer = folder_.file("other.model");
  EXPECT_THAT(error_of(o), HasSubstr("its shards were made with the tokenizer with sha256"));
  EXPECT_EQ(contents(), before);
  o.force = true;
  EXPECT_EQ(error_of(o), "no error");
  EXPECT_EQ(ShardReader(shard("train-00000.h5")).meta().vocab_size, 620);
  fs::remove(shard("prepare.json"));
  EXPECT_THAT(error_of(options()), HasSubstr("holds 6 shards"));
  write_bytes(shard("prepare.json"), "{\"format\": \"vqlm");
  EXPECT_THAT(error_of(options()), HasSubstr("prepare.json: is damaged"));
}

TEST_F(PrepareTest, MakesChangedInputsAgain) {
  PrepareOptions o = options();
  o.shard_tokens = 5000;
  prepare(o);
  documents_[1].resize(50);  // fewer shards, so those behind get other numbers
  write_bytes(input(1), gzip(json_lines(documents_[1])));
  prepare(o);
  PrepareOptions afresh = options("afresh");
  afresh.shard_tokens = 5000;
  prepare(afresh);
  EXPECT_EQ(contents(), contents("afresh"));
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
  EXPECT_THAT(report.bad, ElementsAre(2, 1, 1, 0));
  EXPECT_EQ(report.documents_encoded, documents_per_file);
  report = prepare(o);  // the counts are kept with the shards
  EXPECT_THAT(report.bad, ElementsAre(2, 1, 1, 0));
  PrepareOptions strict = options("strict");
  strict.inputs = o.inputs;
  strict.max_bad_lines = 2;
  const std::string error = error_of(strict);
  EXPECT_THAT(error, HasSubstr("bad.jsonl:3: not valid UTF-8; this is bad record number 3"));
  for (const auto& [name, bytes] : contents("strict")) EXPECT_FALSE(name.ends_with(".partial")) << name;
}

TEST_F(PrepareTest, ADamagedInputKeepsTheFinishedShards) {
  const std::string whole = read_bytes(input(1));
  write_bytes(input(1), whole.substr(0, whole.size() / 2));
  EXPECT_THAT(error_of(options()), HasSubstr(input(1) + ": the gzip stream is cut off"));
  EXPECT_TRUE(fs::exists(shard("train-00000.h5")));
  EXPECT_FALSE(fs::exists(shard("train-00001.h5")));
  write_bytes(input(1), whole);
  EXPECT_EQ(prepare(options()).parts_kept, 1u);
  prepare(options("afresh"));
  EXPECT_EQ(contents(), contents("afresh"));
}

/// Writing beyond `bytes` of a file fails while this lives, as it does on a full disk.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit{bytes, before_.rlim_max};
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;
  ~FileSizeLimit() {
    setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }

 private:
  rlimit before_{};
  void (*handler_)(int);
};

TEST_F(PrepareTest, AFullDiskLeavesFinishedShardsOnly) {
  write_bytes(input(1),
              gzip(json_lines(made_up_documents(50, 4000))));  // shards of other inputs fit below the limit
  std::string error;
  {
    const FileSizeLimit limit(200'000);
    error = error_of(options());
  }
  EXPECT_THAT(error, HasSubstr("train-00001.h5"));
  EXPECT_THAT(error, HasSubstr("finished shards are kept: free space"));
  std::vector<std::string> names;
  for (const auto& [name, bytes] : contents()) names.push_back(name);
  EXPECT_THAT(names,
              UnorderedElementsAre("prepare.json", "tokenizer.model", "train-00000.h5", "heldout-00000.h5"));
  EXPECT_EQ(prepare(options()).parts_kept, 1u);
  prepare(options("afresh"));
  EXPECT_EQ(contents(), contents("afresh"));
}

TEST_F(PrepareTest, TrainsATokenizerOnceAndNotOnHeldOutText) {
  PrepareOptions o = options();
  o.tokenizer.clear();
  o.train_tokenizer = 600;
  o.heldout = 0.5;
  prepare(o);
  const std::string model = read_bytes(shard("tokenizer.model"));
  EXPECT_EQ(Tokenizer::load(shard("tokenizer.model")).vocab_size(), 600);
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
  EXPECT_THAT(error_of(o), HasSubstr("no documents in 1 input files"));
  o = options("sp.model");  // a file, not a folder
  EXPECT_THAT(error_of(o), HasSubstr("sp.model: "));
}

TEST_F(PrepareTest, ReadsPlainText) {
  write_bytes(folder_.file("a.txt"), "taren koli\nmarest\n\ningol\n");
  PrepareOptions o = options();
  o.inputs = {folder_.file("a.txt")};
  o.heldout = 0;
  prepare(o);
  const Tokenizer tokenizer = Tokenizer::load(shard("tokenizer.model"));
  const auto documents = documents_of(shard("train-*.h5"));
  ASSERT_EQ(documents.size(), 2u);
  EXPECT_EQ(tokenizer.decode(documents[0]), "taren koli\nmarest");
  EXPECT_EQ(tokenizer.decode(documents[1]), "ingol");
}

}  // namespace
}  // namespace vqlm
