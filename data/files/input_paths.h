// Which files a path or a shell pattern of the user names.
#pragma once

#include <string>
#include <vector>

namespace vqlm {

/// The files that a path or a shell pattern names, in name order (by bytes). A path that exists is that file, whatever
/// brackets it holds; what does not exist is a pattern, after expand_home. Throws Error naming the pattern where nothing
/// matches, and a pipe, socket or device among the files.
std::vector<std::string> expand_glob(const std::string& pattern);

}  // namespace vqlm
