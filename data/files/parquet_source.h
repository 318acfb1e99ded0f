// Text in Parquet files, as JSON lines: read by a process of its own, Python with pyarrow, since Debian 12 has no Arrow library
// for C++.
#pragma once

#include <memory>
#include <string>

#include "data/files/byte_source.h"

namespace vqlm {

/// Tells by the file's first bytes.
bool is_parquet(const std::string& path);

/// The rows of a column as lines {"column": value}, in the file's order; a value that is no text is null. The process is
/// $VQLM_PYTHON, or python3, and ends with the source. read() throws Error naming the file where the process cannot be
/// started, has no pyarrow, finds no such column (the message lists those there are), or finds the file damaged.
std::unique_ptr<ByteSource> open_parquet(const std::string& path, const std::string& column);

}  // namespace vqlm
