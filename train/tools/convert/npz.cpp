#include "train/tools/convert/npz.h"

#include <archive.h>
#include <archive_entry.h>
#include <spdlog/fmt/fmt.h>

#include <memory>
#include <span>

#include "core/box.h"
#include "core/error.h"
#include "core/log.h"
#include "data/files/atomic_file.h"

namespace vqlm {
namespace {

/// The header of NumPy's .npy format, version 1.0: magic, length, a Python literal, padded with spaces to a multiple of 64.
std::string npy_header(const char* type, const Shape& shape) {
  std::string extents;
  for (int axis = 0; axis < shape.rank(); ++axis) extents += fmt::format("{}, ", shape[axis]);
  std::string text = fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': ({}), }}", type, extents);
  constexpr std::size_t prefix = 10;
  text.append(64 - (prefix + text.size() + 1) % 64, ' ');
  text += '\n';
  std::string header("\x93NUMPY\x01\x00", 8);
  header += static_cast<char>(text.size() & 0xFF);
  header += static_cast<char>(text.size() >> 8);
  return header + text;
}

/// A zip file that is written from front to back.
class ZipWriter {
 public:
  explicit ZipWriter(const std::filesystem::path& path)
      : path_(path.string()), archive_(archive_write_new(), archive_write_free) {
    VQLM_ASSERT(archive_ != nullptr);
    check(archive_write_set_format_zip(archive_.get()));
    check(archive_write_zip_set_compression_store(archive_.get()));
    check(archive_write_set_bytes_in_last_block(archive_.get(), 1));  // no padding after the zip's end
    check(archive_write_open_filename(archive_.get(), path_.c_str()));
  }

  /// Begins the file `name` of so many bytes, which write() must bring.
  void begin(const std::string& name, std::int64_t bytes) {
    const std::unique_ptr<archive_entry, void (*)(archive_entry*)> entry(archive_entry_new(), archive_entry_free);
    VQLM_ASSERT(entry != nullptr);
    archive_entry_set_pathname(entry.get(), name.c_str());
    archive_entry_set_filetype(entry.get(), AE_IFREG);
    archive_entry_set_perm(entry.get(), 0644);
    archive_entry_set_mtime(entry.get(), 315532800,
                            0);  // 1980, where zip's times begin: no clock in the bytes
    archive_entry_set_size(entry.get(), bytes);
    check(archive_write_header(archive_.get(), entry.get()));
  }
  void write(const void* data, std::size_t bytes) {
    const la_ssize_t written = archive_write_data(archive_.get(), data, bytes);
    if (written < 0 || static_cast<std::size_t>(written) != bytes) fail();
  }
  void close() { check(archive_write_close(archive_.get())); }

 private:
  void check(int status) {
    if (status != ARCHIVE_OK) fail();
  }
  [[noreturn]] void fail() {
    const char* reason = archive_error_string(archive_.get());
    throw Error(fmt::format("{}: cannot be written: {}; is the disk full?", path_,
                            reason == nullptr ? "unknown error" : reason));
  }

  std::string path_;
  std::unique_ptr<archive, int (*)(archive*)> archive_;
};

template <class T>
void write_array(ZipWriter& zip, const std::string& name, const char* type, const Shape& shape,
                 const std::vector<T>& values) {
  const std::string header = npy_header(type, shape);
  zip.begin(name + ".npy", static_cast<std::int64_t>(header.size() + values.size() * sizeof(T)));
  zip.write(header.data(), header.size());
  zip.write(values.data(), values.size() * sizeof(T));
}

void write_arrays(const ModelSource& source, const std::filesystem::path& path) {
  ZipWriter zip(path);
  for (const ModelSource::TensorInfo& tensor : source.tensors()) {
    const std::string header = npy_header("<f4", tensor.shape);
    const auto bytes = static_cast<std::int64_t>(sizeof(float)) * tensor.shape.numel();
    zip.begin(tensor.name + ".npy", static_cast<std::int64_t>(header.size()) + bytes);
    zip.write(header.data(), header.size());
    for (const Box& box : row_boxes(tensor.shape)) {
      const std::vector<float> values = source.read(tensor.name, box.offset, box.extent);
      zip.write(values.data(), values.size() * sizeof(float));
    }
  }
  if (const std::optional<CodeMap> map = source.code_map()) {
    write_array(zip, "vq_head.cluster_of_token", "<i4", {map->vocab_size}, map->cluster_of_token);
    if (map->groups > 0) {
      write_array(zip, "vq_head.member_codes", "|u1", {map->vocab_size, map->groups}, map->member_codes);
    }
  }
  zip.close();
}

}  // namespace

void write_npz(const ModelSource& source, const std::filesystem::path& out) {
  if (std::filesystem::exists(out)) {
    throw UsageError(fmt::format("--out {}: is there already; remove it, or choose another name", out.string()));
  }
  const std::string partial = out.string() + std::string(partial_suffix);
  try {
    write_arrays(source, partial);
    publish_file(partial, out.string());
  } catch (...) {
    std::error_code ignored;  // the reason of the failure is what the user needs
    std::filesystem::remove(partial, ignored);
    throw;
  }
}

}  // namespace vqlm
