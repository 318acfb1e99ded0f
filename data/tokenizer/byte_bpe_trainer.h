// Trains byte-level BPE (GPT-2's way) on a sample of documents and writes it as a tokenizer.json.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace vqlm {

/// The bytes of a tokenizer.json of exactly vocab_size tokens, the same for the same documents: <|endoftext|> (id 0), the 256
/// bytes, then merges. Words are GPT-2's (its pattern, no space put in front); the most frequent pair is merged next, of
/// equally frequent ones that with the lower ids. Hugging Face's `tokenizers` and vqlm read it with equal ids. Throws Error
/// where vocab_size has no room for the bytes, or the sample too few different words for it. `trained` is told, where it is one, how many tokens there are.
std::string train_byte_level_bpe(const std::vector<std::string>& documents, std::int64_t vocab_size,
                                 const std::function<void(std::int64_t)>& trained = {});

}  // namespace vqlm
