// A text's parts, and the hidden states of one of them.
#include "train/tools/convert/source_loss.h"

#include <gtest/gtest.h>

#include "tests/train/saved_model.h"
#include "tests/train/tiny_run.h"

namespace vqlm {
namespace {

using testing::config_of;
using testing::Saved;

TEST(SourceLoss, PartsOfATextNeverOverlap) {
  // 1,000 targets in samples of 100.
  const auto parts = [](std::int64_t eval, std::int64_t fit) { return split_text(1001, 100, eval, fit); };
  EXPECT_EQ(parts(250, 401).eval_samples, 3);
  EXPECT_EQ(parts(250, 401).fit_samples, 5);
  EXPECT_EQ(parts(250, 401).fit_tokens, 500);
  // Too few for both: the perplexity gives way, down to half.
  EXPECT_EQ(parts(5000, 300).eval_samples, 7);
  EXPECT_EQ(parts(5000, 300).fit_tokens, 300);
  EXPECT_EQ(parts(5000, 5000).eval_samples, 5);
  EXPECT_EQ(parts(5000, 5000).fit_tokens, 500);
  EXPECT_EQ(parts(200, 5000).eval_samples, 2);
  EXPECT_EQ(parts(200, 5000).fit_tokens, 800);
  // No fit: all is there to be evaluated.
  EXPECT_EQ(parts(5000, 0).eval_samples, 10);
  EXPECT_EQ(parts(5000, 0).fit_tokens, 0);
  // The last sample is short, or the only one.
  EXPECT_EQ(split_text(951, 100, 500, 500).fit_tokens, 450);
  EXPECT_EQ(split_text(51, 100, 500, 500).fit_samples, 0);
  EXPECT_EQ(split_text(51, 100, 500, 500).fit_tokens, 0);
}

TEST(SourceLoss, PartsAddUpToTheWholeAndHiddenStatesAreTheirPositions) {
  const TemporaryFolder folder;
  testing::write_zipf_shards(folder.path(), "text", 4, 61);
  const ShardSet shards(folder.file("text-*.h5"));
  const Saved saved(config_of(HeadKind::dense));
  const auto backend = make_cpu_backend(1);
  const auto loss = [&](std::int64_t first, std::int64_t samples, KeepHidden keep) {
    return measure_loss(saved.source(), *backend, shards,
                        {.seq_len = 8, .first_sample = first, .samples = samples, .keep_hidden = keep});
  };
  const SourceLoss whole = loss(0, 0, KeepHidden::yes), begin = loss(0, 11, KeepHidden::no),
                   end = loss(11, 0, KeepHidden::yes);
  ASSERT_GT(whole.tokens, 200);
  EXPECT_EQ(whole.tokens, static_cast<std::int64_t>(shards.total_tokens()) - 1);
  EXPECT_EQ(begin.tokens, 88);
  EXPECT_EQ(begin.tokens + end.tokens, whole.tokens);
  const double sum = begin.nll * static_cast<double>(begin.tokens) + end.nll * static_cast<double>(end.tokens);
  EXPECT_NEAR(sum / static_cast<double>(whole.tokens), whole.nll, 1e-6);
  EXPECT_TRUE(begin.hidden.values.empty());
  ASSERT_EQ(whole.hidden.rows, whole.tokens);
  ASSERT_EQ(end.hidden.values.size(), static_cast<std::size_t>(end.tokens * 16));
  // Batches begin at multiples of eight samples: the same rows of the same batches, and the same bits.
  const std::vector<float> tail(whole.hidden.values.begin() + 88 * 16, whole.hidden.values.end());
  EXPECT_EQ(end.hidden.values, tail);
  const HiddenMoments moments = moments_of(whole.hidden, whole.hidden.rows);
  for (std::size_t i = 0; i < 16; ++i) EXPECT_NEAR(moments.mean[i], static_cast<double>(whole.mean_hidden[i]), 1e-5);
}

}  // namespace
}  // namespace vqlm
