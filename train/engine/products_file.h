// The file in which `vqlm tune` keeps, for each matrix product that a training step asks for, the algorithm that was the fastest
// of those timed on one kind of card with one version of its library, and from which trainings read them (run.products_file).
#pragma once

#include <string>
#include <vector>

#include "core/product_algorithms.h"

namespace vqlm {

struct TunedProduct {
  ProductShape shape = {};
  std::optional<ProductAlgorithm> algorithm = {};  // nothing: the library's first
  double microseconds = 0;                         // its median
  double microseconds_first = 0;                   // that of the library's first
};

struct ProductsFile {
  ProductMachine machine = {};  // on which they were timed
  std::vector<TunedProduct> products = {};

  ProductChoices choices() const;
};

/// Keys: format ("vqlm products"), version (1), device, compute_capability, multiprocessors, library, products: of each m, n, k,
/// transpose_a, transpose_b, accumulate, operands, result, alignment_a, ..., leading_a, ..., algorithm (id, tile, stages, split_k,
/// reduction_scheme, swizzle, custom_option, inner_shape, cluster_shape; or null), microseconds, microseconds_first.
std::string to_json(const ProductsFile& file);
/// `name`: the file, for errors. Throws Error naming file, place and value where it is no such text or not all of it.
ProductsFile parse_products_file(const std::string& text, const std::string& name);

/// Shapes as bytes for other ranks, and back.
std::string to_json(const std::vector<ProductShape>& shapes);
std::vector<ProductShape> parse_product_shapes(const std::string& text);

}  // namespace vqlm
