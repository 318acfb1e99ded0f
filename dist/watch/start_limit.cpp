#include "dist/watch/start_limit.h"

#include <spdlog/fmt/fmt.h>
#include <spdlog/fmt/ranges.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <utility>
#include <vector>

#include "core/error.h"
#include "dist/watch/network_interfaces.h"

namespace vqlm {
namespace {

std::string interfaces_here() {
  try {
    std::vector<std::string> texts;
    for (const NetworkInterface& one : network_interfaces()) texts.push_back(one.text());
    return texts.empty() ? "none" : fmt::format("{}", fmt::join(texts, ", "));
  } catch (const Error& error) {
    return error.what();
  }
}

[[noreturn]] void end_process(double seconds, const std::string& host, int rank) {
  // Ranks usually fail alike: the first one that ends makes the launcher end the others.
  std::this_thread::sleep_for(std::chrono::milliseconds(50 * std::min(rank, 40)));
  std::fprintf(
      stderr,
      "rank %d: vqlm: error: MPI has not connected the ranks after %g s (VQLM_START_SECONDS), seen on %s, whose network "
      "interfaces are: %s; where hosts have several, choose the one that connects them: launch/mpirun.sh --interface "
      "SUBNET (10.1.0.0/16) or NAME; without a network between them check ssh, firewalls and names\n",
      rank, seconds, host.c_str(), interfaces_here().c_str());
  std::fflush(nullptr);
  std::_Exit(1);
}

}  // namespace

StartLimit::StartLimit(double seconds, std::string host, int rank) {
  if (seconds <= 0) return;
  thread_ = std::thread([this, seconds, host = std::move(host), rank] {
    std::unique_lock lock(mutex_);
    if (!ended_.wait_for(lock, std::chrono::duration<double>(seconds), [this] { return end_; }))
      end_process(seconds, host, rank);
  });
}

StartLimit::~StartLimit() {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    end_ = true;
  }
  ended_.notify_one();
  thread_.join();
}

}  // namespace vqlm
