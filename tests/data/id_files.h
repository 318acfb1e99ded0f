// Files of ids as NumPy, llm.c and Megatron-LM write them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace vqlm {

/// The numbers' bytes. (The tests run on little-endian machines.)
template <class T>
std::string little(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

inline std::string npy_with_header(const std::string& header, const std::string& data, int version = 1) {
  const auto length = static_cast<std::uint32_t>(header.size());
  return std::string("\x93NUMPY") + static_cast<char>(version) + '\0' +
         (version == 1 ? little<std::uint16_t>({static_cast<std::uint16_t>(length)})
                       : little<std::uint32_t>({length})) +
         header + data;
}

/// type: NumPy's, such as "<u2".
inline std::string npy(const std::string& type, const std::string& data) {
  const std::size_t width = static_cast<std::size_t>(type[2] - '0');
  const std::string header =
      "{'descr': '" + type + "', 'fortran_order': False, 'shape': (" + std::to_string(data.size() / width) + ",), }\n";
  return npy_with_header(header, data);
}

inline std::string llmc_file(const std::string& data, std::int32_t magic, std::int32_t version, std::int32_t count) {
  std::vector<std::int32_t> header(256, 0);
  header[0] = magic;
  header[1] = version;
  header[2] = count;
  return little(header) + data;
}

inline std::string megatron_index(int code, const std::vector<std::int32_t>& lengths,
                                  const std::vector<std::int64_t>& pointers,
                                  const std::vector<std::int64_t>& documents) {
  return std::string("MMIDIDX\0\0", 9) + little<std::uint64_t>({1}) + static_cast<char>(code) +
         little<std::uint64_t>({lengths.size(), documents.size()}) + little(lengths) + little(pointers) +
         little(documents);
}

struct MegatronPair {
  std::string data, index;
};

/// Ids 0, 1, 2, ... as uint16 in documents of sequences of these lengths.
inline MegatronPair megatron(const std::vector<std::vector<std::int32_t>>& documents) {
  MegatronPair pair;
  std::vector<std::int32_t> lengths;
  std::vector<std::int64_t> pointers, ends = {0};
  std::uint16_t id = 0;
  for (const auto& document : documents) {
    for (const std::int32_t length : document) {
      lengths.push_back(length);
      pointers.push_back(static_cast<std::int64_t>(pair.data.size()));
      for (std::int32_t i = 0; i < length; ++i) pair.data += little<std::uint16_t>({id++});
    }
    ends.push_back(static_cast<std::int64_t>(lengths.size()));
  }
  pair.index = megatron_index(8, lengths, pointers, ends);
  return pair;
}

}  // namespace vqlm
