#include "data/prepare/megatron_index.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>

#include "core/error.h"
#include "data/files/little_endian.h"

namespace vqlm {

namespace {

constexpr std::uint64_t table_buffer_bytes = 64 * 1024;

/// Megatron-LM's codes of NumPy types; 6 and 7 are floating point.
void set_type(TokenArray& ids, int code, const std::string& name) {
  constexpr int widths[] = {0, 1, 1, 2, 4, 8, 0, 0, 2};  // of codes 0 to 8
  if (code < 1 || code > 8 || widths[code] == 0) {
    throw Error(
        fmt::format("{}: has ids of type code {}; 1 to 5 and 8 (integers) can be read: write the pair again with "
                    "Megatron-LM's preprocess_data.py",
                    name, code));
  }
  ids.width = widths[code];
  ids.is_signed = code >= 2 && code <= 5;
}

}  // namespace

MegatronIndex parse_megatron_header(std::string_view head, std::uint64_t index_bytes, std::uint64_t data_bytes,
                                    const std::string& name) {
  constexpr std::string_view magic("MMIDIDX\0\0", 9);
  constexpr std::uint64_t header_bytes = 34;
  constexpr const char* way_out = "copy or write the pair of .bin and .idx again";
  if (!head.starts_with(magic)) {
    throw Error(
        fmt::format("{}: is no Megatron-LM index (it does not begin with MMIDIDX); write the pair again with its "
                    "preprocess_data.py --dataset-impl mmap",
                    name));
  }
  if (head.size() < header_bytes) {
    throw Error(fmt::format("{}: ends within its header; {}", name, way_out));
  }
  if (const auto version = load_little<std::uint64_t>(head, 9); version != 1) {
    throw Error(fmt::format("{}: has index version {}, only 1 can be read; {}", name, version, way_out));
  }
  MegatronIndex index;
  set_type(index.ids, static_cast<unsigned char>(head[17]), name);
  index.sequences = load_little<std::uint64_t>(head, 18);
  const auto entries = load_little<std::uint64_t>(head, 26);
  const std::uint64_t tables = index_bytes - header_bytes;
  // The two bounds keep the sum from wrapping.
  if (index.sequences > tables / 12 || entries > tables / 8 || index.sequences * 12 + entries * 8 != tables) {
    throw Error(
        fmt::format("{}: its header tells {} sequences and {} entries of the document index, which is not "
                    "what its {} bytes hold; {}",
                    name, index.sequences, entries, index_bytes, way_out));
  }
  if (entries == 0) throw Error(fmt::format("{}: its document index is empty; {}", name, way_out));
  const auto width = static_cast<std::uint64_t>(index.ids.width);
  if (data_bytes % width != 0) {
    throw Error(
        fmt::format("{}: the .bin file beside it has {} bytes, which is no whole number of ids of {} "
                    "bytes; {}",
                    name, data_bytes, width, way_out));
  }
  index.ids.count = data_bytes / width;
  index.documents = entries - 1;
  index.lengths_offset = header_bytes;
  index.pointers_offset = index.lengths_offset + index.sequences * 4;
  index.documents_offset = index.pointers_offset + index.sequences * 8;
  return index;
}

// ---- the tables -----------------------------------------------------------------------------------------------------

TableReader::TableReader(const RandomAccessFile& file, std::uint64_t offset, std::uint64_t count, int width)
    : file_(file), offset_(offset), left_(count), width_(width) {}

std::int64_t TableReader::next() {
  if (place_ == buffer_.size()) {
    VQLM_ASSERT(left_ > 0);
    const auto width = static_cast<std::uint64_t>(width_);
    const std::uint64_t entries = std::min(left_, table_buffer_bytes / width);
    buffer_.resize(entries * width);
    file_.read(offset_, buffer_);
    offset_ += buffer_.size();
    left_ -= entries;
    place_ = 0;
  }
  const std::string_view bytes(buffer_.data(), buffer_.size());
  const std::int64_t value =
      width_ == 4 ? load_little<std::int32_t>(bytes, place_) : load_little<std::int64_t>(bytes, place_);
  place_ += static_cast<std::size_t>(width_);
  return value;
}

MegatronDocuments::MegatronDocuments(const RandomAccessFile& file, const MegatronIndex& index)
    : file_(file),
      index_(index),
      lengths_(file, index.lengths_offset, index.sequences, 4),
      pointers_(file, index.pointers_offset, index.sequences, 8),
      documents_(file, index.documents_offset, index.documents + 1, 8) {
  if (const std::int64_t first = documents_.next(); first != 0) {
    damaged(fmt::format("entry 0 of the document index is {}, not 0", first));
  }
}

void MegatronDocuments::damaged(const std::string& what) const {
  throw Error(fmt::format("{}: {}; copy or write the pair of .bin and .idx again", file_.path(), what));
}

std::optional<std::uint64_t> MegatronDocuments::next() {
  if (document_ == index_.documents) {
    if (sequence_ != index_.sequences) {
      damaged(fmt::format("its documents have {} of {} sequences", sequence_, index_.sequences));
    }
    if (ids_ != index_.ids.count) {
      damaged(fmt::format("its sequences have {} ids, the .bin file {}", ids_, index_.ids.count));
    }
    return std::nullopt;
  }
  const std::uint64_t begin = ids_;
  const std::int64_t end = documents_.next();
  if (end < static_cast<std::int64_t>(sequence_) || static_cast<std::uint64_t>(end) > index_.sequences) {
    damaged(fmt::format("entry {} of the document index is {}, outside [{}, {}]", document_ + 1, end, sequence_,
                        index_.sequences));
  }
  for (; sequence_ < static_cast<std::uint64_t>(end); ++sequence_) {
    const std::int64_t pointer = pointers_.next();
    const std::uint64_t expected = ids_ * static_cast<std::uint64_t>(index_.ids.width);
    if (pointer < 0 || static_cast<std::uint64_t>(pointer) != expected) {
      damaged(fmt::format("sequence {} begins at byte {}, not at {} where the one before ends", sequence_, pointer,
                          expected));
    }
    const std::int64_t length = lengths_.next();
    if (length < 0 || static_cast<std::uint64_t>(length) > index_.ids.count - ids_) {
      damaged(
          fmt::format("sequence {} has {} ids, the .bin file has {} left", sequence_, length, index_.ids.count - ids_));
    }
    ids_ += static_cast<std::uint64_t>(length);
  }
  ++document_;
  return ids_ - begin;
}

}  // namespace vqlm
