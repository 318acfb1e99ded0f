#include "dist/mpi_session.h"

#include <mpi.h>
#include <spdlog/fmt/fmt.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <numeric>
#include <string_view>

#include "core/error.h"
#include "dist/launcher.h"
#include "dist/mpi_check.h"
#include "dist/self_communicator.h"

namespace vqlm {
namespace {

/// The ranks that share this rank's memory, ordered by rank.
MPI_Comm node_of(int rank) {
  MPI_Comm node = MPI_COMM_NULL;
  mpi_check(MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, rank, MPI_INFO_NULL, &node),
            "MPI_Comm_split_type", rank, "world");
  return node;
}

void free_node(MPI_Comm node, int rank) {
  mpi_check(MPI_Comm_free(&node), "MPI_Comm_free", rank, "node");
}

/// The texts of the `size` ranks of `comm`; `rank`, this one's in the world, is for messages.
std::vector<std::string> gather(MPI_Comm comm, int size, const std::string& text, int rank) {
  const auto check = [rank](int code, const char* call) { mpi_check(code, call, rank, "world"); };
  const auto length = static_cast<int>(text.size());
  std::vector<int> lengths(static_cast<std::size_t>(size)), begins(lengths.size());
  check(MPI_Allgather(&length, 1, MPI_INT, lengths.data(), 1, MPI_INT, comm), "MPI_Allgather");
  std::exclusive_scan(lengths.begin(), lengths.end(), begins.begin(), 0);
  std::string all(static_cast<std::size_t>(begins.back() + lengths.back()), '\0');
  check(MPI_Allgatherv(text.data(), length, MPI_CHAR, all.data(), lengths.data(), begins.data(), MPI_CHAR, comm),
        "MPI_Allgatherv");
  std::vector<std::string> texts;
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    texts.push_back(all.substr(static_cast<std::size_t>(begins[i]), static_cast<std::size_t>(lengths[i])));
  }
  return texts;
}

}  // namespace

/// MPI_THREAD_MULTIPLE, unless VQLM_MPI_THREADS=funneled.
int wanted_threads() {
  const char* const text = std::getenv("VQLM_MPI_THREADS");
  const std::string_view wanted = text == nullptr ? "multiple" : text;
  if (wanted != "multiple" && wanted != "funneled")
    throw UsageError(fmt::format("VQLM_MPI_THREADS={}: choose multiple or funneled", wanted));
  return wanted == "multiple" ? MPI_THREAD_MULTIPLE : MPI_THREAD_FUNNELED;
}

bool mpi_built() {
  return true;
}

MpiSession::MpiSession(MpiStart start)
    : started_(start == MpiStart::always || launcher_may_connect_ranks()),
      exceptions_at_start_(std::uncaught_exceptions()) {
  if (!started_) return;
  const auto check = [this](int code, const char* call) { mpi_check(code, call, rank_, "world"); };
  int provided = MPI_THREAD_SINGLE;
  check(MPI_Init_thread(nullptr, nullptr, wanted_threads(), &provided), "MPI_Init_thread");
  check(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  check(MPI_Comm_rank(MPI_COMM_WORLD, &rank_), "MPI_Comm_rank");
  check(MPI_Comm_size(MPI_COMM_WORLD, &size_), "MPI_Comm_size");
  if (provided < MPI_THREAD_FUNNELED) {
    throw Error(
        fmt::format("MPI: the library gives thread level {}, but the read-ahead threads need "
                    "MPI_THREAD_FUNNELED ({}); use an MPI built with thread support",
                    provided, static_cast<int>(MPI_THREAD_FUNNELED)));
  }
  const MPI_Comm node = node_of(rank_);
  check(MPI_Comm_rank(node, &local_rank_), "MPI_Comm_rank");
  check(MPI_Comm_size(node, &local_size_), "MPI_Comm_size");
  free_node(node, rank_);
}

MpiSession::~MpiSession() {
  if (!started_) return;
  if (size_ > 1 && std::uncaught_exceptions() > exceptions_at_start_) {
    std::fprintf(stderr, "rank %d: left MPI by an exception; ending the job\n", rank_);
    mpi_log_failure(MPI_Abort(MPI_COMM_WORLD, 1), "MPI_Abort", rank_, "world");
  }
  mpi_log_failure(MPI_Finalize(), "MPI_Finalize", rank_, "world");
}

std::string MpiSession::mpi_version() const {
  std::string text(MPI_MAX_LIBRARY_VERSION_STRING, '\0');
  int length = 0;
  mpi_check(MPI_Get_library_version(text.data(), &length), "MPI_Get_library_version", rank_, "world");
  text.resize(static_cast<std::size_t>(length));
  return text.substr(0, text.find_first_of(",\n"));  // Open MPI goes on with who built it and where
}

std::string MpiSession::thread_level() const {
  if (!started_) return "not started";
  int level = MPI_THREAD_SINGLE;
  mpi_check(MPI_Query_thread(&level), "MPI_Query_thread", rank_, "world");
  if (level == MPI_THREAD_MULTIPLE) return "multiple";
  return level == MPI_THREAD_SERIALIZED ? "serialized" : "funneled";
}

std::vector<std::string> MpiSession::gather_texts(const std::string& text) const {
  if (!started_) return {text};
  const auto inside = activity_->enter("gather", "world");
  return gather(MPI_COMM_WORLD, size_, text, rank_);
}

std::vector<std::string> MpiSession::gather_texts_of_node(const std::string& text) const {
  if (!started_) return {text};
  const auto inside = activity_->enter("gather", "node");
  const MPI_Comm node = node_of(rank_);
  std::vector<std::string> texts = gather(node, local_size_, text, rank_);
  free_node(node, rank_);
  return texts;
}

int MpiSession::count_ranks(bool yes) const {
  int count = yes ? 1 : 0;
  if (!started_) return count;
  const auto inside = activity_->enter("count", "world");
  mpi_check(MPI_Allreduce(MPI_IN_PLACE, &count, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD), "MPI_Allreduce", rank_, "world");
  return count;
}

bool MpiSession::allows_threads() const {
  if (!started_) return false;
  int level = MPI_THREAD_SINGLE;
  mpi_check(MPI_Query_thread(&level), "MPI_Query_thread", rank_, "world");
  return level == MPI_THREAD_MULTIPLE;
}

std::unique_ptr<Communicator> MpiSession::split_beside(int color, int key, std::string name) const {
  VQLM_ASSERT(allows_threads());
  return MpiCommunicator::split_world(color, key, std::move(name), activity_, {}, MpiCaller::thread_beside);
}

std::unique_ptr<Communicator> MpiSession::split(int color, int key, std::string name, MpiChunking chunking) const {
  if (!started_) return std::make_unique<SelfCommunicator>(std::move(name));
  return MpiCommunicator::split_world(color, key, std::move(name), activity_, chunking);
}

void MpiSession::abort(std::string_view message, int code) const {
  std::fprintf(stderr, "rank %d: %.*s\n", rank_, static_cast<int>(message.size()), message.data());
  std::fflush(nullptr);
  if (started_) mpi_log_failure(MPI_Abort(MPI_COMM_WORLD, code), "MPI_Abort", rank_, "world");
  std::_Exit(code);  // MPI_Abort does not return; this keeps the promise where it failed
}

}  // namespace vqlm
