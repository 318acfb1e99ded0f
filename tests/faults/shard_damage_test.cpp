// Shards and code maps with flipped bits, lost blocks and cut ends: what is read is the truth, or there is an error that names
// the file. Every case runs in a process of its own, so that a crash or a hang inside HDF5 is a finding and not the end.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <spdlog/fmt/fmt.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <functional>

#include "core/model/head/code_map.h"
#include "data/shards/shard_set.h"
#include "tests/data/temporary_folder.h"
#include "tests/data/test_shards.h"
#include "train/codes/code_map_file.h"

namespace vqlm {
namespace {

/// Cases of each kind; VQLM_FAULT_CASES asks for more.
int cases() {
  const char* text = std::getenv("VQLM_FAULT_CASES");
  return text != nullptr ? std::atoi(text) : 40;
}

constexpr unsigned seconds_until_it_hangs = 20;

/// "same", "other" (what was read is not the truth, and nothing was said), the message of an Error, "signal N" or "exit N".
std::string outcome_of(const std::function<bool()>& reads_the_truth) {
  int ends[2];
  if (pipe(ends) != 0) return "no pipe";
  const pid_t child = fork();
  if (child == 0) {
    alarm(seconds_until_it_hangs);
    std::string words;
    const std::string message = message_of([&] { words = reads_the_truth() ? "same" : "other"; });
    if (words.empty()) words = message;
    const bool told = write(ends[1], words.data(), words.size()) == static_cast<ssize_t>(words.size());
    _exit(told ? 0 : 3);
  }
  close(ends[1]);
  std::string words;
  char block[4096];
  for (ssize_t n = 0; (n = read(ends[0], block, sizeof(block))) > 0;) {
    words.append(block, static_cast<std::size_t>(n));
  }
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  if (WIFSIGNALED(status)) return fmt::format("signal {}", WTERMSIG(status));
  return WEXITSTATUS(status) == 0 ? words : fmt::format("exit {}", WEXITSTATUS(status));
}

/// One way to damage a file's bytes, drawn by `rng`, and what it is called.
struct Damage {
  const char* name;
  std::function<void(std::string&, const std::function<std::uint64_t(std::uint64_t)>&)> apply;
};

std::vector<Damage> kinds_of_damage() {
  return {
      {"a flipped bit",
       [](std::string& bytes, const auto& below) { bytes[below(bytes.size())] ^= static_cast<char>(1u << below(8)); }},
      {"another byte among the first 4,096",  // the superblock and the root group are here
       [](std::string& bytes, const auto& below) {
         bytes[below(std::min<std::size_t>(bytes.size(), 4096))] ^= static_cast<char>(1 + below(255));
       }},
      {"another byte in the superblock",
       [](std::string& bytes, const auto& below) { bytes[below(48)] ^= static_cast<char>(1 + below(255)); }},
      {"a lost block of 512",
       [](std::string& bytes, const auto& below) {
         const std::size_t begin = below(bytes.size()) / 512 * 512;
         std::fill_n(bytes.begin() + static_cast<std::ptrdiff_t>(begin),
                     std::min<std::size_t>(512, bytes.size() - begin), '\0');
       }},
      {"lost blocks of 512",  // up to 16 KiB: whole chunks among them, checksums and all
       [](std::string& bytes, const auto& below) {
         const std::size_t begin = below(bytes.size()) / 512 * 512;
         const std::size_t count = std::min<std::size_t>(512 * (1 + below(32)), bytes.size() - begin);
         std::fill_n(bytes.begin() + static_cast<std::ptrdiff_t>(begin), count, '\0');
       }},
      {"64 random bytes",
       [](std::string& bytes, const auto& below) {
         const std::size_t begin = below(bytes.size() - 64);
         for (std::size_t i = 0; i < 64; ++i) bytes[begin + i] = static_cast<char>(below(256));
       }},
      {"a cut end", [](std::string& bytes, const auto& below) { bytes.resize(below(bytes.size())); }},
  };
}

class FileDamage : public ::testing::Test {
 protected:
  /// Damages the file in every way and expects the truth or an Error with the file's name.
  void expect_truth_or_error(const std::string& path, const std::function<bool()>& reads_the_truth) {
    const std::string intact = read_bytes(path);
    ASSERT_EQ(outcome_of(reads_the_truth), "same");
    const Philox rng(5, "damage");
    std::uint64_t drawn = 0;
    const auto below = [&](std::uint64_t n) { return rng.below(drawn++, n); };
    int errors = 0;
    int same = 0;
    for (const Damage& damage : kinds_of_damage()) {
      for (int number = 0; number < cases(); ++number) {
        std::string bytes = intact;
        damage.apply(bytes, below);
        write_bytes(path, bytes);
        const std::string outcome = outcome_of(reads_the_truth);
        const bool error = outcome.find(path) != std::string::npos;
        EXPECT_TRUE(error || outcome == "same")
            << damage.name << ", case " << number << ": " << outcome << first_difference(intact, bytes);
        errors += error ? 1 : 0;
        same += outcome == "same" ? 1 : 0;
      }
    }
    write_bytes(path, intact);
    std::cout << fmt::format("{} cases: {} errors, {} times the truth\n", errors + same, errors, same);
    // Most of a file is read, so most damage must be noticed; the rest lies in gaps between HDF5's objects.
    EXPECT_GT(errors, 3 * same);
  }

  static std::string first_difference(const std::string& a, const std::string& b) {
    if (a.size() != b.size()) return fmt::format(" (cut to {} of {})", b.size(), a.size());
    const auto at = std::mismatch(a.begin(), a.end(), b.begin()).first - a.begin();
    return fmt::format(" (from byte {} of {})", at, a.size());
  }

  TemporaryFolder folder_;
};

TEST_F(FileDamage, ATrainingShardGivesItsTokensOrAnErrorThatNamesIt) {
  const std::string path = folder_.file("train-00000.h5");
  const Documents documents = random_documents(1000, 60, 3);
  write_shard(path, documents,
              {.vocab_size = 1000, .eos_id = 0, .tokenizer_sha256 = "abc", .sources = {{"text.txt", 7, "def"}}});
  expect_truth_or_error(path, [&] {
    ShardSet shards(path);
    std::vector<std::int32_t> tokens(shards.total_tokens());
    shards.read(0, tokens);
    bool same = tokens == concatenated(documents) && shards.vocab_size() == 1000 && shards.eos_id() == 0 &&
                shards.tokenizer_sha256() == "abc" && shards.total_documents() == documents.size();
    const auto found = shards.documents(0, tokens.size());
    for (std::size_t i = 0; i < found.size(); ++i) {
      same = same && found[i].end - found[i].begin == documents[i].size() &&
             found[i].text_bytes == text_bytes_of(documents[i]);
    }
    return same && found.size() == documents.size();
  });
}

TEST_F(FileDamage, ACodeMapIsItselfOrAnErrorThatNamesIt) {
  const std::string path = folder_.file("code_map.h5");
  CodeMap map;
  map.vocab_size = 3000;
  map.clusters = 8;
  map.groups = 4;
  map.codes = 16;
  map.provenance = "made up";
  const Philox rng(9, "codes");
  for (std::uint64_t token = 0; token < 3000; ++token) {
    map.cluster_of_token.push_back(static_cast<std::int32_t>(rng.below(5 * token, 8)));
    for (std::uint64_t group = 1; group <= 4; ++group) {
      map.member_codes.push_back(static_cast<std::uint8_t>(rng.below(5 * token + group, 16)));
    }
  }
  save_code_map(path, map);
  expect_truth_or_error(path, [&] {
    const CodeMap read = load_code_map(path);
    return read.cluster_of_token == map.cluster_of_token && read.member_codes == map.member_codes &&
           read.clusters == map.clusters && read.groups == map.groups && read.codes == map.codes &&
           read.provenance == map.provenance;
  });
}

}  // namespace
}  // namespace vqlm
