// Errors of the user's world (files, configuration, machines) are exceptions whose message names the thing, its value
// and the way out; errors of our own making are assertions. Nothing here depends on a formatting library, so CUDA
// sources may include it; callers write `throw Error(fmt::format("...", ...))`.
#pragma once

#include <stdexcept>
#include <string>

namespace vqlm {

/// Something the user can mend: exit code 1.
class Error : public std::runtime_error {
 public:
  explicit Error(const std::string& message, int exit_code = 1) : std::runtime_error(message), exit_code_(exit_code) {}

  /// The process' exit code: 1 failed, 2 bad usage, 130 stopped by a signal. (A training that is to be continued is
  /// no error: 75.)
  int exit_code() const { return exit_code_; }

 private:
  int exit_code_;
};

/// A wrong option, key or value on the command line or in a configuration file: exit code 2.
class UsageError : public Error {
 public:
  explicit UsageError(const std::string& message) : Error(message, 2) {}
};

[[noreturn]] void assertion_failed(const char* condition, const char* file, int line);

}  // namespace vqlm

/// Checks an invariant of the program itself in every build type; a failure prints the place and aborts.
#define VQLM_ASSERT(condition) \
  ((condition) ? static_cast<void>(0) : ::vqlm::assertion_failed(#condition, __FILE__, __LINE__))
