#include "train/engine/products_file.h"

#include <spdlog/fmt/fmt.h>

#include <array>
#include <bit>
#include <limits>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

#include "core/error.h"

namespace vqlm {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr std::string_view format_name = "vqlm products";
constexpr int format_version = 1;

/// A value of the file that is not what it should be.
class BadValue : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

const json& member(const json& object, const char* key) {
  if (!object.is_object() || !object.contains(key)) throw BadValue(fmt::format("\"{}\" is missing", key));
  return object.at(key);
}

std::int64_t whole_number(const json& object, const char* key, std::int64_t least, std::int64_t most) {
  const json& value = member(object, key);
  const bool fits = value.is_number_integer() &&
                    !(value.is_number_unsigned() && value.get<std::uint64_t>() > std::uint64_t{1} << 62) &&
                    value.get<std::int64_t>() >= least && value.get<std::int64_t>() <= most;
  if (!fits)
    throw BadValue(fmt::format("\"{}\" = {} is no whole number from {} to {}", key, value.dump(), least, most));
  return value.get<std::int64_t>();
}

template <class T>
void read_number(const json& object, const char* key, T& target, T least = std::numeric_limits<T>::min()) {
  constexpr std::int64_t all = std::numeric_limits<std::int64_t>::max();
  constexpr std::int64_t most = std::cmp_less(std::numeric_limits<T>::max(), all)
                                    ? static_cast<std::int64_t>(std::numeric_limits<T>::max())
                                    : all;
  target = static_cast<T>(whole_number(object, key, static_cast<std::int64_t>(least), most));
}

std::string text(const json& object, const char* key) {
  const json& value = member(object, key);
  if (!value.is_string()) throw BadValue(fmt::format("\"{}\" = {} is no text", key, value.dump()));
  return value.get<std::string>();
}

bool yes_or_no(const json& object, const char* key) {
  const json& value = member(object, key);
  if (!value.is_boolean()) throw BadValue(fmt::format("\"{}\" = {} is neither true nor false", key, value.dump()));
  return value.get<bool>();
}

double positive_number(const json& object, const char* key) {
  const json& value = member(object, key);
  if (!value.is_number() || !(value.get<double>() >= 0))
    throw BadValue(fmt::format("\"{}\" = {} is no number from 0 on", key, value.dump()));
  return value.get<double>();
}

DType dtype(const json& object, const char* key) {
  const std::string name = text(object, key);
  for (const DType type : {DType::f32, DType::bf16}) {
    if (name == name_of(type)) return type;
  }
  throw BadValue(fmt::format("\"{}\" = \"{}\" is neither f32 nor bf16", key, name));
}

ordered_json shape_json(const ProductShape& shape) {
  return {{"m", shape.m},
          {"n", shape.n},
          {"k", shape.k},
          {"transpose_a", shape.ta == Transpose::yes},
          {"transpose_b", shape.tb == Transpose::yes},
          {"accumulate", shape.accumulate == Accumulate::yes},
          {"operands", name_of(shape.operands)},
          {"result", name_of(shape.result)},
          {"alignment_a", shape.alignment_a},
          {"alignment_b", shape.alignment_b},
          {"alignment_c", shape.alignment_c},
          {"leading_a", shape.leading_a},
          {"leading_b", shape.leading_b},
          {"leading_c", shape.leading_c}};
}

ProductShape shape_of(const json& entry) {
  ProductShape shape;
  read_number(entry, "m", shape.m, std::int64_t{1});
  read_number(entry, "n", shape.n, std::int64_t{1});
  read_number(entry, "k", shape.k, std::int64_t{1});
  shape.ta = yes_or_no(entry, "transpose_a") ? Transpose::yes : Transpose::no;
  shape.tb = yes_or_no(entry, "transpose_b") ? Transpose::yes : Transpose::no;
  shape.accumulate = yes_or_no(entry, "accumulate") ? Accumulate::yes : Accumulate::no;
  shape.operands = dtype(entry, "operands");
  shape.result = dtype(entry, "result");
  const auto read_alignment = [&](const char* key, int& target) {
    target = static_cast<int>(whole_number(entry, key, 1, 256));
    if (!std::has_single_bit(static_cast<unsigned>(target)))
      throw BadValue(fmt::format("\"{}\" = {} is no power of two", key, target));
  };
  read_alignment("alignment_a", shape.alignment_a);
  read_alignment("alignment_b", shape.alignment_b);
  read_alignment("alignment_c", shape.alignment_c);
  read_number(entry, "leading_a", shape.leading_a, shape.columns_a());
  read_number(entry, "leading_b", shape.leading_b, shape.columns_b());
  read_number(entry, "leading_c", shape.leading_c, shape.n);
  return shape;
}

ordered_json algorithm_json(const std::optional<ProductAlgorithm>& algorithm) {
  if (!algorithm) return nullptr;
  return {{"id", algorithm->id},
          {"tile", algorithm->tile},
          {"stages", algorithm->stages},
          {"split_k", algorithm->split_k},
          {"reduction_scheme", algorithm->reduction_scheme},
          {"swizzle", algorithm->swizzle},
          {"custom_option", algorithm->custom_option},
          {"inner_shape", algorithm->inner_shape},
          {"cluster_shape", algorithm->cluster_shape}};
}

std::optional<ProductAlgorithm> algorithm_of(const json& entry) {
  const json& value = member(entry, "algorithm");
  if (value.is_null()) return std::nullopt;
  ProductAlgorithm algorithm;
  read_number(value, "id", algorithm.id);
  read_number(value, "tile", algorithm.tile);
  read_number(value, "stages", algorithm.stages);
  read_number(value, "split_k", algorithm.split_k);
  read_number(value, "reduction_scheme", algorithm.reduction_scheme);
  read_number(value, "swizzle", algorithm.swizzle);
  read_number(value, "custom_option", algorithm.custom_option);
  read_number(value, "inner_shape", algorithm.inner_shape);
  read_number(value, "cluster_shape", algorithm.cluster_shape);
  return algorithm;
}

ProductsFile contents_of(const json& root, std::size_t& entry) {
  if (!root.is_object() || !root.contains("format") || root.at("format") != format_name)
    throw BadValue(fmt::format("\"format\" is not \"{}\"", format_name));
  if (const std::int64_t version = whole_number(root, "version", 1, 1 << 30); version != format_version)
    throw BadValue(fmt::format("\"version\" = {}, and this program reads {}", version, format_version));
  ProductsFile file;
  file.machine.device = text(root, "device");
  read_number(root, "compute_capability", file.machine.compute_capability);
  read_number(root, "multiprocessors", file.machine.multiprocessors);
  file.machine.library = text(root, "library");
  const json& products = member(root, "products");
  if (!products.is_array()) throw BadValue("\"products\" is no list");
  ProductChoices seen;
  for (const json& value : products) {
    ++entry;
    TunedProduct product{.shape = shape_of(value), .algorithm = algorithm_of(value)};
    product.microseconds = positive_number(value, "microseconds");
    product.microseconds_first = positive_number(value, "microseconds_first");
    if (!seen.emplace(product.shape, product.algorithm).second)
      throw BadValue(fmt::format("a second algorithm for {}", product.shape.str()));
    file.products.push_back(product);
  }
  return file;
}

}  // namespace

ProductChoices ProductsFile::choices() const {
  ProductChoices choices;
  for (const TunedProduct& product : products) choices.emplace(product.shape, product.algorithm);
  return choices;
}

std::string to_json(const ProductsFile& file) {
  ordered_json root = {{"format", format_name},
                       {"version", format_version},
                       {"device", file.machine.device},
                       {"compute_capability", file.machine.compute_capability},
                       {"multiprocessors", file.machine.multiprocessors},
                       {"library", file.machine.library}};
  root["products"] = ordered_json::array();
  for (const TunedProduct& product : file.products) {
    ordered_json entry = shape_json(product.shape);
    entry["algorithm"] = algorithm_json(product.algorithm);
    entry["microseconds"] = product.microseconds;
    entry["microseconds_first"] = product.microseconds_first;
    root["products"].push_back(std::move(entry));
  }
  return root.dump(1) + "\n";
}

ProductsFile parse_products_file(const std::string& text, const std::string& name) {
  constexpr std::string_view way_out = "make it by vqlm tune --out, or go without it (run.products_file)";
  std::size_t entry = 0;
  try {
    return contents_of(json::parse(text), entry);
  } catch (const json::parse_error& error) {
    throw Error(fmt::format("{}: is no products file, or not all of one: no JSON at byte {} of {}; {}", name,
                            error.byte, text.size(), way_out));
  } catch (const json::exception& error) {  // a number that no double holds
    throw Error(fmt::format("{}: is no products file: {}; {}", name, error.what(), way_out));
  } catch (const BadValue& bad) {
    const std::string where = entry == 0 ? "" : fmt::format("product {}: ", entry);
    throw Error(fmt::format("{}: is no products file: {}{}; {}", name, where, bad.what(), way_out));
  }
}

std::string to_json(const std::vector<ProductShape>& shapes) {
  ordered_json list = ordered_json::array();
  for (const ProductShape& shape : shapes) list.push_back(shape_json(shape));
  return list.dump();
}

std::vector<ProductShape> parse_product_shapes(const std::string& text) {
  std::vector<ProductShape> shapes;
  for (const json& entry : json::parse(text)) shapes.push_back(shape_of(entry));
  return shapes;
}

}  // namespace vqlm
