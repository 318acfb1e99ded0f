// One job a run folder: who trains into it holds a lock of the operating system, which a job that dies gives back.
#pragma once

#include <filesystem>
#include <string>

namespace vqlm {

class RunLock {
 public:
  /// Locks `folder`/run.lock and writes `holder` (one line: host, process, start, batch job) into it, for the message that
  /// a second job gets. On a file system without locks a warning says that nothing guards the folder. Throws Error with the
  /// holder's line where another job has it, and where the file cannot be made.
  RunLock(const std::filesystem::path& folder, const std::string& holder);
  RunLock(const RunLock&) = delete;
  RunLock& operator=(const RunLock&) = delete;
  /// Gives the lock back; the file stays, for removing it would let two jobs lock two files.
  ~RunLock();

 private:
  int descriptor_ = -1;
};

}  // namespace vqlm
