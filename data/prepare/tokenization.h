// Tokenization: the inputs of `vqlm prepare` become ids, text by a tokenizer, or they are ids already.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "data/prepare/encode_pipeline.h"
#include "data/prepare/prepare_folder.h"
#include "data/prepare/prepare_options.h"
#include "data/shards/token_shards.h"

namespace vqlm {

class Tokenization {
 public:
  virtual ~Tokenization() = default;

  /// Called once, with the folder locked and free of what --force removes, before what follows. Returns what the shards
  /// say about their ids, without sources.
  virtual ShardMeta begin(const std::vector<PrepareInput>& inputs, const PrepareFolder& folder) = 0;
  /// Puts the tokenizer's files beside the shards; returns the path of the file or folder for the report.
  virtual std::string write_files(const PrepareFolder& folder) = 0;
  /// Returns the hash that tells whether an input has changed.
  virtual std::string sha256_of_input(const std::string& path) const = 0;
  /// An input's documents, without the numbers in `skip` (in rising order). One at a time may be open.
  virtual std::unique_ptr<RecordBatches> open(const std::string& path, std::vector<RecordRange> skip) = 0;
};

/// Loads the tokenizer that the options name, so that a later --force may remove the folder it lies in. Throws Error for
/// one that cannot be read. The options must outlive the result.
std::unique_ptr<Tokenization> make_tokenization(const PrepareOptions& options);

/// Make the tokenization of text (data/prepare/text_tokenization.cpp) and of ids (data/prepare/id_tokenization.cpp).
std::unique_ptr<Tokenization> make_text_tokenization(const PrepareOptions& options);
std::unique_ptr<Tokenization> make_id_tokenization(const PrepareOptions& options);

}  // namespace vqlm
