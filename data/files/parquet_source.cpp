#include "data/files/parquet_source.h"

#include <fcntl.h>
#include <spawn.h>
#include <spdlog/fmt/fmt.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "core/error.h"

extern char** environ;

namespace vqlm {

namespace {

constexpr const char* reader = R"(
import json, sys
sys.stdout.reconfigure(encoding="utf-8", errors="surrogatepass")
path, column = sys.argv[1:]
try:
    import pyarrow.parquet
except ImportError:
    sys.exit("is a Parquet file, which Python's pyarrow reads, and %s has none: pip install pyarrow, or name another "
             "Python by VQLM_PYTHON" % sys.executable)

def text(value):
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return None
    return value if isinstance(value, str) else None

try:
    file = pyarrow.parquet.ParquetFile(path)
    names = file.schema_arrow.names
    if column not in names:
        sys.exit("has no column %s; --text-field names one of %s" % (column, ", ".join(names)))
    for batch in file.iter_batches(columns=[column], batch_size=256):
        sys.stdout.write("".join(json.dumps({column: text(value)}, ensure_ascii=False) + "\n" for value in batch.column(0).to_pylist()))
    sys.stdout.flush()
except BrokenPipeError:
    sys.stderr.close()  # nobody reads on
except Exception as error:
    sys.exit("cannot be read as Parquet: %s; copy or download it again" % " ".join(str(error).split()))
)";

/// Both ends of a pipe, closed on exec but where the child takes one over.
class Pipe {
 public:
  Pipe() {
    if (::pipe2(ends_.data(), O_CLOEXEC) != 0)
      throw Error(fmt::format("no pipe can be made for Python's pyarrow: {}", std::strerror(errno)));
  }
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;
  ~Pipe() {
    close_end(0);
    close_end(1);
  }
  int reading() const { return ends_[0]; }
  int writing() const { return ends_[1]; }
  void close_writing() { close_end(1); }
  void close_reading() { close_end(0); }

  /// 0 at the end.
  std::size_t read(std::span<char> out) const {
    ssize_t n = -1;
    do {
      n = ::read(reading(), out.data(), out.size());
    } while (n < 0 && errno == EINTR);
    return n < 0 ? 0 : static_cast<std::size_t>(n);
  }

 private:
  void close_end(std::size_t end) {
    if (ends_[end] >= 0) ::close(ends_[end]);
    ends_[end] = -1;
  }
  std::array<int, 2> ends_{-1, -1};
};

class ParquetSource : public ByteSource {
 public:
  ParquetSource(const std::string& path, const std::string& column)
      : path_(path), bytes_(std::filesystem::file_size(path)) {
    const char* named = std::getenv("VQLM_PYTHON");
    const std::string python = named != nullptr && *named != '\0' ? named : "python3";
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, rows_.writing(), STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&actions, complaint_.writing(), STDERR_FILENO);
    const std::array<const char*, 6> arguments{python.c_str(), "-c", reader, path.c_str(), column.c_str(), nullptr};
    const int error =
        ::posix_spawnp(&process_, python.c_str(), &actions, nullptr, const_cast<char**>(arguments.data()), environ);
    posix_spawn_file_actions_destroy(&actions);
    if (error != 0) {
      process_ = -1;
      throw Error(fmt::format("{}: is a Parquet file, which Python's pyarrow reads, and {} cannot be started: {}", path,
                              python, std::strerror(error)));
    }
    rows_.close_writing();
    complaint_.close_writing();
  }
  ParquetSource(const ParquetSource&) = delete;
  ParquetSource& operator=(const ParquetSource&) = delete;
  ~ParquetSource() override {
    rows_.close_reading();
    if (process_ > 0) {
      ::kill(process_, SIGTERM);
      wait();
    }
  }

  std::size_t read(std::span<char> out) override {
    if (process_ < 0) return 0;
    const std::size_t n = rows_.read(out);
    if (n > 0) return n;
    std::string said;
    std::array<char, 4096> piece{};
    while (const std::size_t more = complaint_.read(piece)) said.append(piece.data(), more);
    while (said.ends_with('\n')) said.pop_back();
    const int status = wait();
    if (status == 0) return 0;
    const std::string last = said.substr(said.rfind('\n') + 1);
    throw Error(
        fmt::format("{}: {}", path_, last.empty() ? fmt::format("its reader ended with status {}", status) : last));
  }
  std::uint64_t file_bytes_read() const override { return process_ < 0 ? bytes_ : 0; }

 private:
  int wait() {
    int status = 0;
    while (::waitpid(process_, &status, 0) < 0 && errno == EINTR) {
    }
    process_ = -1;
    return status;
  }

  std::string path_;
  std::uint64_t bytes_;
  Pipe rows_, complaint_;
  pid_t process_ = -1;
};

}  // namespace

bool is_parquet(const std::string& path) {
  std::array<char, 4> head{};
  std::ifstream(path, std::ios::binary).read(head.data(), head.size());
  return std::string_view(head.data(), head.size()) == "PAR1";
}

std::unique_ptr<ByteSource> open_parquet(const std::string& path, const std::string& column) {
  return std::make_unique<ParquetSource>(path, column);
}

}  // namespace vqlm
