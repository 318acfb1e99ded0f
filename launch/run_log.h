// run.log: what a run says goes into its folder, too, whatever becomes of the terminal.
#pragma once

#include <filesystem>
#include <memory>

namespace spdlog::sinks {
class sink;
}

namespace vqlm {

/// Keeps what the program logs from here on until it is known where it belongs: after configure_logging(), one at a time.
class RunLog {
 public:
  RunLog();
  RunLog(const RunLog&) = delete;
  RunLog& operator=(const RunLog&) = delete;
  ~RunLog();

  /// Appends the lines kept, and every later one, to the file; before them one line with the program's version and the
  /// command line, and `job`. A file that cannot be written is a warning: the run is worth more.
  void begin(const std::filesystem::path& file, const std::string& job);
  /// A line for the file alone, once it has begun: the error that ends the run, which is printed elsewhere.
  void note(const std::string& error);

 private:
  std::shared_ptr<spdlog::sinks::sink> kept_, written_;
};

}  // namespace vqlm
