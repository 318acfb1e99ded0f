#include "launch/signals.h"

#include <spdlog/fmt/fmt.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <ctime>
#include <initializer_list>

#include "core/error.h"

namespace vqlm {
namespace {

sigset_t set_of(std::initializer_list<int> signals) {
  sigset_t set;
  bool built = ::sigemptyset(&set) == 0;
  for (int signal : signals) built = built && ::sigaddset(&set, signal) == 0;
  VQLM_ASSERT(built);
  return set;
}

sigset_t stop_signals() {
  return set_of({SIGTERM, SIGUSR1, SIGINT});
}

void change_mask(int how, const sigset_t& set) {
  const int failure = ::pthread_sigmask(how, &set, nullptr);
  if (failure != 0) throw Error(fmt::format("cannot change the signal mask: {}", std::strerror(failure)));
}

/// Takes one of the signals if it waits, without waiting for it.
bool take_stop_signal() {
  const sigset_t set = stop_signals();
  const timespec at_once{};
  return ::sigtimedwait(&set, nullptr, &at_once) > 0;  // -1 with EAGAIN: none
}

}  // namespace

void block_stop_signals() {
  change_mask(SIG_BLOCK, stop_signals());
}

void unblock_stop_signals() {
  change_mask(SIG_UNBLOCK, stop_signals());
}

std::function<bool()> catch_stop_signals() {
  block_stop_signals();
  // Beyond `ulimit -f` a write should fail like one on a full disk, not end the process.
  if (::signal(SIGXFSZ, SIG_IGN) == SIG_ERR)
    throw Error(fmt::format("cannot ignore SIGXFSZ: {}", std::strerror(errno)));
  return [stopped = false]() mutable {
    if (!stopped && take_stop_signal()) {
      stopped = true;
      while (take_stop_signal()) {  // several at once ask for one stop
      }
      change_mask(SIG_UNBLOCK, set_of({SIGINT}));
    }
    return stopped;
  };
}

}  // namespace vqlm
