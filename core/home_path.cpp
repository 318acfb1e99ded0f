#include "core/home_path.h"

#include <cstdlib>
#include <filesystem>

namespace vqlm {

std::string expand_home(const std::string& path) {
  const char* home = std::getenv("HOME");
  std::error_code unreadable;
  if (home == nullptr || !path.starts_with('~') || (path.size() > 1 && path[1] != '/')) return path;
  return std::filesystem::exists(path, unreadable) ? path : home + path.substr(1);
}

}  // namespace vqlm
