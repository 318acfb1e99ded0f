// A Python program that this one carries along, in a process of its own: for formats whose libraries Debian has for Python
// alone.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstddef>
#include <span>
#include <string>
#include <vector>

namespace vqlm {

/// The interpreter is $VQLM_PYTHON, or python3.
class PythonScript {
 public:
  /// Starts it, with sys.argv[1:] = arguments and nothing to read. `refusal`: what an Error says in front of the reason
  /// where the process cannot be started, as "FILE: is a Parquet file, which Python's pyarrow reads".
  PythonScript(const std::string& text, const std::vector<std::string>& arguments, const std::string& refusal);
  /// Ends the process.
  ~PythonScript();
  PythonScript(const PythonScript&) = delete;
  PythonScript& operator=(const PythonScript&) = delete;

  /// Waits until its standard output has something to read, or has ended; false where that takes longer.
  bool wait_for_output(std::chrono::milliseconds longest) const;
  /// Of its standard output; 0 at the end.
  std::size_t read(std::span<char> out);
  /// To be called at the output's end: "" where the process ended well, else the last line of its standard error.
  std::string end();
  bool ended() const { return process_ < 0; }

 private:
  void close_pipes();
  int wait();

  int output_ = -1, complaint_ = -1;  // reading ends
  pid_t process_ = -1;
};

}  // namespace vqlm
