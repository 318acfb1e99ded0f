// Stopped runs, damaged shards, full disks: `vqlm prepare` again.
#include <gmock/gmock.h>
#include <sys/resource.h>

#include <csignal>

#include "tests/data/prepare_fixture.h"

namespace vqlm {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::UnorderedElementsAre;

class PrepareResumeTest : public PrepareTest {};

TEST_F(PrepareResumeTest, SkipsFinishedPartsAndAddsInputs) {
  PrepareOptions o = options();
  o.inputs = {input(0), input(1)};
  prepare(o);
  const auto time = fs::last_write_time(shard("train-00000.h5"));
  o.inputs = {input(0), input(1), input(2)};
  const PrepareReport report = prepare(o);
  EXPECT_EQ(report.parts_kept, 2u);
  EXPECT_EQ(report.parts_made, 1u);
  EXPECT_EQ(report.documents_encoded, documents_per_file);
  EXPECT_EQ(report.counts[Split::train].documents + report.counts[Split::heldout].documents, 3 * documents_per_file);
  EXPECT_EQ(fs::last_write_time(shard("train-00000.h5")), time);
  prepare(options("whole"));
  EXPECT_EQ(contents(), contents("whole"));
}

TEST_F(PrepareResumeTest, MakesShardsWithAnyFlippedBitAgain) {
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

TEST_F(PrepareResumeTest, MakesDamagedAndMissingShardsAgain) {
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

TEST_F(PrepareResumeTest, GoesOnAfterTheLastWholePart) {
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

TEST_F(PrepareResumeTest, RefusesShardsOfOtherInputsAndOptions) {
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

TEST_F(PrepareResumeTest, RemembersWherePlainTextIsCut) {
  write_bytes(folder_.file("plain.txt"), "one\n\ntwo\n\nthree\n");
  PrepareOptions o = options();
  o.inputs = {folder_.file("plain.txt")};
  o.heldout = 0;
  o.documents = "file";
  EXPECT_EQ(prepare(o).counts[Split::train].documents, 1u);
  EXPECT_THAT(contents().at("prepare.json"), HasSubstr("\"documents\": \"file\""));
  EXPECT_EQ(prepare(o).parts_kept, 1u);
  o.documents = "paragraph";
  EXPECT_THAT(error_of(o), HasSubstr("--documents file, here paragraph"));
  o.force = true;
  EXPECT_EQ(prepare(o).counts[Split::train].documents, 3u);
  o.force = false;
  o.documents = "";
  EXPECT_THAT(error_of(o), HasSubstr("--documents paragraph, here left out"));
}

TEST_F(PrepareResumeTest, ADigitOfTheManifestThatIsAnotherIsNoticed) {
  prepare(options());
  const std::string intact = read_bytes(shard("prepare.json"));
  const std::size_t begin = intact.find("\"records\"");
  for (std::size_t at = begin; at < begin + 200; ++at) {
    if (intact[at] < '0' || intact[at] > '8') continue;
    std::string damaged = intact;
    ++damaged[at];
    write_bytes(shard("prepare.json"), damaged);
    EXPECT_THAT(error_of(options()), HasSubstr("prepare.json: is damaged (it does not match its own hash)")) << at;
  }
  const std::size_t hash = intact.rfind(",\n \"xxh3\"");  // files of earlier versions have none
  ASSERT_NE(hash, std::string::npos);
  write_bytes(shard("prepare.json"), intact.substr(0, hash) + "\n}\n");
  EXPECT_EQ(prepare(options()).parts_made, 0u);
  EXPECT_EQ(read_bytes(shard("prepare.json")), intact);
}

TEST_F(PrepareResumeTest, MakesChangedInputsAgain) {
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

TEST_F(PrepareResumeTest, ADamagedInputKeepsTheFinishedShards) {
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

TEST_F(PrepareResumeTest, AFullDiskLeavesFinishedShardsOnly) {
  write_bytes(input(1), gzip(json_lines(made_up_documents(50, 4000))));  // shards of other inputs fit below the limit
  std::string error;
  {
    const FileSizeLimit limit(200'000);
    error = error_of(options());
  }
  EXPECT_THAT(error, HasSubstr("train-00001.h5"));
  EXPECT_THAT(error, HasSubstr("finished shards are kept: free space"));
  std::vector<std::string> names;
  for (const auto& [name, bytes] : contents()) names.push_back(name);
  EXPECT_THAT(names, UnorderedElementsAre("prepare.json", "tokenizer.model", "train-00000.h5", "heldout-00000.h5"));
  EXPECT_EQ(prepare(options()).parts_kept, 1u);
  prepare(options("afresh"));
  EXPECT_EQ(contents(), contents("afresh"));
}

}  // namespace
}  // namespace vqlm
