// The evaluator against a direct computation: every token's loss from the full log-probabilities, one sample at a time.
#include "train/engine/evaluator.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <ostream>

#include "tests/data/temporary_folder.h"
#include "tests/data/test_shards.h"
#include "tests/train/tiny_model.h"

namespace vqlm {
namespace {

using testing::set_future;
using testing::tiny_model_config;
using testing::TinyModel;

constexpr std::int64_t seq_len = 8;

/// Lengths of the documents, over two shards. The first one is the stream's first token alone, which nobody predicts;
/// others are shorter than a sample and longer than three.
const std::vector<std::size_t> first_shard = {1, 3, 30, 2, 8, 1};
const std::vector<std::size_t> second_shard = {5, 1, 1, 27, 9, 4};  // 92 tokens in all: 11 samples of 8, one of 3

struct Case {
  const char* name;
  HeadKind kind;
  std::int64_t rows;  // of a batch
  int future = 0;     // heads for later tokens
};
void PrintTo(const Case& c, std::ostream* out) {
  *out << c.name;
}

/// What the documentation of Evaluation promises, computed from the losses of tokens.
struct Expected {
  double nll = 0;  // mean
  std::int64_t tokens = 0;
  std::int64_t documents = 0;
  double bytes = 0;
  std::vector<double> document_nll;  // sums, of documents with predicted tokens
  std::vector<double> document_tokens;
};

class EvaluatorTest : public ::testing::TestWithParam<Case> {
 protected:
  EvaluatorTest() : documents_(make_documents()), stream_(concatenated(documents_)), model_(config()) {
    model_.randomize(9, 0.3f);
    const auto split = documents_.begin() + static_cast<std::ptrdiff_t>(first_shard.size());
    const ShardMeta meta{
        .vocab_size = model_.config().model.vocab_size, .eos_id = 0, .tokenizer_sha256 = "t", .sources = {}};
    write_shard(folder_.file("heldout-0.h5"), {documents_.begin(), split}, meta);
    write_shard(folder_.file("heldout-1.h5"), {split, documents_.end()}, meta);
  }

  static Config config() {
    Config config = tiny_model_config(GetParam().kind);
    config.train.micro_batch = GetParam().rows;
    config.data.seq_len = seq_len;
    set_future(config, GetParam().future);
    return config;
  }

  static Documents make_documents() {
    const Philox rng(6, "held-out");
    std::uint64_t drawn = 0;
    Documents documents;
    for (const auto& lengths : {first_shard, second_shard}) {
      for (const std::size_t length : lengths) {
        std::vector<std::uint32_t> document(length);
        for (auto& token : document) token = 1 + static_cast<std::uint32_t>(rng.below(drawn++, 60));
        document.back() = 0;
        documents.push_back(document);
      }
    }
    return documents;
  }

  /// The map whose usage is told; an adaptive head's bands are no codes.
  const CodeMap* codes() const { return GetParam().kind == HeadKind::vq ? model_.map() : nullptr; }

  Evaluation evaluate(std::int64_t max_tokens, const FrequencyBands* bands = nullptr) {
    const ShardSet shards(folder_.file("heldout-*.h5"));
    return Evaluator(model_.backend(), model_.grid(), model_.model(), shards, max_tokens, codes(), bands).run();
  }

  /// Tokens whose probabilities are one event's: the target alone, or all members of its cluster.
  enum class Event { target, cluster };

  double nll_of(const float* log_probs, std::size_t target, Event event) const {
    if (event == Event::target) return -static_cast<double>(log_probs[target]);
    const std::vector<std::int32_t>& cluster = model_.map()->cluster_of_token;
    double p = 0;
    for (std::size_t token = 0; token < cluster.size(); ++token) {
      if (cluster[token] == cluster[target]) p += std::exp(static_cast<double>(log_probs[token]));
    }
    return -std::log(p);
  }

  /// -log p of the stream's tokens 1, 2, ... or of their clusters: each predicted from those before it in its sample.
  std::vector<double> losses(Event event = Event::target) {
    const std::int64_t rows = model_.model().batch().rows();
    const std::int64_t vocab = model_.config().model.vocab_size;
    std::vector<std::int32_t> ids(static_cast<std::size_t>(rows), 0);
    std::vector<float> log_probs(static_cast<std::size_t>(rows * vocab));
    std::vector<double> result;
    for (std::size_t begin = 0; begin + 1 < stream_.size(); begin += seq_len) {
      const std::size_t n = std::min<std::size_t>(seq_len, stream_.size() - 1 - begin);
      std::copy_n(stream_.begin() + static_cast<std::ptrdiff_t>(begin), n, ids.begin());
      model_.model().log_probs(Tensor(log_probs.data(), DType::f32, {rows, vocab}),
                               Tensor(ids.data(), DType::i32, {rows}));
      for (std::size_t i = 0; i < n; ++i) {
        const auto target = static_cast<std::size_t>(stream_[begin + i + 1]);
        result.push_back(nll_of(&log_probs[i * static_cast<std::size_t>(vocab)], target, event));
      }
    }
    return result;
  }

  Expected expected(std::size_t predicted) {
    const std::vector<double> nll = losses();
    Expected e;
    e.tokens = static_cast<std::int64_t>(predicted);
    e.nll = std::accumulate(nll.begin(), nll.begin() + static_cast<std::ptrdiff_t>(predicted), 0.0) /
            static_cast<double>(predicted);
    std::size_t begin = 0;
    for (const auto& document : documents_) {
      double sum = 0;
      std::size_t tokens = 0;
      for (std::size_t place = begin; place < begin + document.size(); ++place) {
        if (place == 0 || place > predicted) continue;
        sum += nll[place - 1];
        ++tokens;
      }
      // Of a document that the end cuts, in proportion to its tokens; the stream's first token counts as seen.
      const std::size_t seen = begin > predicted ? 0 : std::min(document.size(), predicted + 1 - begin);
      e.bytes += static_cast<double>(text_bytes_of(document) * seen) / static_cast<double>(document.size());
      begin += document.size();
      if (tokens == 0) continue;
      ++e.documents;
      e.document_nll.push_back(sum);
      e.document_tokens.push_back(static_cast<double>(tokens));
    }
    return e;
  }

  // Both sides compute logits of 16 terms from hidden states of unit size and weights of 0.3: sum(|h||w|) is about 4,
  // and 16 * eps * 4 with eps = 2^-24 is 4e-6; the softmax and the layers before it may add as much again.
  static constexpr double tolerance = 1e-5;

  TemporaryFolder folder_;
  Documents documents_;
  std::vector<std::int32_t> stream_;
  TinyModel model_;
};

struct Cut {
  std::int64_t max_tokens;
  std::size_t predicted;
};

TEST_P(EvaluatorTest, MeansAreThoseOfTheTokens) {
  ASSERT_EQ(stream_.size(), 92U);
  // 0 is all; a cut rounds up to whole samples; the last sample is short.
  for (const Cut cut :
       {Cut{0, 91}, Cut{1, 8}, Cut{8, 8}, Cut{9, 16}, Cut{40, 40}, Cut{88, 88}, Cut{89, 91}, Cut{1000, 91}}) {
    SCOPED_TRACE("max_tokens " + std::to_string(cut.max_tokens));
    const Evaluation actual = evaluate(cut.max_tokens);
    const Expected e = expected(cut.predicted);
    EXPECT_EQ(actual.tokens, e.tokens);
    EXPECT_EQ(actual.documents, e.documents);
    EXPECT_NEAR(actual.nll, e.nll, tolerance);
    EXPECT_NEAR(actual.perplexity, std::exp(e.nll), tolerance * std::exp(e.nll));
    EXPECT_NEAR(static_cast<double>(actual.bytes.value()), e.bytes, 0.5);  // rounded
    EXPECT_NEAR(actual.bits_per_byte.value(), e.nll * static_cast<double>(e.tokens) / (std::log(2.0) * e.bytes),
                tolerance);
    EXPECT_GT(actual.nll, 1.0);  // the model says something: not a comparison of zeros
  }
}

// Cochran, Sampling Techniques, 6.4: the variance of R = sum(y) / sum(x) over n documents is
// sum((y - R x)^2) / ((n - 1) n mean(x)^2).
TEST_P(EvaluatorTest, IntervalIsTheRatioEstimators) {
  for (const Cut cut : {Cut{0, 91}, Cut{40, 40}}) {
    const Evaluation actual = evaluate(cut.max_tokens);
    const Expected e = expected(cut.predicted);
    const auto n = static_cast<double>(e.documents);
    double squares = 0;
    for (std::size_t i = 0; i < e.document_nll.size(); ++i)
      squares += std::pow(e.document_nll[i] - e.nll * e.document_tokens[i], 2);
    const double mean_tokens = static_cast<double>(e.tokens) / n;
    const double half = 1.96 * std::sqrt(squares / (n - 1) / n) / mean_tokens;
    ASSERT_GT(half, 0.01);
    EXPECT_NEAR(actual.nll_ci95.value()[0], e.nll - half, 10 * tolerance);
    EXPECT_NEAR(actual.nll_ci95.value()[1], e.nll + half, 10 * tolerance);
  }
}

TEST_P(EvaluatorTest, IntervalNeedsTwoDocuments) {
  const Evaluation actual = evaluate(1);  // tokens 1 to 8: the documents of 3 and of 30
  EXPECT_EQ(actual.documents, 2);
  EXPECT_LT(actual.nll_ci95.value()[0], actual.nll_ci95.value()[1]);

  write_shard(folder_.file("heldout-0.h5"), {documents_[2]},
              {.vocab_size = 61, .eos_id = 0, .tokenizer_sha256 = "t", .sources = {}});
  std::filesystem::remove(folder_.file("heldout-1.h5"));
  const Evaluation alone = evaluate(0);
  EXPECT_EQ(alone.documents, 1);
  EXPECT_EQ(alone.tokens, 29);
  EXPECT_FALSE(alone.nll_ci95);
}

TEST_P(EvaluatorTest, CodeUsageIsThatOfTheTargets) {
  for (const Cut cut : {Cut{0, 91}, Cut{8, 8}}) {
    const Evaluation actual = evaluate(cut.max_tokens);
    ASSERT_EQ(actual.code_usage.has_value(), GetParam().kind == HeadKind::vq);
    if (!actual.code_usage) continue;
    std::vector<double> counts(static_cast<std::size_t>(model_.map()->clusters), 0.0);
    for (std::size_t place = 1; place <= cut.predicted; ++place)
      ++counts[static_cast<std::size_t>(model_.map()->cluster_of_token[static_cast<std::size_t>(stream_[place])])];
    std::int64_t used = 0;
    double log_perplexity = 0;
    for (double count : counts) {
      if (count > 0) ++used;
      if (count > 0)
        log_perplexity +=
            count / static_cast<double>(cut.predicted) * std::log(static_cast<double>(cut.predicted) / count);
    }
    EXPECT_EQ(actual.code_usage->codes, 5);
    EXPECT_EQ(actual.code_usage->used, used);
    EXPECT_NEAR(actual.code_usage->perplexity, std::exp(log_perplexity), 1e-12 * 5);
  }
}

// Bands of the ids themselves (counts fall with the id): 0-15, 16-60; the second one has bands of its own tokens only.
TEST_P(EvaluatorTest, BandsAndPartsAreMeansOfTheirTokens) {
  std::vector<std::int64_t> counts(61);
  for (std::size_t token = 0; token < counts.size(); ++token) counts[token] = 1000 - static_cast<std::int64_t>(token);
  const FrequencyBands bands = make_frequency_bands(counts);
  const bool parts = GetParam().kind == HeadKind::vq;
  const std::vector<double> nll = losses();
  const std::vector<double> cluster = parts ? losses(Event::cluster) : nll;
  for (const Cut cut : {Cut{0, 91}, Cut{8, 8}}) {
    const Evaluation actual = evaluate(cut.max_tokens, &bands);
    ASSERT_EQ(actual.bands.size(), 2U);
    double whole_cluster = 0;
    for (const BandLoss& loss : actual.bands) {
      double sum = 0;
      double cluster_sum = 0;
      double tokens = 0;
      for (std::size_t place = 1; place <= cut.predicted; ++place) {
        if (stream_[place] + 1 < loss.band.first_rank || stream_[place] + 1 > loss.band.last_rank) continue;
        sum += nll[place - 1];
        cluster_sum += cluster[place - 1];
        ++tokens;
      }
      ASSERT_GT(tokens, 0);
      whole_cluster += cluster_sum;
      EXPECT_EQ(loss.means.tokens, static_cast<std::int64_t>(tokens));
      EXPECT_NEAR(loss.means.nll, sum / tokens, tolerance);
      ASSERT_EQ(loss.means.cluster_nll.has_value(), parts);
      if (!parts) continue;
      EXPECT_NEAR(*loss.means.cluster_nll, cluster_sum / tokens, tolerance);
      EXPECT_NEAR(*loss.means.member_nll, (sum - cluster_sum) / tokens, 2 * tolerance);
      EXPECT_GT(*loss.means.member_nll, 0.1);  // both parts say something
    }
    ASSERT_EQ(actual.cluster_nll.has_value(), parts);
    if (!parts) continue;
    EXPECT_NEAR(*actual.cluster_nll, whole_cluster / static_cast<double>(actual.tokens), tolerance);
    EXPECT_NEAR(*actual.cluster_nll + *actual.member_nll, actual.nll, 2e-9);
  }
  EXPECT_TRUE(evaluate(0).bands.empty());
}

TEST_P(EvaluatorTest, HeadsForLaterTokensAreMeansOverTheirOwnPositions) {
  const Evaluation evaluation = evaluate(0);
  ASSERT_EQ(evaluation.future.size(), static_cast<std::size_t>(GetParam().future));
  const std::int64_t rows = model_.model().batch().rows(), vocab = model_.config().model.vocab_size;
  std::vector<std::int32_t> ids(static_cast<std::size_t>(rows), 0);
  std::vector<float> log_probs(static_cast<std::size_t>(rows * vocab));
  const Tensor out(log_probs.data(), DType::f32, {rows, vocab});
  for (std::size_t j = 0; j < evaluation.future.size(); ++j) {
    double nll = 0;
    std::int64_t tokens = 0;
    for (std::size_t begin = 0; begin + 1 < stream_.size(); begin += seq_len) {
      const std::size_t n = std::min<std::size_t>(seq_len, stream_.size() - 1 - begin);
      std::copy_n(stream_.begin() + static_cast<std::ptrdiff_t>(begin), n, ids.begin());
      model_.model().log_probs(out, Tensor(ids.data(), DType::i32, {rows}));
      model_.model().head().log_probs(
          out, model_.model().future()->hidden(static_cast<std::int64_t>(j), model_.model().hidden()));
      for (std::size_t i = 0; i + j + 1 < n; ++i) {
        const auto target = static_cast<std::size_t>(stream_[begin + i + j + 2]);
        nll -= static_cast<double>(log_probs[i * static_cast<std::size_t>(vocab) + target]);
        ++tokens;
      }
    }
    EXPECT_EQ(evaluation.future[j].tokens, tokens);
    EXPECT_NEAR(evaluation.future[j].nll, nll / static_cast<double>(tokens), tolerance);
    EXPECT_FALSE(evaluation.future[j].acceptance);
  }
}

TEST_P(EvaluatorTest, RunningAgainGivesTheSame) {
  const ShardSet shards(folder_.file("heldout-*.h5"));
  Evaluator evaluator(model_.backend(), model_.grid(), model_.model(), shards, 0, codes());
  const Evaluation first = evaluator.run();
  const Evaluation second = evaluator.run();
  EXPECT_EQ(first.nll, second.nll);
  EXPECT_EQ(first.tokens, second.tokens);
  EXPECT_EQ(first.documents, second.documents);
}

TEST_P(EvaluatorTest, OneTokenIsRefused) {
  write_shard(folder_.file("heldout-0.h5"), {{0}},
              {.vocab_size = 61, .eos_id = 0, .tokenizer_sha256 = "t", .sources = {}});
  std::filesystem::remove(folder_.file("heldout-1.h5"));
  EXPECT_EQ(message_of([&] { evaluate(0); }), folder_.file("heldout-*.h5") + ": 1 tokens; evaluation needs at least 2");
}

// A batch of one row, one that does not divide the 12 samples, and one that is larger than the stream.
INSTANTIATE_TEST_SUITE_P(
    Heads, EvaluatorTest,
    ::testing::Values(Case{"dense_row", HeadKind::dense, 1}, Case{"dense_5_rows", HeadKind::dense, 5},
                      Case{"low_rank_5_rows", HeadKind::low_rank, 5}, Case{"adaptive_5_rows", HeadKind::adaptive, 5},
                      Case{"vq_5_rows", HeadKind::vq, 5}, Case{"vq_40_rows", HeadKind::vq, 40},
                      Case{"future_5_rows", HeadKind::vq, 5, 2}, Case{"future_dense_row", HeadKind::dense, 1, 3}),
    [](const auto& test) { return std::string(test.param.name); });

}  // namespace
}  // namespace vqlm
