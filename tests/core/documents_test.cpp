#include <gtest/gtest.h>

#include "tests/core/attention_documents.h"

namespace vqlm::testing {
namespace {

TEST_F(OpTest, FindDocumentsCutsBehindTheEndingToken) {
  HostI32 tokens({2, 6}), documents = poisoned<std::int32_t>({2, 2, 6});
  const std::int32_t ids[] = {5, 9, 1, 9, 9, 4, 9, 2, 3, 4, 5, 9};
  for (std::int64_t i = 0; i < 12; ++i) tokens[i] = ids[i];
  backend->run(FindDocuments{.documents = documents, .tokens = tokens, .end_of_text = 9});
  const double expected[] = {0, 0, 2, 2, 4, 5, 0, 1, 1, 1, 1, 1, 2, 2, 4, 4, 5, 6, 1, 6, 6, 6, 6, 6};
  expect_close(documents, {std::begin(expected), std::end(expected)}, 0.0, "documents");
}

TEST_F(OpTest, FindDocumentsGoesOnInParts) {
  const std::int64_t length = 90;
  HostI32 tokens = random_integers<std::int32_t>({3, length}, "tokens", 0, 6),
          whole = poisoned<std::int32_t>({2, 3, length});
  backend->run(FindDocuments{.documents = whole, .tokens = tokens, .end_of_text = 3});
  HostI32 parts = poisoned<std::int32_t>({2, 3, length + 1});
  std::int64_t past = 0;
  for (const std::int64_t count : {1, 40, 2, 47}) {
    HostI32 part({3, count});
    for (std::int64_t i = 0; i < part.size(); ++i) part[i] = tokens[i / count * length + past + i % count];
    backend->run(FindDocuments{.documents = parts, .tokens = part, .end_of_text = 3, .past = past});
    past += count;
  }
  for (std::int64_t i = 0; i < 3 * length; ++i)
    ASSERT_EQ(parts[i / length * (length + 1) + i % length], whole[i]) << "first position of " << i;
}

}  // namespace
}  // namespace vqlm::testing
