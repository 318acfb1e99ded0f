// Byte-level BPE as Hugging Face's `tokenizers` does it (GPT-2's family): added tokens are found, the text between them is
// normalized and cut into words by regular expressions, and the bytes of each word are merged to tokens.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "data/tokenizer/added_tokens.h"
#include "data/tokenizer/bpe_merges.h"
#include "data/tokenizer/pattern_rewrite.h"
#include "data/tokenizer/tokenizer_model.h"

namespace vqlm {

/// One step of the pre-tokenizer: every piece so far is cut again.
struct WordCut {
  bool prefix_space = false;                // first a space is put in front of a piece that begins with none
  std::optional<RewrittenPattern> pattern;  // none leaves pieces whole
};

enum class Normalization { none, nfc };

/// What a tokenizer.json says.
struct ByteLevelSpec {
  std::unordered_map<std::string, std::int32_t> vocabulary;  // tokens in byte_characters()
  std::vector<BpeMerges::Merge> merges;
  BpeMerges::WholeWords whole = BpeMerges::WholeWords::by_merges;
  std::vector<AddedToken> added;
  Normalization normalization = Normalization::none;
  std::vector<WordCut> cuts;
  std::optional<std::int32_t> begin_id;  // what the post-processor puts in front of a text
};

/// The tokenizer of a spec; `name` begins its messages. Throws Error for a pattern that PCRE2 refuses.
std::unique_ptr<TokenizerModel> make_byte_level_bpe(ByteLevelSpec spec, const std::string& name);

}  // namespace vqlm
