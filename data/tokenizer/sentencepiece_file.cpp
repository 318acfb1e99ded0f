#include "data/tokenizer/sentencepiece_file.h"

#include <spdlog/fmt/fmt.h>

#include <bit>
#include <cstring>

#include "core/error.h"
#include "data/tokenizer/protobuf.h"
#include "data/tokenizer/sentencepiece_fields.h"

namespace vqlm {

namespace {

static_assert(std::endian::native == std::endian::little);  // the file's order

namespace fields = sentencepiece_fields;

SentencePieceFile::Piece read_piece(ProtobufMessage message) {
  SentencePieceFile::Piece piece;
  while (message.next()) {
    if (message.field == fields::piece_text) piece.text = message.contents;
    if (message.field == fields::piece_score && message.contents.size() == sizeof(float))
      std::memcpy(&piece.score, message.contents.data(), sizeof(float));
    if (message.field == fields::piece_type) piece.type = static_cast<SentencePieceFile::Type>(message.number);
  }
  return piece;
}

void read_trainer(ProtobufMessage message, SentencePieceFile& file, std::uint64_t& kind) {
  while (message.next()) {
    if (message.field == fields::trainer_model_type) kind = message.number;
    if (message.field == fields::trainer_byte_fallback) file.byte_fallback = message.number != 0;
    if (message.field == fields::trainer_whitespace_as_suffix) file.whitespace_as_suffix = message.number != 0;
    if (message.field == fields::trainer_eos_piece) file.end_piece = message.contents;
  }
}

void read_normalizer(ProtobufMessage message, SentencePieceFile& file) {
  while (message.next()) {
    if (message.field == fields::normalizer_charsmap) file.charsmap = message.contents;
    if (message.field == fields::normalizer_dummy_prefix) file.dummy_prefix = message.number != 0;
    if (message.field == fields::normalizer_remove_extra_whitespaces)
      file.remove_extra_whitespaces = message.number != 0;
  }
}

std::string trainer_of(const SentencePieceFile& file) {
  ProtobufWriter trainer;
  trainer.number(fields::trainer_model_type, file.bpe ? fields::bpe : fields::unigram);
  trainer.number(fields::trainer_whitespace_as_suffix, file.whitespace_as_suffix ? 1 : 0);
  trainer.number(fields::trainer_byte_fallback, file.byte_fallback ? 1 : 0);
  trainer.number(fields::trainer_bos_id, ~std::uint64_t{0});  // -1: nothing begins a text
  for (std::size_t id = 0; id < file.pieces.size(); ++id) {
    const SentencePieceFile::Piece& piece = file.pieces[id];
    if (piece.type == SentencePieceFile::Type::unknown) {
      trainer.number(fields::trainer_unk_id, id);
      trainer.contents(fields::trainer_unk_piece, piece.text);
    } else if (piece.text == file.end_piece) {
      trainer.number(fields::trainer_eos_id, id);
      trainer.contents(fields::trainer_eos_piece, piece.text);
    }
  }
  return trainer.bytes();
}

}  // namespace

SentencePieceFile read_sentencepiece(std::string_view model, const std::string& name) {
  SentencePieceFile file;
  std::uint64_t kind = fields::unigram;
  ProtobufMessage message(model, name);
  while (message.next()) {
    const ProtobufMessage inner(message.contents, name);
    if (message.field == fields::model_pieces) file.pieces.push_back(read_piece(inner));
    if (message.field == fields::model_trainer) read_trainer(inner, file, kind);
    if (message.field == fields::model_normalizer) read_normalizer(inner, file);
  }
  if (kind != fields::unigram && kind != fields::bpe)
    throw Error(
        fmt::format("{}: is a SentencePiece model of words or characters; only BPE and unigram are read", name));
  file.bpe = kind == fields::bpe;
  return file;
}

std::string write_sentencepiece(const SentencePieceFile& file) {
  ProtobufWriter model;
  for (const SentencePieceFile::Piece& piece : file.pieces) {
    ProtobufWriter entry;
    char score[sizeof(float)];
    std::memcpy(score, &piece.score, sizeof(float));
    entry.contents(fields::piece_text, piece.text);
    entry.four_bytes(fields::piece_score, {score, sizeof(float)});
    entry.number(fields::piece_type, static_cast<std::uint64_t>(piece.type));
    model.contents(fields::model_pieces, entry.bytes());
  }
  model.contents(fields::model_trainer, trainer_of(file));
  ProtobufWriter normalizer;
  normalizer.contents(fields::normalizer_name, file.charsmap.empty() ? "identity" : "user_defined");
  normalizer.contents(fields::normalizer_charsmap, file.charsmap);
  normalizer.number(fields::normalizer_dummy_prefix, file.dummy_prefix ? 1 : 0);
  normalizer.number(fields::normalizer_remove_extra_whitespaces, file.remove_extra_whitespaces ? 1 : 0);
  model.contents(fields::model_normalizer, normalizer.bytes());
  return model.bytes();
}

}  // namespace vqlm
