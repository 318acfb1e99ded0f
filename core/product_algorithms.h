// Which algorithm makes a matrix product, where a back end's library has several. They can be timed
// (train/tools/bench/product_tuning.h), kept in a file (train/engine/products_file.h) and given to later runs, which then make
// every product by the same one.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/ops/matmul.h"

namespace vqlm {

/// What an algorithm is chosen for, all that a library may ask of a product c (m, n) = op(a) op(b) of depth k (Matmul).
struct ProductShape {
  std::int64_t m = 0, n = 0, k = 0;
  Transpose ta = Transpose::no, tb = Transpose::no;
  Accumulate accumulate = Accumulate::no;
  DType operands = DType::f32, result = DType::f32;
  int alignment_a = 256, alignment_b = 256, alignment_c = 256;  // of the addresses: bytes, powers of two up to 256
  /// Numbers from one stored row's begin to the next one's.
  std::int64_t leading_a = 0, leading_b = 0, leading_c = 0;

  /// a and b as they are stored.
  std::int64_t rows_a() const { return ta == Transpose::no ? m : k; }
  std::int64_t columns_a() const { return ta == Transpose::no ? k : m; }
  std::int64_t rows_b() const { return tb == Transpose::no ? k : n; }
  std::int64_t columns_b() const { return tb == Transpose::no ? n : k; }

  auto operator<=>(const ProductShape&) const = default;
  /// For messages: "128 x 50257 x 768 (bf16 to f32, added, rows of 768 and 50257, aligned to 2, 256 and 256 bytes)".
  std::string str() const;
};

/// An algorithm by its configuration, in the numbers of the library (cublasLtMatmulAlgoConfigAttributes_t).
struct ProductAlgorithm {
  std::int32_t id = 0;
  std::uint32_t tile = 0, stages = 0;
  std::int32_t split_k = 1;
  std::uint32_t reduction_scheme = 0, swizzle = 0, custom_option = 0;
  std::uint16_t inner_shape = 0, cluster_shape = 0;

  bool operator==(const ProductAlgorithm&) const = default;
  /// "id 66, tile 20, stages 8, split-K 1, reduction 0, swizzle 0, option 2, inner 0, cluster 3".
  std::string str() const;
};

/// What an algorithm's number means something on, and was timed on.
struct ProductMachine {
  std::string device = {};     // "NVIDIA H200"
  int compute_capability = 0;  // 90
  int multiprocessors = 0;
  std::string library = {};  // "cuBLASLt 13.1.0"

  bool operator==(const ProductMachine&) const = default;
  /// "NVIDIA H200 (9.0, 132 multiprocessors) with cuBLASLt 13.1.0".
  std::string str() const;
};

/// By shape; nothing stands for the one that the library itself puts first.
using ProductChoices = std::map<ProductShape, std::optional<ProductAlgorithm>>;

/// The choice of a back end's algorithms (product_algorithms_of). Calls belong to the thread that runs ops.
class ProductAlgorithms {
 public:
  virtual ~ProductAlgorithms() = default;

  virtual ProductMachine machine() const = 0;
  /// Bytes of the cache that all of the device shares.
  virtual std::size_t cache_bytes() const = 0;

  /// From now on products of these shapes are made by these algorithms and all others by the library's first, and uses() begins
  /// anew. Where the library refuses one, the first product of its shape throws Error naming `origin`, the choices' file.
  virtual void choose(ProductChoices choices, std::string origin) = 0;

  struct Use {
    ProductShape shape;
    std::int64_t calls = 0;  // what is recorded in a graph counts once, its replays do not
    bool chosen = false;     // by choose()
  };
  /// What ops have asked for since choose(), by shape.
  virtual std::vector<Use> uses() const = 0;

  struct Candidates {
    /// The library's order, its own choice first; none where it has no algorithm for the shape.
    std::vector<std::optional<ProductAlgorithm>> algorithms;
    int refused = 0;  // of the library's list, that it does not take by their configuration alone
  };
  /// At most `most` algorithms that the library proposes for the shape, of the kinds that ops allow (sums of a split K in f32).
  virtual Candidates candidates(const ProductShape& shape, int most) = 0;

  /// Why the library does not take the algorithm for this shape on this device; empty: it does.
  virtual std::string refusal(const ProductShape& shape, const ProductAlgorithm& algorithm) = 0;

  /// Enqueues one product on the compute stream. a, b and c begin at addresses of the shape's alignments and hold its stored
  /// rows. Throws Error where the library refuses after all.
  using Product = std::function<void(const void* a, const void* b, void* c)>;
  /// The product of this shape by this algorithm, made ready so that its calls cost a launch and no more; for as long as the
  /// back end lives. Throws Error where refusal() says why.
  virtual Product prepare(const std::optional<ProductAlgorithm>& algorithm, const ProductShape& shape) = 0;
};

/// A back end that has a choice derives from this, too.
class ChoiceOfProducts {
 public:
  /// As long as the back end.
  virtual ProductAlgorithms& product_algorithms() = 0;

 protected:
  ~ChoiceOfProducts() = default;
};

class Backend;
/// Null where the back end makes every product in one way.
ProductAlgorithms* product_algorithms_of(Backend& backend);

}  // namespace vqlm
