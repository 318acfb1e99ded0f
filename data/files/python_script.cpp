#include "data/files/python_script.h"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <spdlog/fmt/fmt.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>

#include "core/error.h"

extern char** environ;

namespace vqlm {

namespace {

std::string interpreter() {
  const char* named = std::getenv("VQLM_PYTHON");
  return named != nullptr && *named != '\0' ? named : "python3";
}

/// Reading and writing end, closed on exec but where the child takes one over.
std::array<int, 2> make_pipe(const std::string& refusal) {
  std::array<int, 2> ends{-1, -1};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) {
    throw Error(fmt::format("{}, and no pipe can be made: {}", refusal, std::strerror(errno)));
  }
  return ends;
}

std::size_t read_from(int end, std::span<char> out) {
  ssize_t n = -1;
  do {
    n = ::read(end, out.data(), out.size());
  } while (n < 0 && errno == EINTR);
  return n < 0 ? 0 : static_cast<std::size_t>(n);
}

/// 0, or an errno. The signals that stop a run are blocked here while it works, and must not be there.
int spawn(pid_t& process, const std::vector<const char*>& arguments, int output, int complaint) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, complaint, STDERR_FILENO);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t none;
  ::sigemptyset(&none);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
  const int error =
      ::posix_spawnp(&process, arguments[0], &actions, &attributes, const_cast<char**>(arguments.data()), environ);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  return error;
}

}  // namespace

PythonScript::PythonScript(const std::string& text, const std::vector<std::string>& arguments,
                           const std::string& refusal) {
  const std::array<int, 2> output = make_pipe(refusal);
  std::array<int, 2> complaint;
  try {
    complaint = make_pipe(refusal);
  } catch (...) {
    for (const int end : output) ::close(end);
    throw;
  }
  const std::string python = interpreter();
  std::vector<const char*> words{python.c_str(), "-c", text.c_str()};
  for (const std::string& argument : arguments) words.push_back(argument.c_str());
  words.push_back(nullptr);
  const int error = spawn(process_, words, output[1], complaint[1]);
  for (const int end : {output[1], complaint[1]}) ::close(end);
  output_ = output[0];
  complaint_ = complaint[0];
  if (error == 0) return;
  process_ = -1;
  close_pipes();
  throw Error(fmt::format("{}, and {} cannot be started: {}", refusal, python, std::strerror(error)));
}

PythonScript::~PythonScript() {
  close_pipes();
  if (process_ > 0) {
    ::kill(process_, SIGTERM);
    wait();
  }
}

bool PythonScript::wait_for_output(std::chrono::milliseconds longest) const {
  pollfd end{output_, POLLIN, 0};
  return ::poll(&end, 1, static_cast<int>(longest.count())) > 0;
}

std::size_t PythonScript::read(std::span<char> out) {
  return read_from(output_, out);
}

std::string PythonScript::end() {
  std::string said;
  std::array<char, 4096> piece{};
  while (const std::size_t more = read_from(complaint_, piece)) said.append(piece.data(), more);
  while (said.ends_with('\n')) said.pop_back();
  const int status = wait();
  if (status == 0) return "";
  const std::string last = said.substr(said.rfind('\n') + 1);
  return last.empty() ? fmt::format("Python ended with status {}", status) : last;
}

void PythonScript::close_pipes() {
  for (int* end : {&output_, &complaint_}) {
    if (*end >= 0) ::close(*end);
    *end = -1;
  }
}

int PythonScript::wait() {
  int status = 0;
  while (::waitpid(process_, &status, 0) < 0 && errno == EINTR) {
  }
  process_ = -1;
  return status;
}

}  // namespace vqlm
