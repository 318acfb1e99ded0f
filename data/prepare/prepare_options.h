// The options of `vqlm prepare`.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "data/tokenizer/tokenizer.h"

namespace vqlm {

/// Inputs that are arrays of ids (data/prepare/token_arrays.h) instead of text.
struct TokenInputs {
  std::int64_t vocab_size = 0;         // 0: the tokenizer files'
  std::optional<std::int64_t> eos_id;  // ends a document, where the file itself does not tell them apart
  std::string tokenizer_files;         // a folder; "" for none
  std::string dtype = {};              // of files without a header, as NumPy names it: uint16; "": headers tell
};

struct PrepareOptions {
  std::vector<std::string> inputs;                    // paths or shell patterns
  std::vector<std::string> heldout_inputs;            // all of these goes to the held-out split
  std::string tokenizer;                              // a file or a folder for Tokenizer::open, or
  std::int64_t train_tokenizer = 0;                   // the vocabulary size of one to train
  TokenizerKind kind = TokenizerKind::sentencepiece;  // of the one to train
  std::optional<std::int64_t> eos_id;  // with `tokenizer`: ends a document, in place of what its files say
  std::optional<TokenInputs> ids;      // the inputs are ids, and there is no tokenizer to run
  std::string out;
  double heldout = 0.005;  // fraction of the documents of `inputs`, chosen by a hash of (seed, text or ids)
  std::uint64_t seed = 0;
  std::uint64_t shard_tokens = std::uint64_t{256} << 20;  // a C4 file of 360,000 documents has about 190 M
  std::uint64_t max_bad_lines = 100;
  std::string text_field = "text";
  std::string documents = {};  // where plain text is cut (text_reader.h); "": by blank lines or end marks
  int jobs = 1;
  bool force = false;  // remove the shards of other inputs and options that are in `out`
};

/// Throws UsageError for options that make no sense.
void check(const PrepareOptions& options);

}  // namespace vqlm
