#include <gtest/gtest.h>

#include <set>
#include <vector>

#include "tests/core/op_testing.h"

namespace vqlm::testing {
namespace {

/// Written from docs/inputs.md by another road: unsigned 128-bit products, reduced.
std::int64_t expected_row(const std::vector<std::int64_t>& ids, int table, std::int64_t rows) {
  __extension__ using Wide = unsigned __int128;
  const Wide modulus = Wide{1} << 64;
  Wide hash = static_cast<Wide>(table) + 1;
  for (const std::int64_t id : ids) {
    hash = (hash ^ static_cast<Wide>(id)) * Wide{11400714819323198485U} % modulus;
    hash ^= hash / (Wide{1} << 32);
  }
  return static_cast<std::int64_t>(hash / (Wide{1} << 33)) % rows;
}

/// Rows of the n-grams of tokens (B, T); cut behind `end`, where that is an id.
std::vector<double> expected_rows(const HostI32& tokens, std::int64_t batch, std::int64_t length, int order, int table,
                                  std::int64_t rows, std::int32_t end = -1) {
  std::vector<double> expected;
  for (std::int64_t b = 0; b < batch; ++b) {
    std::vector<std::int64_t> last;
    for (std::int64_t t = 0; t < length; ++t) {
      const std::int32_t id = tokens[b * length + t];
      last.push_back(id);
      if (last.size() > static_cast<std::size_t>(order)) last.erase(last.begin());
      if (id < 0) last.clear();
      const bool whole = last.size() == static_cast<std::size_t>(order);
      expected.push_back(whole ? static_cast<double>(expected_row(last, table, rows)) : -1.0);
      if (end >= 0 && id == end) last.clear();
    }
  }
  return expected;
}

struct Size {
  std::int64_t batch, length, rows;
  int order, table;
};
const std::vector<Size> sizes{{1, 1, 5, 2, 0}, {3, 7, 1, 2, 1}, {2, 65, 1000, 3, 0}, {4, 33, 2147483647, 8, 15}, {2, 300, 64, 1, 3}};

TEST_F(OpTest, NgramRowsAreHashesOfTheLastTokens) {
  for (const auto& [batch, length, rows, order, table] : sizes) {
    HostI32 tokens = random_integers<std::int32_t>({batch, length}, "tokens", -1, 100'000);  // -1 is no token
    HostI32 found = poisoned<std::int32_t>({batch, length});
    backend->run(NgramRows{.rows = found, .tokens = tokens, .order = order, .table = table, .table_rows = rows});
    expect_close(found, expected_rows(tokens, batch, length, order, table, rows), 0.0, "rows");
  }
}

TEST_F(OpTest, NgramRowsBeginWithTheirDocument) {
  HostI32 tokens = random_integers<std::int32_t>({3, 90}, "tokens", 0, 6), documents({2, 3, 90});
  HostI32 found = poisoned<std::int32_t>({3, 90});
  backend->run(FindDocuments{.documents = documents, .tokens = tokens, .end_of_text = 3});
  backend->run(NgramRows{
      .rows = found, .tokens = tokens, .documents = documents, .order = 3, .table = 0, .table_rows = 50});
  expect_close(found, expected_rows(tokens, 3, 90, 3, 0, 50, 3), 0.0, "rows");
}

TEST_F(OpTest, NgramRowsGoOnInParts) {
  const std::int64_t length = 90;
  HostI32 tokens = random_integers<std::int32_t>({3, length}, "tokens", 0, 6);
  const std::vector<double> whole = expected_rows(tokens, 3, length, 3, 2, 40, 3);
  HostI32 history = poisoned<std::int32_t>({3, length + 2}), documents = poisoned<std::int32_t>({2, 3, length + 2});
  std::int64_t past = 0;
  for (const std::int64_t count : {1, 1, 40, 2, 46}) {
    HostI32 part({3, count}), found = poisoned<std::int32_t>({3, count});
    for (std::int64_t i = 0; i < part.size(); ++i) part[i] = tokens[i / count * length + past + i % count];
    backend->run(FindDocuments{.documents = documents, .tokens = part, .end_of_text = 3, .past = past});
    backend->run(NgramRows{.rows = found,
                           .tokens = part,
                           .history = history,
                           .documents = documents,
                           .past = past,
                           .order = 3,
                           .table = 2,
                           .table_rows = 40});
    for (std::int64_t i = 0; i < found.size(); ++i)
      ASSERT_EQ(found[i], whole[static_cast<std::size_t>(i / count * length + past + i % count)]) << past << " " << i;
    past += count;
  }
}

TEST_F(OpTest, NgramRowsSpreadPairsEvenly) {
  // 40,000 different pairs of small ids over 1,000 rows: 40 a row by chance, standard deviation 6.3; beyond 8 deviations a
  // fair hash has a row with probability 1e-12.
  const std::int64_t pairs = 40'000, rows = 1000;
  HostI32 tokens({pairs, 2}), found({pairs, 2});
  for (std::int64_t i = 0; i < pairs; ++i) {
    tokens[2 * i] = static_cast<std::int32_t>(i / 200);
    tokens[2 * i + 1] = static_cast<std::int32_t>(i % 200);
  }
  for (const int table : {0, 1}) {
    backend->run(NgramRows{.rows = found, .tokens = tokens, .order = 2, .table = table, .table_rows = rows});
    std::vector<int> met(rows, 0);
    for (std::int64_t i = 0; i < pairs; ++i) ++met[static_cast<std::size_t>(found[2 * i + 1])];
    for (const int count : met) EXPECT_NEAR(count, 40, 51);
    double squares = 0;  // chi-square of 999 degrees of freedom: 999 +- 45
    for (const int count : met) squares += (count - 40.0) * (count - 40.0) / 40.0;
    EXPECT_NEAR(squares, 999, 8 * 45);
  }
}

}  // namespace
}  // namespace vqlm::testing
