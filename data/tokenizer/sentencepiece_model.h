// Reads what the SentencePiece library does not tell about a model from the model file itself. It is a
// protocol buffer (https://protobuf.dev/programming-guides/encoding) of the message ModelProto in
// sentencepiece_model.proto.
#pragma once

#include <string>
#include <string_view>

#include "data/tokenizer/tokenizer.h"

namespace vqlm {

/// The traits of a model file's bytes. Throws Error (beginning with `name`) where they are no protocol
/// buffer.
TokenizerTraits tokenizer_traits(std::string_view model, const std::string& name);

/// The model with the space in front of the text switched off, everything else the same.
std::string without_dummy_prefix(std::string_view model);

}  // namespace vqlm
