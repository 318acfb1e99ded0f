// ForeignLibrary: a shared library that is opened when it is first needed, so that the program starts, and computes on the
// CPU, where it is not installed.
#pragma once

#include <string>
#include <vector>

namespace vqlm {

class ForeignLibrary {
 public:
  /// Opens the first of `paths` that can be opened; a bare name is searched for as the system's loader does. It stays open
  /// until the process ends, because such libraries have threads and handles of their own. Throws Error with the loader's
  /// reason and `way_out`, what the user can do.
  ForeignLibrary(const std::vector<std::string>& paths, std::string way_out);

  /// The address of an exported function. Throws Error where this library has none of that name.
  void* find(const char* name) const;
  /// The same with the type of a declaration of it.
  template <class Function>
  Function* find(Function* /*declaration*/, const char* name) const {
    return reinterpret_cast<Function*>(find(name));
  }

 private:
  std::string name_, way_out_;
  void* handle_ = nullptr;
};

}  // namespace vqlm
