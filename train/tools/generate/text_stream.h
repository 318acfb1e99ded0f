// Text of tokens that come one by one, printed as far as it is certain.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "data/tokenizer/tokenizer.h"

namespace vqlm {

/// A token's text depends on its neighbours: a space in front of the first word is dropped, and one character may be
/// several byte pieces. So the text of a token is what it adds to the text of those before it, and is held back while it ends
/// inside a character.
class TextStream {
 public:
  /// The text goes on from `before` (a prompt's tokens). The tokenizer must outlive the stream.
  TextStream(const Tokenizer& tokenizer, const std::vector<std::int32_t>& before);

  /// What can be printed after this token; may be empty.
  std::string push(std::int32_t token);
  /// What was held back: bytes that did not become a character.
  std::string finish();

 private:
  /// What the window's text adds to what was printed; nothing where it may still change and `last` is false.
  std::string take(bool last);
  /// Leaves out tokens that can no longer matter.
  void shorten();

  const Tokenizer& tokenizer_;
  std::vector<std::int32_t> window_;  // the last tokens, starting with one that shows more than spaces
  std::string printed_;               // of the window's text
};

}  // namespace vqlm
