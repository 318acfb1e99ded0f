// ~ in the paths of configurations, which a shell leaves alone behind a '='.
#pragma once

#include <string>

namespace vqlm {

/// The path with a leading "~" or "~/" replaced by the home folder ($HOME). Any other path, one that exists as it is
/// written, and all of them where HOME is not set, stay as they are.
std::string expand_home(const std::string& path);

}  // namespace vqlm
