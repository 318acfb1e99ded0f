#include "data/tokenizer/tokenizer.h"

#include <sentencepiece_processor.h>
#include <spdlog/fmt/fmt.h>

#include "core/error.h"
#include "data/files/atomic_file.h"
#include "data/files/sha256.h"
#include "data/tokenizer/sentencepiece_model.h"

namespace vqlm {

struct Tokenizer::Processor {
  sentencepiece::SentencePieceProcessor model;
  /// Is the same model without the space that it puts in front; unused where it puts none.
  sentencepiece::SentencePieceProcessor model_without_prefix;
};

namespace {

void load_model(sentencepiece::SentencePieceProcessor& processor, const std::string& model, const std::string& name) {
  // The library takes an empty file for a valid message.
  if (model.empty()) throw Error(fmt::format("{}: is empty, not a SentencePiece model", name));
  const auto status = processor.LoadFromSerializedProto(model);
  if (!status.ok()) {
    throw Error(fmt::format("{}: is not a SentencePiece model: {}; give the .model file", name, status.message()));
  }
}

void encode_with(const sentencepiece::SentencePieceProcessor& processor, std::string_view text,
                 std::vector<std::uint32_t>& ids) {
  std::vector<int> encoded;
  const auto status = processor.Encode(text, &encoded);
  if (!status.ok()) {
    throw Error(fmt::format("the tokenizer failed on a text of {} bytes: {}", text.size(), status.message()));
  }
  ids.insert(ids.end(), encoded.begin(), encoded.end());
}

}  // namespace

Tokenizer::Tokenizer() : processor_(std::make_unique<Processor>()) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

Tokenizer Tokenizer::load(const std::string& path) {
  return from_bytes(read_file(path), path);
}

Tokenizer Tokenizer::from_bytes(std::string model, const std::string& name) {
  Tokenizer tokenizer;
  // Looked at first: the library logs a parse error of its own where the bytes are no protocol buffer.
  tokenizer.traits_ = tokenizer_traits(model, name);
  load_model(tokenizer.processor_->model, model, name);
  if (tokenizer.traits_.dummy_prefix) {
    load_model(tokenizer.processor_->model_without_prefix, without_dummy_prefix(model), name);
  }
  if (tokenizer.processor_->model.eos_id() < 0) {
    throw Error(
        fmt::format("{}: the model has no end-of-text piece (eos_id is -1), which must close every document; "
                    "train it with eos_id >= 0 or use --train-tokenizer",
                    name));
  }
  tokenizer.sha256_ = sha256_of(model);
  tokenizer.bytes_ = std::move(model);
  return tokenizer;
}

std::int64_t Tokenizer::vocab_size() const {
  return processor_->model.GetPieceSize();
}
std::int32_t Tokenizer::eos_id() const {
  return processor_->model.eos_id();
}

void Tokenizer::encode(std::string_view text, std::vector<std::uint32_t>& ids) const {
  encode_with(processor_->model, text, ids);
}

void Tokenizer::encode_without_prefix(std::string_view text, std::vector<std::uint32_t>& ids) const {
  encode_with(traits_.dummy_prefix ? processor_->model_without_prefix : processor_->model, text, ids);
}

std::string Tokenizer::decode(std::span<const std::int32_t> ids) const {
  for (const std::int32_t id : ids) {
    if (id < 0 || id >= vocab_size()) {
      throw Error(fmt::format("token {} is outside the tokenizer's vocabulary of {}", id, vocab_size()));
    }
  }
  std::string text;
  const auto status = processor_->model.Decode(std::vector<int>(ids.begin(), ids.end()), &text);
  if (!status.ok()) throw Error(fmt::format("the tokenizer cannot decode: {}", status.message()));
  return text;
}

const std::string& Tokenizer::piece(std::int32_t id) const {
  return processor_->model.IdToPiece(id);
}

bool Tokenizer::is_text_piece(std::int32_t id) const {
  const auto& model = processor_->model;
  return !model.IsControl(id) && !model.IsUnknown(id) && !model.IsByte(id);
}

}  // namespace vqlm
