#include "launch/signals.h"

#include <spdlog/fmt/fmt.h>

#include <cerrno>
#include <csignal>
#include <cstring>

#include "core/error.h"
#include "core/log.h"

namespace vqlm {
namespace {

// A signal handler reaches static storage only: the one mutable static of the program.
volatile std::sig_atomic_t stop_requested = 0;

extern "C" void request_stop(int /*signal*/) {
  stop_requested = 1;
}

void install(int signal, int flags) {
  struct sigaction action {};
  action.sa_handler = request_stop;
  action.sa_flags = flags;
  if (::sigemptyset(&action.sa_mask) != 0 || ::sigaction(signal, &action, nullptr) != 0) {
    throw Error(fmt::format("cannot handle signal {}: {}", signal, std::strerror(errno)));
  }
}

}  // namespace

std::function<bool()> catch_stop_signals() {
  install(SIGTERM, SA_RESTART);
  install(SIGUSR1, SA_RESTART);
  install(SIGINT, SA_RESTART | static_cast<int>(SA_RESETHAND));
  return [] { return stop_requested != 0; };
}

void restore_stop_signals() noexcept {
  for (int signal : {SIGTERM, SIGUSR1, SIGINT}) {
    if (std::signal(signal, SIG_DFL) == SIG_ERR)
      log::error("cannot restore signal {}: {}", signal, std::strerror(errno));
  }
}

}  // namespace vqlm
