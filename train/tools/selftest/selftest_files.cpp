#include "train/tools/selftest/selftest_files.h"

#include <fcntl.h>
#include <spdlog/fmt/fmt.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <optional>
#include <vector>

#include "core/error.h"
#include "core/host_collectives.h"
#include "core/log.h"
#include "data/files/atomic_file.h"
#include "train/engine/stopwatch.h"
#include "train/run/shared_folder.h"

namespace vqlm {
namespace {

namespace fs = std::filesystem;

/// A file descriptor that closes itself.
class OpenFile {
 public:
  /// Throws Error naming the file.
  OpenFile(const fs::path& path, int flags) : path_(path), fd_(::open(path.c_str(), flags | O_CLOEXEC, 0600)) {
    if (fd_ < 0) fail("cannot be opened");
  }
  ~OpenFile() {
    if (::close(fd_) != 0) log::warn("{}: close: {}", path_.string(), std::strerror(errno));
  }
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;

  int fd() const { return fd_; }
  /// Throws Error with the system's reason.
  [[noreturn]] void fail(const char* what) const {
    throw Error(fmt::format("{} {}: {}; choose another --dir", path_.string(), what, std::strerror(errno)));
  }
  /// False where another one holds the lock.
  bool try_lock() const {
    if (::flock(fd_, LOCK_EX | LOCK_NB) == 0) return true;
    if (errno != EWOULDBLOCK) fail("cannot be locked");
    return false;
  }

 private:
  fs::path path_;
  int fd_;
};

constexpr std::size_t disk_bytes = std::size_t{32} << 20;

void write_all(const OpenFile& file, const std::vector<std::uint64_t>& words) {
  const auto* const bytes = reinterpret_cast<const char*>(words.data());
  for (std::size_t done = 0; done < disk_bytes;) {
    const ssize_t count = ::write(file.fd(), bytes + done, disk_bytes - done);
    if (count <= 0) file.fail("cannot be written");
    done += static_cast<std::size_t>(count);
  }
}

std::vector<std::uint64_t> read_all(const OpenFile& file) {
  std::vector<std::uint64_t> words(disk_bytes / sizeof(std::uint64_t));
  auto* const bytes = reinterpret_cast<char*>(words.data());
  for (std::size_t done = 0; done < disk_bytes;) {
    const ssize_t count = ::read(file.fd(), bytes + done, disk_bytes - done);
    if (count <= 0) file.fail("cannot be read");
    done += static_cast<std::size_t>(count);
  }
  return words;
}

}  // namespace

SelftestFolder::SelftestFolder(Backend& backend, Communicator& world, const fs::path& parent)
    : remove_(world.rank() == 0) {
  std::vector<std::uint8_t> name;  // or the reason why there is none, after a zero
  if (remove_) {
    std::string made = (parent / "vqlm-selftest-XXXXXX").string();
    if (::mkdtemp(made.data()) == nullptr) {
      made = fmt::format("{}a folder cannot be made in {}: {}; choose another --dir", '\0', parent.string(),
                         std::strerror(errno));
      remove_ = false;
    }
    name.assign(made.begin(), made.end());
  }
  broadcast_from(backend, world, 0, name);
  const std::string path(name.begin(), name.end());
  if (path.empty() || path.front() == '\0') throw Error(path.empty() ? "selftest: no folder" : path.substr(1));
  path_ = path;
}

SelftestFolder::~SelftestFolder() {
  if (!remove_) return;
  std::error_code error;
  fs::remove_all(path_, error);
  if (error) log::warn("{}: cannot be removed: {}", path_.string(), error.message());
}

DoctorCheck check_shared_folder(Communicator& world, const fs::path& folder, double patience_seconds) {
  const fs::path file = folder / "seen-by-all";
  if (world.rank() == 0) write_file_atomically(file.string(), folder.string());
  world.barrier();
  const double begin = wall_seconds();
  const bool seen = appears_with(file, folder.string(), patience_seconds);
  const double seconds = wall_seconds() - begin;
  world.barrier();
  if (seen) return {.text = fmt::format("seen by all ranks, by this one after {:.3f} s", seconds)};
  return {.ok = false,
          .text = fmt::format("rank {} does not see what rank 0 wrote to {}: choose a --dir, and a run.dir, on a file "
                              "system that all nodes share",
                              world.rank(), folder.string())};
}

DoctorCheck check_file_locks(Communicator& world, const fs::path& folder) {
  const int holder = 0, other = world.size() - 1;
  const fs::path path = folder / "lock";
  std::optional<OpenFile> held;
  bool taken = true, refused = true, given = true;
  if (world.rank() == holder) taken = held.emplace(path, O_RDWR | O_CREAT).try_lock();
  world.barrier();
  std::optional<OpenFile> second;
  if (world.rank() == other) refused = !second.emplace(path, O_RDWR | O_CREAT).try_lock();
  world.barrier();
  held.reset();
  world.barrier();
  if (world.rank() == other) given = second->try_lock();
  world.barrier();
  if (taken && refused && given) return {.text = fmt::format("refused to rank {} while rank 0 holds it", other)};
  return {.ok = false,
          .text = fmt::format("{}: a lock {}; nothing guards against two jobs in one run.dir here: mount it with locks "
                              "(Lustre: -o flock), or never start two jobs on one run.dir",
                              folder.string(),
                              refused ? "was not given where nobody held it" : "was given to two ranks at once")};
}

DoctorCheck check_disk(int rank, const fs::path& folder) {
  const fs::path path = folder / fmt::format("disk-{}", rank);
  std::vector<std::uint64_t> words(disk_bytes / sizeof(std::uint64_t));
  for (std::size_t i = 0; i < words.size(); ++i) {  // nothing that a file system can compress
    words[i] = (i + 1 + (static_cast<std::uint64_t>(rank) << 32)) * 0x9e3779b97f4a7c15;
    words[i] ^= words[i] >> 29;
  }
  const double begin = wall_seconds();
  double written = 0, durable = 0;
  {
    const OpenFile file(path, O_WRONLY | O_CREAT | O_EXCL);
    write_all(file, words);
    written = wall_seconds();
    if (::fsync(file.fd()) != 0) file.fail("cannot be made durable");
    durable = wall_seconds();
    // Advice only: where it is taken, reading comes from the disk and not from memory.
    ::posix_fadvise(file.fd(), 0, 0, POSIX_FADV_DONTNEED);
  }
  const OpenFile file(path, O_RDONLY);
  const double reading = wall_seconds();
  const bool same = read_all(file) == words;
  const double read = wall_seconds() - reading;
  if (::unlink(path.c_str()) != 0) file.fail("cannot be removed");
  if (!same) {
    return {
        .ok = false,
        .text = fmt::format("{}: what rank {} reads is not what it wrote: the disk, the network to it or the memory is "
                            "broken; choose another --dir",
                            path.string(), rank)};
  }
  constexpr double mega = 1e6;
  return {
      .text = fmt::format("a rank writes {:.0f} MB/s with fsync (fsync alone {:.0f} ms), reads {:.0f} MB/s",
                          disk_bytes / mega / (durable - begin), 1e3 * (durable - written), disk_bytes / mega / read),
      .rate = disk_bytes / (durable - begin),
      .unit = "B/s"};
}

}  // namespace vqlm
