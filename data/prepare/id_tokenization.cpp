// Inputs that are ids already (tokenization.h).
#include <spdlog/fmt/fmt.h>
#include <xxhash.h>

#include <filesystem>

#include "core/error.h"
#include "core/log.h"
#include "data/files/atomic_file.h"
#include "data/files/little_endian.h"
#include "data/files/sha256.h"
#include "data/prepare/token_arrays.h"
#include "data/prepare/tokenization.h"
#include "data/tokenizer/tokenizer_files.h"

namespace vqlm {

namespace {

// A batch has about as many ids as the text's batches of 1 MiB.
constexpr std::size_t batch_ids = std::size_t{256} << 10;

/// The documents of a file of ids as records.
class IdBatches : public RecordBatches {
 public:
  IdBatches(const std::string& path, std::vector<RecordRange> skip, const ShardMeta& meta, const HeldoutRule& heldout,
            const std::string& dtype)
      : documents_(path, meta.vocab_size, eos_of(meta), dtype),
        skip_(std::move(skip)),
        eos_(eos_of(meta)),
        heldout_(heldout) {}

  bool next(EncodedBatch& batch) override {
    batch = EncodedBatch{};
    while (batch.tokens.size() < batch_ids && documents_.next(ids_)) {
      const std::uint64_t index = next_index_++;
      while (next_skip_ < skip_.size() && index >= skip_[next_skip_].end) ++next_skip_;
      if (next_skip_ < skip_.size() && index >= skip_[next_skip_].begin) continue;
      EncodedRecord record;
      record.index = index;
      record.good = true;
      record.heldout = holds_out();
      record.token_count = ids_.size();
      batch.records.push_back(record);
      batch.tokens.insert(batch.tokens.end(), ids_.begin(), ids_.end());
    }
    batch.file_bytes_read = documents_.file_bytes_read();
    return !batch.records.empty();
  }

 private:
  static std::optional<std::uint32_t> eos_of(const ShardMeta& meta) {
    if (meta.eos_id == no_eos) return std::nullopt;
    return static_cast<std::uint32_t>(meta.eos_id);
  }

  /// Decides by the ids without the closing end of text, which the last document of a file may lack.
  bool holds_out() const {
    static_assert(std::endian::native == std::endian::little);  // else another choice than on other machines
    const std::size_t n = ids_.size() - (eos_ && ids_.back() == *eos_ ? 1 : 0);
    return heldout_.holds_out({reinterpret_cast<const char*>(ids_.data()), n * sizeof(std::uint32_t)});
  }

  TokenDocuments documents_;
  std::vector<RecordRange> skip_;
  std::optional<std::uint32_t> eos_;
  HeldoutRule heldout_;
  std::size_t next_skip_ = 0;
  std::uint64_t next_index_ = 0;
  std::vector<std::uint32_t> ids_;
};

class IdTokenization : public Tokenization {
 public:
  explicit IdTokenization(const PrepareOptions& options)
      : heldout_{options.heldout, options.seed}, dtype_(options.ids->dtype) {
    const TokenInputs& inputs = *options.ids;
    if (!inputs.tokenizer_files.empty()) read_tokenizer(inputs.tokenizer_files);
    const std::int64_t own = tokenizer_vocab_size_;
    if (inputs.vocab_size != 0 && inputs.vocab_size < own) {
      // Added tokens may lie beyond the model's matrix ({"<pad>": 32000} beside 32,000 rows); every id is checked anyway.
      log::warn("--vocab-size {}: the tokenizer in {} has ids up to {}; those from {} on must not occur in the ids",
                inputs.vocab_size, inputs.tokenizer_files, own - 1, inputs.vocab_size);
    }
    meta_.vocab_size = inputs.vocab_size != 0 ? inputs.vocab_size : own;
    if (inputs.eos_id.value_or(0) >= meta_.vocab_size) {
      throw UsageError(fmt::format("--eos {}: is outside the vocabulary [0, {}); give the id that ends the documents",
                                   *inputs.eos_id, meta_.vocab_size));
    }
    meta_.eos_id = static_cast<std::int32_t>(inputs.eos_id.value_or(no_eos));
    meta_.text_bytes_known = false;
  }

  ShardMeta begin(const std::vector<PrepareInput>& inputs, const PrepareFolder&) override {
    require_ends(inputs);
    return meta_;
  }

  std::string write_files(const PrepareFolder& folder) override {
    for (const auto& [name, bytes] : files_) write_file_atomically(folder.file(name), bytes);
    return files_.empty() ? "none" : folder.file(files_[0].first);
  }

  /// Hashes both files of a Megatron-LM pair: the index cuts the documents. Raw ids of another type are other ids.
  std::string sha256_of_input(const std::string& path) const override {
    const std::string data = sha256_of_file(path);
    if (!dtype_.empty()) return sha256_of(data + dtype_);
    const std::string index = megatron_index_beside(path);
    return index.empty() ? data : sha256_of(data + sha256_of_file(index));
  }

  std::unique_ptr<RecordBatches> open(const std::string& path, std::vector<RecordRange> skip) override {
    return std::make_unique<IdBatches>(path, std::move(skip), meta_, heldout_, dtype_);
  }

 private:
  /// An end of text that no file has is another tokenizer's: all of a file would be one document, and the held-out split
  /// empty or everything. The files are read as far as the first end, so in vain only where there is none.
  void require_ends(const std::vector<PrepareInput>& inputs) const {
    if (meta_.eos_id == no_eos) return;
    const auto eos = static_cast<std::uint32_t>(meta_.eos_id);
    std::size_t looked_at = 0;
    std::vector<std::uint32_t> ids;
    for (const PrepareInput& input : inputs) {
      if (dtype_.empty() && !megatron_index_beside(input.path).empty()) continue;  // its index tells the documents
      ++looked_at;
      TokenDocuments documents(input.path, meta_.vocab_size, eos, dtype_);
      while (documents.next(ids)) {
        if (ids.back() == eos) return;
      }
    }
    if (looked_at == 0) return;
    throw Error(fmt::format(
        "--eos {}: this id occurs in none of the {} files of ids, so no document would end; give the id that the ids' "
        "tokenizer ends a text with (its eos_token), or leave --eos out: then every {} ids count as a document",
        meta_.eos_id, looked_at, TokenDocuments::ids_without_ends));
  }

  void read_tokenizer(const std::string& folder) {
    meta_.tokenizer_sha256 = tokenizer_identity(folder);
    if (meta_.tokenizer_sha256.empty()) {
      throw Error(
          fmt::format("{}: holds none of tokenizer.model, tokenizer.json and vocab.json; give the folder of a "
                      "tokenizer to --tokenizer-files, or leave the option out",
                      folder));
    }
    tokenizer_vocab_size_ = tokenizer_vocab_size(folder);
    for (const auto& path : tokenizer_files(folder)) {
      files_.emplace_back(path.filename().string(), read_file(path.string()));
    }
  }

  HeldoutRule heldout_;
  std::string dtype_;
  ShardMeta meta_;
  std::int64_t tokenizer_vocab_size_ = 0;
  std::vector<std::pair<std::string, std::string>> files_;  // names and contents
};

}  // namespace

std::unique_ptr<Tokenization> make_id_tokenization(const PrepareOptions& options) {
  return std::make_unique<IdTokenization>(options);
}

}  // namespace vqlm
