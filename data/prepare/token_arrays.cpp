#include "data/prepare/token_arrays.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <filesystem>
#include <span>
#include <utility>

#include "core/error.h"
#include "data/files/foreign_file.h"
#include "data/files/little_endian.h"
#include "data/files/random_access_file.h"
#include "data/prepare/megatron_index.h"

namespace vqlm {

namespace {

constexpr std::uint64_t ids_at_once = 256 * 1024;

/// The array of a file that is not Megatron-LM's.
TokenArray array_of(const RandomAccessFile& file) {
  const std::string head = file.head(max_token_header_bytes);
  const std::string& name = file.path();
  if (head.starts_with("\x93NUMPY")) return parse_npy_header(head, file.bytes(), name);
  if (head.starts_with("MMIDIDX")) {
    throw Error(fmt::format("{}: is the index of a Megatron-LM pair; give the .bin file beside it", name));
  }
  const std::int32_t first = head.size() < sizeof(std::int32_t) ? 0 : load_little<std::int32_t>(head, 0);
  if (first == llmc_magic_u16 || first == llmc_magic_u32) {
    return parse_llmc_header(head, file.bytes(), name);
  }
  if (const std::string kind = foreign_kind(head); !kind.empty()) throw Error(fmt::format("{}: is {}", name, kind));
  throw Error(
      fmt::format("{}: is no NumPy array (.npy), llm.c file (.bin) or Megatron-LM pair (.bin with .idx beside "
                  "it); of ids without a header say the type, such as --dtype uint16",
                  name));
}

/// Converts stored ids, each checked to lie in [0, vocab_size); `first`: the place of the first one, for messages.
template <class T>
void convert(std::span<const char> bytes, std::span<std::uint32_t> out, std::int64_t vocab_size, std::uint64_t first,
             const std::string& name) {
  for (std::size_t i = 0; i < out.size(); ++i) {
    const T id = load_little<T>({bytes.data(), bytes.size()}, i * sizeof(T));
    if (std::cmp_less(id, 0) || std::cmp_greater_equal(id, vocab_size)) {
      throw Error(
          fmt::format("{}: id {} is {}, outside the vocabulary [0, {}); give the --vocab-size or "
                      "--tokenizer-files that the ids were made with",
                      name, first + i, id, vocab_size));
    }
    out[i] = static_cast<std::uint32_t>(id);
  }
}

}  // namespace

std::string megatron_index_beside(const std::string& path) {
  const std::filesystem::path data(path);
  const std::string index = std::filesystem::path(data).replace_extension(".idx").string();
  std::error_code not_there;
  return data.extension() == ".bin" && std::filesystem::is_regular_file(index, not_there) ? index : "";
}

struct TokenDocuments::Impl {
  Impl(const std::string& path, std::int64_t vocab, std::optional<std::uint32_t> eos, const std::string& dtype)
      : file(path), vocab_size(vocab), eos_id(eos) {
    VQLM_ASSERT(vocab >= 1 && vocab <= std::int64_t{1} << 31);
    if (!dtype.empty()) {
      array = raw_token_array(file.head(max_token_header_bytes), file.bytes(), dtype, path);
      return;
    }
    const std::string index_path = megatron_index_beside(path);
    if (index_path.empty()) {
      array = array_of(file);
      return;
    }
    index_file.emplace(index_path);
    const MegatronIndex index = parse_megatron_header(index_file->head(max_token_header_bytes), index_file->bytes(),
                                                      file.bytes(), index_file->path());
    array = index.ids;
    lengths.emplace(*index_file, index);
  }

  bool next(std::vector<std::uint32_t>& ids);
  bool next_told(std::vector<std::uint32_t>& ids);
  void take(std::uint64_t count, std::vector<std::uint32_t>& ids);
  void fill();

  RandomAccessFile file;
  std::int64_t vocab_size;
  std::optional<std::uint32_t> eos_id;
  TokenArray array;
  std::optional<RandomAccessFile> index_file;
  std::optional<MegatronDocuments> lengths;
  std::uint64_t length_left = 0;  // ids of the document that lengths gave last, of which some were cut off
  std::uint64_t read = 0;         // ids converted so far
  std::vector<char> bytes;
  std::vector<std::uint32_t> buffer;
  std::size_t place = 0;  // buffer[place...] is not given out
};

/// The next piece of the file to an empty buffer.
void TokenDocuments::Impl::fill() {
  const auto width = static_cast<std::uint64_t>(array.width);
  buffer.resize(std::min(array.count - read, ids_at_once));
  place = 0;
  bytes.resize(buffer.size() * width);
  file.read(array.offset + read * width, bytes);
  const auto convert_as = [&]<class Unsigned, class Signed>(Unsigned, Signed) {
    array.is_signed ? convert<Signed>(bytes, buffer, vocab_size, read, file.path())
                    : convert<Unsigned>(bytes, buffer, vocab_size, read, file.path());
  };
  switch (array.width) {
    case 1:
      convert_as(std::uint8_t{}, std::int8_t{});
      break;
    case 2:
      convert_as(std::uint16_t{}, std::int16_t{});
      break;
    case 4:
      convert_as(std::uint32_t{}, std::int32_t{});
      break;
    default:
      convert_as(std::uint64_t{}, std::int64_t{});
  }
  read += buffer.size();
}

/// Appends the next `count` ids of the buffer.
void TokenDocuments::Impl::take(std::uint64_t count, std::vector<std::uint32_t>& ids) {
  const auto begin = buffer.begin() + static_cast<std::ptrdiff_t>(place);
  ids.insert(ids.end(), begin, begin + static_cast<std::ptrdiff_t>(count));
  place += count;
}

/// A document whose length the file tells.
bool TokenDocuments::Impl::next_told(std::vector<std::uint32_t>& ids) {
  while (length_left == 0) {
    const std::optional<std::uint64_t> length = lengths->next();
    if (!length) return false;
    length_left = *length;
  }
  const std::uint64_t wanted = std::min(length_left, most_ids);
  while (ids.size() < wanted) {
    if (place == buffer.size()) fill();
    take(std::min<std::uint64_t>(wanted - ids.size(), buffer.size() - place), ids);
  }
  length_left -= wanted;
  return true;
}

bool TokenDocuments::Impl::next(std::vector<std::uint32_t>& ids) {
  ids.clear();
  if (lengths) return next_told(ids);
  const std::uint64_t most = eos_id ? most_ids : ids_without_ends;
  for (bool ended = false; !ended && ids.size() < most;) {
    if (place == buffer.size()) {
      if (read == array.count) break;
      fill();
    }
    const std::uint64_t here = std::min<std::uint64_t>(most - ids.size(), buffer.size() - place);
    const auto begin = buffer.begin() + static_cast<std::ptrdiff_t>(place);
    const auto end = begin + static_cast<std::ptrdiff_t>(here);
    const auto eos = eos_id ? std::find(begin, end, *eos_id) : end;
    ended = eos != end;
    take(static_cast<std::uint64_t>(eos - begin) + (ended ? 1 : 0), ids);
  }
  return !ids.empty();
}

TokenDocuments::TokenDocuments(const std::string& path, std::int64_t vocab_size, std::optional<std::uint32_t> eos_id,
                               const std::string& dtype)
    : impl_(std::make_unique<Impl>(path, vocab_size, eos_id, dtype)) {}
TokenDocuments::~TokenDocuments() = default;
TokenDocuments::TokenDocuments(TokenDocuments&&) noexcept = default;

bool TokenDocuments::next(std::vector<std::uint32_t>& ids) {
  return impl_->next(ids);
}

std::uint64_t TokenDocuments::file_bytes_read() const {
  const TokenArray& array = impl_->array;
  return array.offset + impl_->read * static_cast<std::uint64_t>(array.width);
}

}  // namespace vqlm
