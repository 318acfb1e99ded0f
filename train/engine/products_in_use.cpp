#include "train/engine/products_in_use.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <vector>

#include "core/error.h"
#include "core/home_path.h"
#include "core/host_collectives.h"
#include "core/log.h"
#include "data/files/atomic_file.h"
#include "data/files/sha256.h"

namespace vqlm {
namespace {

std::string broadcast_text(Backend& backend, Communicator& world, const std::string& text) {
  std::vector<std::uint8_t> bytes(text.begin(), text.end());
  broadcast_from(backend, world, 0, bytes);
  return {bytes.begin(), bytes.end()};
}

std::size_t unknown_of(const std::vector<ProductAlgorithms::Use>& uses) {
  return static_cast<std::size_t>(std::ranges::count(uses, false, &ProductAlgorithms::Use::chosen));
}

}  // namespace

std::optional<ReadProducts> read_products_file(Backend& backend, Communicator& world, const std::string& file) {
  if (file.empty()) return std::nullopt;
  if (product_algorithms_of(backend) == nullptr) {
    throw UsageError(
        fmt::format("run.products_file = {}: {} makes every matrix product in one way: go without it (--set "
                    "run.products_file=), or compute on a GPU",
                    file, backend.description()));
  }
  ReadProducts read;
  read.text = broadcast_text(backend, world, world.rank() == 0 ? read_file(expand_home(file)) : "");
  read.contents = parse_products_file(read.text, file);
  return read;
}

ProductsInUse::ProductsInUse(Backend& backend, Communicator& world, const std::string& file)
    : file_(file), root_(world.rank() == 0) {
  const std::optional<ReadProducts> read = read_products_file(backend, world, file);
  if (!read) return;
  ProductAlgorithms* const algorithms = product_algorithms_of(backend);
  const ProductMachine here = algorithms->machine(), there = read->contents.machine;
  if (max_over(backend, world, here == there ? 0 : 1) > 0) {
    if (root_) {
      log::warn("{}: was made on {}, and {}: it is passed over, products take the library's first algorithms", file,
                there.str(), here == there ? "other ranks have another" : "here is " + here.str());
    }
    return;
  }
  algorithms_ = algorithms;
  algorithms_->choose(read->contents.choices(), file);
  if (root_) {
    log::info("products: algorithms of {} shapes from {} (SHA-256 {}...), timed on {}", read->contents.products.size(),
              file, sha256_of(read->text).substr(0, 12), there.str());
  }
}

std::string ProductsInUse::text() const {
  if (algorithms_ == nullptr) return file_.empty() ? "" : fmt::format("products: {} is passed over", file_);
  const std::vector<ProductAlgorithms::Use> uses = algorithms_->uses();
  const std::size_t unknown = unknown_of(uses);
  std::string text =
      fmt::format("products: {} of {} shapes have their algorithm from {}", uses.size() - unknown, uses.size(), file_);
  if (unknown > 0) {
    text += fmt::format("; {} that it does not know {} the library's first, for example {}", unknown,
                        unknown == 1 ? "takes" : "take",
                        std::ranges::find(uses, false, &ProductAlgorithms::Use::chosen)->shape.str());
  }
  return text;
}

void ProductsInUse::report() {
  if (algorithms_ == nullptr || !root_) return;
  const std::size_t unknown = unknown_of(algorithms_->uses());
  if (reported_ && unknown <= told_) return;
  log::info("{}", text());
  reported_ = true;
  told_ = unknown;
}

}  // namespace vqlm
