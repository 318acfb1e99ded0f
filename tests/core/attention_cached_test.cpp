// Attention over a cache, part by part, against attention_forward over the whole sequence, which has its own reference.
#include <gtest/gtest.h>

#include "tests/core/cached_attention.h"

namespace vqlm::testing {
namespace {

class AttentionCachedTest : public OpTest, public ::testing::WithParamInterface<CachedCase> {};

/// Element (b, kv, position, i) of the cache is that of qkv up to `filled`, and untouched from there on.
void expect_filled(const HostF32& cache, const HostF32& qkv, const AttentionShape& shape, int first_head,
                   std::int64_t filled) {
  const std::int64_t capacity = cache.shape()[2], n = shape.head_dim;
  for (std::int64_t at = 0; at < cache.size(); ++at) {
    const std::int64_t i = at % n, position = at / n % capacity, kv = at / n / capacity % shape.kv_heads;
    const std::int64_t b = at / n / capacity / shape.kv_heads;
    if (position >= filled) {
      ASSERT_TRUE(std::isnan(cache[at])) << "position " << position << " of " << filled << " is written";
    } else {
      ASSERT_EQ(cache[at], qkv[(b * shape.seq_len + position) * shape.row() + (first_head + kv) * n + i])
          << "sequence " << b << ", head " << kv << ", position " << position << ", column " << i;
    }
  }
}

TEST_P(AttentionCachedTest, PartsEqualTheWhole) {
  const CachedCase& c = GetParam();
  const AttentionShape whole = c.whole();
  HostF32 qkv = random_normal({whole.batch, whole.seq_len, whole.row()}, "qkv");
  HostF32 expected({whole.batch, whole.seq_len, std::int64_t{whole.heads} * whole.head_dim}),
      lse({whole.batch, whole.heads, whole.seq_len});
  HostI32 cut = random_documents(whole);
  HostI32 documents = with_capacity(cut, whole.seq_len + 3);
  const auto mask = [&](HostI32& x) { return c.documents ? x.tensor() : Tensor{}; };
  backend->run(AttentionForward{.out = expected, .lse = lse, .qkv = qkv, .shape = whole, .documents = mask(cut)});
  // Tiles and chunks of 256 positions.
  const AttentionError error = attention_error(
      whole, qkv, [](std::int64_t t) { return static_cast<double>(1 + t / 256); }, c.documents ? &cut : nullptr);
  const Shape cache{whole.batch, whole.kv_heads, whole.seq_len + 3, whole.head_dim};
  HostF32 keys = poisoned(cache), values = poisoned(cache);
  std::int64_t past = 0;
  for (std::size_t index = 0; index < c.parts.size(); ++index) {
    const std::int64_t rows = c.parts[index];
    HostF32 part = rows_of_sequences(qkv, past, rows), out = poisoned({whole.batch, rows, expected.shape()[2]});
    backend->run(AttentionCached{.out = out,
                                 .keys = keys,
                                 .values = values,
                                 .qkv = part,
                                 .shape = c.part(index),
                                 .past = past,
                                 .documents = mask(documents)});
    const HostF32 of_whole = rows_of_sequences(expected, past, rows);
    std::vector<double> bound;
    for (std::int64_t i = 0; i < out.size(); ++i) {
      const std::int64_t width = out.shape()[2], b = i / (rows * width);
      const auto at = static_cast<std::size_t>((b * whole.seq_len + past) * width + i % (rows * width));
      bound.push_back(2 * error.relative[at] * error.weight[at]);
    }
    expect_close(out, of_whole.doubles(), bound, "rows from " + std::to_string(past) + " on");
    past += rows;
    expect_filled(keys, qkv, whole, whole.heads, past);
    expect_filled(values, qkv, whole, whole.heads + whole.kv_heads, past);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Cases, AttentionCachedTest,
    ::testing::Values(CachedCase{"StepByStep", {2, 0, 4, 2, 8}, {1, 1, 1, 1, 1, 1, 1}},
                      CachedCase{"PromptThenSteps", {2, 0, 8, 2, 16}, {70, 1, 1, 1}},
                      // Over the ends of query blocks, key tiles and chunks; a width that no vector divides.
                      CachedCase{"PromptInParts", {1, 0, 3, 1, 6}, {254, 1, 1, 1, 1, 130, 1, 200, 1}},
                      CachedCase{"ManyChunks", {2, 0, 2, 2, 64}, {1030, 1, 1}},
                      // Windows within a chunk and over several, in prompts and steps.
                      CachedCase{"Window", {2, 0, 4, 2, 8, 0, 3}, {5, 1, 1, 1, 4, 1}},
                      CachedCase{"LongWindow", {1, 0, 2, 1, 16, 0.3f, 300}, {290, 20, 1, 400, 1, 1}},
                      CachedCase{"Documents", {2, 0, 4, 2, 8}, {200, 1, 1, 90, 1, 1}, true},
                      CachedCase{"ManyDocuments", {2, 0, 2, 2, 16, 0, 90}, {700, 1, 1, 120, 1}, true},
                      CachedCase{"ManyHeads", {3, 0, 6, 6, 2}, {5, 3, 1}}),
    [](const auto& test) { return std::string(test.param.name); });

TEST_F(OpTest, AttentionCachedDoesNotDependOnThreads) {
  const AttentionShape shape{1, 1, 4, 2, 32};
  HostF32 qkv = random_normal({1, 1, shape.row()}, "qkv");
  HostF32 keys = random_normal({1, 2, 2000, 32}, "keys"), values = random_normal({1, 2, 2000, 32}, "values");
  HostF32 one({1, 1, 128}), three({1, 1, 128});
  make_cpu_backend(1)->run(
      AttentionCached{.out = one, .keys = keys, .values = values, .qkv = qkv, .shape = shape, .past = 1999});
  make_cpu_backend(3)->run(
      AttentionCached{.out = three, .keys = keys, .values = values, .qkv = qkv, .shape = shape, .past = 1999});
  expect_equal(one, three, "out");
}

}  // namespace
}  // namespace vqlm::testing
