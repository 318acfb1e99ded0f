// SHA-256 of files and strings: how shards name their sources and their tokenizer.
#pragma once

#include <string>
#include <string_view>

namespace vqlm {

/// Lower-case hex, 64 digits.
std::string sha256_of(std::string_view bytes);

/// The same of a file's contents, read in pieces of 1 MiB. Throws Error naming a file that cannot be read.
std::string sha256_of_file(const std::string& path);

}  // namespace vqlm
