// Files that people give for text, ids or weights and that are something else, told by their first bytes.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace vqlm {

/// As many first bytes of a file as foreign_kind looks at (a tar archive's mark lies at byte 257).
constexpr std::size_t foreign_head_bytes = 512;

/// What a file that begins with `head` is, with the way out, as messages go on after "is ": "a Parquet file; write ...".
/// Empty for text and whatever else is not known.
std::string foreign_kind(std::string_view head);

/// Throws Error where the file is of a kind that foreign_kind knows; not for one that cannot be read.
void refuse_foreign_file(const std::string& path);

}  // namespace vqlm
