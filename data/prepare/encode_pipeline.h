// One file's records to tokens with many threads: a reader, `jobs` encoders, and the caller, who gets the results in
// the order of the file, the same for any number of threads.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "data/prepare/document.h"
#include "data/prepare/long_text.h"

namespace vqlm {

/// A document goes to the held-out split where a hash of its text (or of its ids, where there is no text), keyed by seed,
/// is below `fraction` of all hashes: the choice depends on nothing else, and copies of a document stay on one side.
struct HeldoutRule {
  double fraction = 0;  // 0: none, 1: all
  std::uint64_t seed = 0;

  bool holds_out(std::string_view text) const;
};

/// A record as ids, or why it has none.
struct EncodedRecord {
  std::uint64_t index = 0;  // of the record in its file, from 0
  std::uint64_t line = 0;   // where it begins, from 1
  bool good = false;
  BadRecord reason{};  // where not good
  bool heldout = false;
  std::uint64_t token_count = 0;  // the end-of-text token included
  std::uint64_t text_bytes = 0;
};

struct EncodedBatch {
  std::vector<EncodedRecord> records;
  std::vector<std::uint32_t> tokens;  // of all good records, one after the other
  std::uint64_t file_bytes_read = 0;  // of the file on disk, when the batch had been read
};

/// Record numbers [begin, end).
struct RecordRange {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
};

struct EncodeOptions {
  std::string text_field = "text";
  HeldoutRule heldout;
  std::string documents = {};  // where plain text is cut (text_reader.h)
};

/// The state that one encoding thread keeps from file to file.
struct Encoder {
  Encoder(const Tokenizer& tokenizer, const EncodeOptions& options)
      : text_field(options.text_field),
        eos_id(static_cast<std::uint32_t>(tokenizer.eos_id())),
        texts(tokenizer),
        parser(options.text_field),
        heldout(options.heldout),
        documents(options.documents) {}

  std::string text_field;
  std::uint32_t eos_id;
  LongTextEncoder texts;
  DocumentParser parser;
  HeldoutRule heldout;
  std::string documents;
};

/// One file's records as ids, in the order of the file.
class RecordBatches {
 public:
  virtual ~RecordBatches() = default;

  /// The next batch; false at the end of the file. Throws Error for a file that cannot be read or is damaged.
  virtual bool next(EncodedBatch& batch) = 0;
};

class EncodePipeline : public RecordBatches {
 public:
  /// One thread per encoder. Records in `skip` (in rising order) are read over. The encoders must outlive the pipeline
  /// and serve one at a time.
  EncodePipeline(const std::string& path, std::vector<RecordRange> skip, std::vector<Encoder>& encoders);
  ~EncodePipeline() override;
  EncodePipeline(const EncodePipeline&) = delete;
  EncodePipeline& operator=(const EncodePipeline&) = delete;

  /// The next batch; false at the end of the file. Throws what the reader or an encoder threw, in its place.
  bool next(EncodedBatch& batch) override;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace vqlm
