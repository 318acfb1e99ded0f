// MpiSession in a program that links no MPI library: one rank, for machines that have none.
#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "core/error.h"
#include "dist/launcher.h"
#include "dist/mpi_session.h"
#include "dist/self_communicator.h"

namespace vqlm {

bool mpi_built() {
  return false;
}

// Processes that nothing connects would each train alone, in one run folder.
MpiSession::MpiSession(MpiStart /*start*/) : exceptions_at_start_(0) {
  const int announced = std::max(launcher_ranks(), launcher_rank() + 1);
  if (announced == 1) return;
  throw Error(
      fmt::format("MPI: the launcher started {} processes, but this program was built without MPI and runs as "
                  "one rank; start one process, or use the vqlm that launch/build.sh builds",
                  announced));
}

MpiSession::~MpiSession() = default;

std::string MpiSession::mpi_version() const {
  return "none";
}

std::string MpiSession::thread_level() const {
  return "not started";
}

std::vector<std::string> MpiSession::gather_texts(const std::string& text) const {
  return {text};
}

std::vector<std::string> MpiSession::gather_texts_of_node(const std::string& text) const {
  return {text};
}

int MpiSession::count_ranks(bool yes) const {
  return yes ? 1 : 0;
}

std::unique_ptr<Communicator> MpiSession::split(int /*color*/, int /*key*/, std::string name,
                                                MpiChunking /*chunking*/) const {
  return std::make_unique<SelfCommunicator>(std::move(name));
}

bool MpiSession::allows_threads() const {
  return false;
}

std::unique_ptr<Communicator> MpiSession::split_beside(int color, int key, std::string name) const {
  return split(color, key, std::move(name));
}

void MpiSession::abort(std::string_view message, int code) const {
  std::fprintf(stderr, "rank 0: %.*s\n", static_cast<int>(message.size()), message.data());
  std::fflush(nullptr);
  std::_Exit(code);
}

}  // namespace vqlm
