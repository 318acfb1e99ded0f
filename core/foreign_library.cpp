#include "core/foreign_library.h"

#include <dlfcn.h>
#include <spdlog/fmt/fmt.h>

#include <utility>

#include "core/error.h"

namespace vqlm {

ForeignLibrary::ForeignLibrary(const std::vector<std::string>& paths, std::string way_out)
    : name_(paths.front()), way_out_(std::move(way_out)) {
  for (const std::string& path : paths) {
    handle_ = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle_ != nullptr) return;
  }
  throw Error(fmt::format("{}: {}; {}", name_, ::dlerror(), way_out_));
}

void* ForeignLibrary::find(const char* name) const {
  void* const function = ::dlsym(handle_, name);
  if (function == nullptr) throw Error(fmt::format("{}: has no {} ({}); {}", name_, name, ::dlerror(), way_out_));
  return function;
}

}  // namespace vqlm
