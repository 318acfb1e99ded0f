// What a training makes of run.products_file: the choices of a file of this card and library, and words about them.
#pragma once

#include <cstddef>
#include <string>

#include "core/backend.h"
#include "core/communicator.h"
#include "train/engine/products_file.h"

namespace vqlm {

/// The file as its bytes and its contents, read on the first rank and given to all; nothing where `file` is empty. Collective.
/// Throws Error for a file that cannot be read or is none, UsageError where the back end has no algorithms to choose from.
struct ReadProducts {
  std::string text;
  ProductsFile contents;
};
std::optional<ReadProducts> read_products_file(Backend& backend, Communicator& world, const std::string& file);

class ProductsInUse {
 public:
  /// The back ends of all ranks take the file's choices. Where the card or the library of any rank is another than the file's, no
  /// rank does, and the first one says so: products are as without the file. Call it after what else asks for products. Collective.
  /// Throws as read_products_file().
  ProductsInUse(Backend& backend, Communicator& world, const std::string& file);

  bool used() const { return algorithms_ != nullptr; }
  /// How many of the shapes asked for since the constructor the file knows, and one that it does not, or that it is passed over; for people.
  std::string text() const;
  /// Logs text() on the first rank, once, and again where shapes came since that the file does not know.
  void report();

 private:
  std::string file_;
  ProductAlgorithms* algorithms_ = nullptr;  // null: the file is not used
  std::size_t told_ = 0;                     // unknown shapes
  bool reported_ = false;
  bool root_;
};

}  // namespace vqlm
