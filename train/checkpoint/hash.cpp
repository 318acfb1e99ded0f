#include "train/checkpoint/hash.h"

#include <spdlog/fmt/fmt.h>
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <limits>
#include <vector>

#include "core/error.h"

namespace vqlm {
namespace {

constexpr std::size_t block_bytes = std::size_t{1} << 20;

XXH3_state_t* state_of(void* state) {
  return static_cast<XXH3_state_t*>(state);
}

/// Adds up to `limit` bytes from where `in` stands; returns how many there were.
std::uint64_t add_stream(Xxh3& hash, std::ifstream& in, std::uint64_t limit, const std::filesystem::path& path) {
  std::vector<char> block(block_bytes);
  std::uint64_t done = 0;
  while (in && done < limit) {
    in.read(block.data(), static_cast<std::streamsize>(std::min<std::uint64_t>(block.size(), limit - done)));
    hash.add(block.data(), static_cast<std::size_t>(in.gcount()));
    done += static_cast<std::uint64_t>(in.gcount());
  }
  if (in.bad()) throw Error(fmt::format("{}: reading failed: {}", path.string(), std::strerror(errno)));
  return done;
}

std::ifstream open(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw Error(fmt::format("{}: cannot be read: {}", path.string(), std::strerror(errno)));
  return in;
}

}  // namespace

void Xxh3::Free::operator()(void* state) const {
  XXH3_freeState(state_of(state));
}

Xxh3::Xxh3() : state_(XXH3_createState()) {
  VQLM_ASSERT(state_ != nullptr && XXH3_64bits_reset(state_of(state_.get())) == XXH_OK);
}

void Xxh3::add(const void* data, std::size_t bytes) {
  VQLM_ASSERT(XXH3_64bits_update(state_of(state_.get()), data, bytes) == XXH_OK);
}

std::string Xxh3::hex() const {
  return fmt::format("{:016x}", XXH3_64bits_digest(state_of(state_.get())));
}

std::string xxh3_of(const void* data, std::size_t bytes) {
  return fmt::format("{:016x}", XXH3_64bits(data, bytes));
}

std::string xxh3_of_range(const std::filesystem::path& path, std::uint64_t first, std::uint64_t bytes) {
  std::ifstream in = open(path);
  in.seekg(static_cast<std::streamoff>(first));
  Xxh3 hash;
  if (add_stream(hash, in, bytes, path) < bytes) {
    throw Error(fmt::format("{}: ends before byte {}", path.string(), first + bytes));
  }
  return hash.hex();
}

std::string xxh3_of_file(const std::filesystem::path& path) {
  std::ifstream in = open(path);
  Xxh3 hash;
  add_stream(hash, in, std::numeric_limits<std::uint64_t>::max(), path);
  return hash.hex();
}

}  // namespace vqlm
