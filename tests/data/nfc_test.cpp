// NFC of long runs of marks: the same as of short ones, and in a time that does not grow with their square.
#include "data/tokenizer/nfc.h"

#include <gtest/gtest.h>

#include <string>

namespace vqlm {
namespace {

std::string repeated(const std::string& text, int times) {
  std::string all;
  for (int i = 0; i < times; ++i) all += text;
  return all;
}

TEST(Nfc, LongBlocksAreWhatTheirPartsAre) {
  const Nfc nfc;
  std::string storage, long_storage;
  for (const std::string part : {"a\u0308\u0301\u0323", "e\u0316\u0301", "\u1100\u1161\u11A8", "\u212B\u0323"}) {
    const std::string one(nfc.normalized(part, storage));
    EXPECT_NE(one, part);
    EXPECT_EQ(nfc.normalized(repeated(part, 100), long_storage), repeated(one, 100)) << part;
  }
}

// Marks below come before marks above, the first of which joins its letter; 800,000 exchanged one by one take minutes.
TEST(Nfc, AnEndlessRunOfMarksIsPutInOrder) {
  const Nfc nfc;
  std::string storage;
  constexpr int times = 400'000;
  const std::string normal(nfc.normalized("e" + repeated("\u0301\u0316", times), storage));
  EXPECT_EQ(normal, "\u00E9" + repeated("\u0316", times) + repeated("\u0301", times - 1));
}

}  // namespace
}  // namespace vqlm
