// SHA-256 of files and strings: how shards name their sources and their tokenizer.
#pragma once

#include <string>
#include <string_view>

namespace vqlm {

/// Returns the hash in lower-case hex, 64 digits.
std::string sha256_of(std::string_view bytes);

/// Hashes a file's contents, read in pieces of 1 MiB. Throws Error naming a file that cannot be read.
std::string sha256_of_file(const std::string& path);

}  // namespace vqlm
