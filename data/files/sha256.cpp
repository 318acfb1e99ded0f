#include "data/files/sha256.h"

#include <openssl/evp.h>
#include <spdlog/fmt/fmt.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <vector>

#include "core/error.h"

namespace vqlm {

namespace {

class Digest {
 public:
  Digest() : context_(EVP_MD_CTX_new(), EVP_MD_CTX_free) {
    VQLM_ASSERT(context_ != nullptr);
    VQLM_ASSERT(EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) == 1);
  }
  void update(std::string_view bytes) {
    VQLM_ASSERT(EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size()) == 1);
  }
  std::string hex() {
    std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
    unsigned int length = 0;
    VQLM_ASSERT(EVP_DigestFinal_ex(context_.get(), digest.data(), &length) == 1);
    std::string out;
    for (unsigned int i = 0; i < length; ++i) out += fmt::format("{:02x}", digest[i]);
    return out;
  }

 private:
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context_;
};

}  // namespace

std::string sha256_of(std::string_view bytes) {
  Digest digest;
  digest.update(bytes);
  return digest.hex();
}

std::string sha256_of_file(const std::string& path) {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "rb"), std::fclose);
  if (!file) throw Error(fmt::format("{}: cannot be opened: {}", path, std::strerror(errno)));
  Digest digest;
  std::vector<char> piece(1 << 20);
  for (;;) {
    const std::size_t n = std::fread(piece.data(), 1, piece.size(), file.get());
    digest.update({piece.data(), n});
    if (n < piece.size()) break;
  }
  if (std::ferror(file.get()) != 0) {
    throw Error(fmt::format("{}: cannot be read: {}", path, std::strerror(errno)));
  }
  return digest.hex();
}

}  // namespace vqlm
