#include "data/tokenizer/sentencepiece_file.h"

#include <spdlog/fmt/fmt.h>

#include <bit>
#include <cstring>

#include "core/error.h"
#include "data/tokenizer/protobuf.h"

namespace vqlm {

namespace {

static_assert(std::endian::native == std::endian::little);  // the file's order

// Field numbers of sentencepiece_model.proto.
constexpr std::uint32_t model_pieces = 1;
constexpr std::uint32_t model_trainer = 2;
constexpr std::uint32_t model_normalizer = 3;
constexpr std::uint32_t piece_text = 1;
constexpr std::uint32_t piece_score = 2;
constexpr std::uint32_t piece_type = 3;
constexpr std::uint32_t trainer_model_type = 3;
constexpr std::uint32_t trainer_whitespace_as_suffix = 24;
constexpr std::uint32_t trainer_byte_fallback = 35;
constexpr std::uint32_t trainer_unk_id = 40;
constexpr std::uint32_t trainer_bos_id = 41;
constexpr std::uint32_t trainer_eos_id = 42;
constexpr std::uint32_t trainer_unk_piece = 45;
constexpr std::uint32_t trainer_eos_piece = 47;
constexpr std::uint32_t normalizer_name = 1;
constexpr std::uint32_t normalizer_charsmap = 2;
constexpr std::uint32_t normalizer_dummy_prefix = 3;
constexpr std::uint32_t normalizer_remove_extra_whitespaces = 4;
constexpr std::uint64_t unigram = 1;
constexpr std::uint64_t bpe = 2;

SentencePieceFile::Piece read_piece(ProtobufMessage message) {
  SentencePieceFile::Piece piece;
  while (message.next()) {
    if (message.field == piece_text) piece.text = message.contents;
    if (message.field == piece_score && message.contents.size() == sizeof(float))
      std::memcpy(&piece.score, message.contents.data(), sizeof(float));
    if (message.field == piece_type) piece.type = static_cast<SentencePieceFile::Type>(message.number);
  }
  return piece;
}

void read_trainer(ProtobufMessage message, SentencePieceFile& file, std::uint64_t& kind) {
  while (message.next()) {
    if (message.field == trainer_model_type) kind = message.number;
    if (message.field == trainer_byte_fallback) file.byte_fallback = message.number != 0;
    if (message.field == trainer_whitespace_as_suffix) file.whitespace_as_suffix = message.number != 0;
    if (message.field == trainer_eos_piece) file.end_piece = message.contents;
  }
}

void read_normalizer(ProtobufMessage message, SentencePieceFile& file) {
  while (message.next()) {
    if (message.field == normalizer_charsmap) file.charsmap = message.contents;
    if (message.field == normalizer_dummy_prefix) file.dummy_prefix = message.number != 0;
    if (message.field == normalizer_remove_extra_whitespaces) file.remove_extra_whitespaces = message.number != 0;
  }
}

std::string trainer_of(const SentencePieceFile& file) {
  ProtobufWriter trainer;
  trainer.number(trainer_model_type, file.bpe ? bpe : unigram);
  trainer.number(trainer_whitespace_as_suffix, file.whitespace_as_suffix ? 1 : 0);
  trainer.number(trainer_byte_fallback, file.byte_fallback ? 1 : 0);
  trainer.number(trainer_bos_id, ~std::uint64_t{0});  // -1: nothing begins a text
  for (std::size_t id = 0; id < file.pieces.size(); ++id) {
    const SentencePieceFile::Piece& piece = file.pieces[id];
    if (piece.type == SentencePieceFile::Type::unknown) {
      trainer.number(trainer_unk_id, id);
      trainer.contents(trainer_unk_piece, piece.text);
    } else if (piece.text == file.end_piece) {
      trainer.number(trainer_eos_id, id);
      trainer.contents(trainer_eos_piece, piece.text);
    }
  }
  return trainer.bytes();
}

}  // namespace

SentencePieceFile read_sentencepiece(std::string_view model, const std::string& name) {
  SentencePieceFile file;
  std::uint64_t kind = unigram;
  ProtobufMessage message(model, name);
  while (message.next()) {
    const ProtobufMessage inner(message.contents, name);
    if (message.field == model_pieces) file.pieces.push_back(read_piece(inner));
    if (message.field == model_trainer) read_trainer(inner, file, kind);
    if (message.field == model_normalizer) read_normalizer(inner, file);
  }
  if (kind != unigram && kind != bpe)
    throw Error(
        fmt::format("{}: is a SentencePiece model of words or characters; only BPE and unigram are read", name));
  file.bpe = kind == bpe;
  return file;
}

std::string write_sentencepiece(const SentencePieceFile& file) {
  ProtobufWriter model;
  for (const SentencePieceFile::Piece& piece : file.pieces) {
    ProtobufWriter entry;
    char score[sizeof(float)];
    std::memcpy(score, &piece.score, sizeof(float));
    entry.contents(piece_text, piece.text);
    entry.four_bytes(piece_score, {score, sizeof(float)});
    entry.number(piece_type, static_cast<std::uint64_t>(piece.type));
    model.contents(model_pieces, entry.bytes());
  }
  model.contents(model_trainer, trainer_of(file));
  ProtobufWriter normalizer;
  normalizer.contents(normalizer_name, file.charsmap.empty() ? "identity" : "user_defined");
  normalizer.contents(normalizer_charsmap, file.charsmap);
  normalizer.number(normalizer_dummy_prefix, file.dummy_prefix ? 1 : 0);
  normalizer.number(normalizer_remove_extra_whitespaces, file.remove_extra_whitespaces ? 1 : 0);
  model.contents(model_normalizer, normalizer.bytes());
  return model.bytes();
}

}  // namespace vqlm
