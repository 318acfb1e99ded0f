// The end of writing a file that must be whole or absent.
#pragma once

#include <string>

namespace vqlm {

/// Makes the closed file `partial` durable, renames it to `path` and makes the folder durable. Throws Error naming the
/// file.
void publish_file(const std::string& partial, const std::string& path);

}  // namespace vqlm
