#include "data/files/byte_source.h"

#include <spdlog/fmt/fmt.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <string_view>
#include <vector>

#include "core/error.h"

namespace vqlm {

namespace {

constexpr std::size_t input_piece = std::size_t{1} << 18;

[[noreturn]] void damaged(const std::string& path, std::string_view kind, std::uint64_t offset, std::string_view why) {
  throw Error(fmt::format("{}: the {} stream {} at byte {} of the file; copy or download the file again", path, kind,
                          why, offset));
}

/// The file as it lies on disk, read in pieces.
class RawFile {
 public:
  explicit RawFile(const std::string& path) : path_(path), file_(std::fopen(path.c_str(), "rb"), std::fclose) {
    if (!file_) throw Error(fmt::format("{}: cannot be opened: {}", path, std::strerror(errno)));
    if (std::filesystem::is_directory(path)) {
      throw Error(fmt::format("{}: is a folder; give the files in it, for example '{}/*.json.gz'", path, path));
    }
  }
  const std::string& path() const { return path_; }
  std::uint64_t bytes_read() const { return bytes_read_; }

  std::size_t read(std::span<char> out) {
    const std::size_t n = std::fread(out.data(), 1, out.size(), file_.get());
    if (n < out.size() && std::ferror(file_.get()) != 0) {
      throw Error(fmt::format("{}: cannot be read at byte {}: {}", path_, bytes_read_, std::strerror(errno)));
    }
    bytes_read_ += n;
    return n;
  }
  void rewind() {
    std::rewind(file_.get());
    bytes_read_ = 0;
  }

 private:
  std::string path_;
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> file_;
  std::uint64_t bytes_read_ = 0;
};

class PlainSource : public ByteSource {
 public:
  explicit PlainSource(RawFile file) : file_(std::move(file)) {}
  std::size_t read(std::span<char> out) override { return file_.read(out); }
  std::uint64_t file_bytes_read() const override { return file_.bytes_read(); }

 private:
  RawFile file_;
};

class GzipSource : public ByteSource {
 public:
  explicit GzipSource(RawFile file) : file_(std::move(file)), input_(input_piece) {
    constexpr int gzip_only = 16 + MAX_WBITS;
    VQLM_ASSERT(inflateInit2(&stream_, gzip_only) == Z_OK);
  }
  GzipSource(const GzipSource&) = delete;
  GzipSource& operator=(const GzipSource&) = delete;
  ~GzipSource() override { inflateEnd(&stream_); }

  std::size_t read(std::span<char> out) override {
    stream_.next_out = reinterpret_cast<Bytef*>(out.data());
    stream_.avail_out = static_cast<uInt>(std::min<std::size_t>(out.size(), UINT32_MAX));
    const uInt room = stream_.avail_out;
    while (stream_.avail_out == room && !finished_) step();
    return room - stream_.avail_out;
  }
  std::uint64_t file_bytes_read() const override { return file_.bytes_read(); }

 private:
  std::uint64_t offset() const { return file_.bytes_read() - stream_.avail_in; }

  void refill() {
    if (stream_.avail_in > 0) return;
    stream_.next_in = reinterpret_cast<Bytef*>(input_.data());
    stream_.avail_in = static_cast<uInt>(file_.read(input_));
  }

  void step() {
    refill();
    if (between_members_) return next_member();
    if (stream_.avail_in == 0) damaged(file_.path(), "gzip", offset(), "is cut off");
    const int code = inflate(&stream_, Z_NO_FLUSH);
    if (code == Z_STREAM_END) {
      between_members_ = true;
    } else if (code != Z_OK && code != Z_BUF_ERROR) {
      damaged(file_.path(), "gzip", offset(),
              fmt::format("is damaged ({})", stream_.msg != nullptr ? stream_.msg : "no reason given"));
    }
  }

  /// After a member: the end, another member, or the zeros that tapes and some tools pad with.
  void next_member() {
    while (stream_.avail_in > 0 && *stream_.next_in == 0) {
      ++stream_.next_in;
      --stream_.avail_in;
    }
    if (stream_.avail_in == 0) {
      refill();
      if (stream_.avail_in == 0) finished_ = true;
      return;
    }
    if (*stream_.next_in != 0x1f) damaged(file_.path(), "gzip", offset(), "is followed by something else");
    VQLM_ASSERT(inflateReset(&stream_) == Z_OK);
    between_members_ = false;
  }

  RawFile file_;
  std::vector<char> input_;
  z_stream stream_{};
  bool between_members_ = false;
  bool finished_ = false;
};

class ZstdSource : public ByteSource {
 public:
  explicit ZstdSource(RawFile file)
      : file_(std::move(file)), input_(input_piece), stream_(ZSTD_createDStream(), ZSTD_freeDStream) {
    VQLM_ASSERT(stream_ != nullptr);
    // Long-range archives (zstd --long=31) are common for text corpora; the default limit is 27.
    VQLM_ASSERT(ZSTD_isError(ZSTD_DCtx_setParameter(stream_.get(), ZSTD_d_windowLogMax, 31)) == 0);
  }

  std::size_t read(std::span<char> out) override {
    ZSTD_outBuffer output{out.data(), out.size(), 0};
    while (output.pos == 0) {
      if (pending_.pos == pending_.size) {
        pending_ = {input_.data(), file_.read(input_), 0};
        // Also called with no input left: what a frame still holds comes out then.
        if (pending_.size == 0 && !inside_frame_) return 0;
      }
      const std::size_t left = ZSTD_decompressStream(stream_.get(), &output, &pending_);
      const std::uint64_t offset = file_.bytes_read() - (pending_.size - pending_.pos);
      if (ZSTD_isError(left) != 0) {
        damaged(file_.path(), "zstd", offset, fmt::format("is damaged ({})", ZSTD_getErrorName(left)));
      }
      inside_frame_ = left != 0;
      if (pending_.size == 0 && inside_frame_ && output.pos == 0) damaged(file_.path(), "zstd", offset, "is cut off");
    }
    return output.pos;
  }
  std::uint64_t file_bytes_read() const override { return file_.bytes_read(); }

 private:
  RawFile file_;
  std::vector<char> input_;
  ZSTD_inBuffer pending_{nullptr, 0, 0};
  std::unique_ptr<ZSTD_DStream, std::size_t (*)(ZSTD_DStream*)> stream_;
  bool inside_frame_ = false;
};

bool begins_with(std::span<const char> head, std::string_view magic) {
  return std::string_view(head.data(), head.size()).starts_with(magic);
}

}  // namespace

std::unique_ptr<ByteSource> open_byte_source(const std::string& path) {
  RawFile file(path);
  std::array<char, 4> head{};
  const std::size_t n = file.read(head);
  file.rewind();
  const std::span<const char> seen = std::span<const char>(head).first(n);
  const bool gzip = begins_with(seen, "\x1f\x8b");
  const bool zstd = begins_with(seen, "\x28\xb5\x2f\xfd") ||
                    (n == 4 && (head[0] & 0xf0) == 0x50 && begins_with(seen.subspan(1), "\x2a\x4d\x18"));
  const std::string extension = std::filesystem::path(path).extension();
  const bool cut_off = n < 2;
  if ((extension == ".gz" && !gzip) || (extension == ".zst" && !zstd)) {
    throw Error(fmt::format(
        "{}: {}; copy or download it again, or name it by what it is", path,
        cut_off ? std::string("is empty") : fmt::format("is not a {} file", extension == ".gz" ? "gzip" : "zstd")));
  }
  if (gzip) return std::make_unique<GzipSource>(std::move(file));
  if (zstd) return std::make_unique<ZstdSource>(std::move(file));
  return std::make_unique<PlainSource>(std::move(file));
}

}  // namespace vqlm
