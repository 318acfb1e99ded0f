#include "data/files/parquet_source.h"

#include <spdlog/fmt/fmt.h>

#include <array>
#include <filesystem>
#include <fstream>

#include "core/error.h"
#include "data/files/python_script.h"

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

class ParquetSource : public ByteSource {
 public:
  ParquetSource(const std::string& path, const std::string& column)
      : path_(path),
        bytes_(std::filesystem::file_size(path)),
        script_(reader, {path, column}, path + ": is a Parquet file, which Python's pyarrow reads") {}

  std::size_t read(std::span<char> out) override {
    if (script_.ended()) return 0;
    const std::size_t n = script_.read(out);
    if (n > 0) return n;
    if (const std::string failure = script_.end(); !failure.empty()) throw Error(fmt::format("{}: {}", path_, failure));
    return 0;
  }
  std::uint64_t file_bytes_read() const override { return script_.ended() ? bytes_ : 0; }

 private:
  std::string path_;
  std::uint64_t bytes_;
  PythonScript script_;
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
