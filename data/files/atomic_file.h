// Files that are either the old one or the whole new one, whatever happens in between.
#pragma once

#include <string>
#include <string_view>

namespace vqlm {

/// The suffix of files that are being written; what carries it after a crash may be removed.
constexpr std::string_view partial_suffix = ".partial";

/// Writes PATH.partial, fsync, rename to PATH, fsync of the folder; a pipe or device is written as it is. Throws Error
/// naming the file; nothing of it is left then.
void write_file_atomically(const std::string& path, std::string_view contents);

/// The end of writing a large file: makes the closed file `partial` durable, renames it to `path` and makes the folder
/// durable. Throws Error naming the file.
void publish_file(const std::string& partial, const std::string& path);

/// fsync of a file or folder. Throws Error naming it.
void sync_to_disk(const std::string& path);

/// The contents of a file. Throws Error naming one that cannot be read.
std::string read_file(const std::string& path);

}  // namespace vqlm
