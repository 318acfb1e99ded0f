// The Python program that writes GGUF files (gguf.h), embedded by CMake from the .py files beside this one; the second part
// goes on where the first ends.
#pragma once

#include <string_view>

namespace vqlm {

extern const std::string_view gguf_vocabulary_py;
extern const std::string_view gguf_writer_py;

}  // namespace vqlm
