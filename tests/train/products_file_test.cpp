// The file of tuned products: every field comes back, and everything that is not as it should be is refused by name.
#include "train/engine/products_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/error.h"

namespace vqlm {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::EndsWith;
using testing::HasSubstr;
using testing::StartsWith;

ProductsFile example() {
  ProductsFile file{.machine = {"NVIDIA H200", 90, 132, "cuBLASLt 13.1.0"}, .products = {}};
  file.products.push_back({.shape = {.m = 5336,
                                     .n = 50304,
                                     .k = 768,
                                     .ta = Transpose::yes,
                                     .tb = Transpose::no,
                                     .accumulate = Accumulate::yes,
                                     .operands = DType::bf16,
                                     .result = DType::f32,
                                     .alignment_a = 2,
                                     .alignment_b = 16,
                                     .alignment_c = 128,
                                     .leading_a = 5344,
                                     .leading_b = 50305,
                                     .leading_c = 50306},
                           .algorithm = ProductAlgorithm{.id = 66,
                                                         .tile = 4000000000u,
                                                         .stages = 36,
                                                         .split_k = 3,
                                                         .reduction_scheme = 2,
                                                         .swizzle = 1,
                                                         .custom_option = 7,
                                                         .inner_shape = 65535,
                                                         .cluster_shape = 3},
                           .microseconds = 12.25,
                           .microseconds_first = 13.5});
  file.products.push_back(
      {.shape = {.m = 1, .n = 1, .k = 1, .tb = Transpose::yes, .leading_a = 1, .leading_b = 1, .leading_c = 1},
       .algorithm = std::nullopt});
  return file;
}

std::string refusal(const std::string& text) {
  try {
    parse_products_file(text, "p.json");
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

/// What is said to the example with another value at this place.
std::string refusal(const char* pointer, const json& value) {
  json file = json::parse(to_json(example()));
  file[json::json_pointer(pointer)] = value;
  return refusal(file.dump());
}

TEST(ProductsFile, ComesBackWhole) {
  const ProductsFile file = example(), read = parse_products_file(to_json(file), "p.json");
  EXPECT_EQ(read.machine, file.machine);
  ASSERT_EQ(read.products.size(), file.products.size());
  for (std::size_t i = 0; i < file.products.size(); ++i) {
    EXPECT_EQ(read.products[i].shape, file.products[i].shape);
    EXPECT_EQ(read.products[i].algorithm, file.products[i].algorithm);
    EXPECT_EQ(read.products[i].microseconds, file.products[i].microseconds);
    EXPECT_EQ(read.products[i].microseconds_first, file.products[i].microseconds_first);
  }
  EXPECT_EQ(read.choices().size(), 2u);
  EXPECT_EQ(read.choices().at(file.products[0].shape), file.products[0].algorithm);
  EXPECT_EQ(to_json(read), to_json(file));
}

TEST(ProductsFile, ShapesDifferInEveryField) {
  json file = json::parse(to_json(example()));
  const ProductShape shape = example().products[0].shape;
  const json others = json::object({{"m", 5335},
                                    {"n", 50303},
                                    {"k", 767},
                                    {"transpose_b", true},
                                    {"accumulate", false},
                                    {"operands", "f32"},
                                    {"result", "bf16"},
                                    {"alignment_a", 4},
                                    {"alignment_b", 32},
                                    {"alignment_c", 256},
                                    {"leading_a", 5345},
                                    {"leading_b", 50310},
                                    {"leading_c", 50307}});
  for (const auto& [key, value] : others.items()) {
    json changed = file;
    changed["products"][0][key] = value;
    EXPECT_NE(parse_products_file(changed.dump(), "p.json").products[0].shape, shape) << key;
  }
}

TEST(ProductsFile, AnyCutOfItIsRefused) {
  const std::string text = to_json(example());
  for (std::size_t bytes = 0; bytes + 2 < text.size(); ++bytes) {
    EXPECT_THAT(refusal(text.substr(0, bytes)),
                AllOf(StartsWith("p.json: is no products file, or not all of one: no JSON at byte "),
                      EndsWith("make it by vqlm tune --out, or go without it (run.products_file)")));
  }
}

TEST(ProductsFile, EveryKeyIsAskedFor) {
  const json file = json::parse(to_json(example()));
  for (const auto& [key, value] : file.items()) {
    json without = file;
    without.erase(key);
    EXPECT_THAT(refusal(without.dump()), HasSubstr("\"" + key + "\"")) << key;
  }
  for (const auto& [key, value] : file["products"][0].items()) {
    json without = file;
    without["products"][0].erase(key);
    EXPECT_THAT(refusal(without.dump()),
                HasSubstr("p.json: is no products file: product 1: \"" + key + "\" is missing"));
  }
  for (const auto& [key, value] : file["products"][0]["algorithm"].items()) {
    json without = file;
    without["products"][0]["algorithm"].erase(key);
    EXPECT_THAT(refusal(without.dump()), HasSubstr("product 1: \"" + key + "\" is missing"));
  }
}

TEST(ProductsFile, ValuesAreNamed) {
  EXPECT_THAT(
      refusal(R"({"format": "vqlm products", "version": 1e999})"),
      AllOf(StartsWith("p.json: is no products file: "), HasSubstr("1e999"), HasSubstr("make it by vqlm tune")));
  EXPECT_THAT(refusal("[]"), HasSubstr("\"format\" is not \"vqlm products\""));
  EXPECT_THAT(refusal("/version", 2), HasSubstr("\"version\" = 2, and this program reads 1"));
  EXPECT_THAT(refusal("/device", 7), HasSubstr("\"device\" = 7 is no text"));
  EXPECT_THAT(refusal("/products", 7), HasSubstr("\"products\" is no list"));
  EXPECT_THAT(refusal("/products/1/m", 0), HasSubstr("product 2: \"m\" = 0 is no whole number from 1 to "));
  EXPECT_THAT(refusal("/products/0/m", 1.5), HasSubstr("\"m\" = 1.5 is no whole number"));
  EXPECT_THAT(refusal("/products/0/m", 18446744073709551615u),
              HasSubstr("\"m\" = 18446744073709551615 is no whole number"));
  EXPECT_THAT(refusal("/products/0/accumulate", 1), HasSubstr("\"accumulate\" = 1 is neither true nor false"));
  EXPECT_THAT(refusal("/products/0/operands", "fp8"), HasSubstr("\"operands\" = \"fp8\" is neither f32 nor bf16"));
  EXPECT_THAT(refusal("/products/0/alignment_b", 24), HasSubstr("\"alignment_b\" = 24 is no power of two"));
  EXPECT_THAT(refusal("/products/0/alignment_b", 512), HasSubstr("no whole number from 1 to 256"));
  EXPECT_THAT(refusal("/products/0/leading_c", 50303),
              HasSubstr("\"leading_c\" = 50303 is no whole number from 50304 to "));
  EXPECT_THAT(refusal("/products/0/microseconds", -1), HasSubstr("\"microseconds\" = -1 is no number from 0 on"));
  EXPECT_THAT(refusal("/products/0/algorithm", 3), HasSubstr("\"id\" is missing"));
  EXPECT_THAT(refusal("/products/0/algorithm/inner_shape", 65536), HasSubstr("no whole number from 0 to 65535"));
  json twice = json::parse(to_json(example()));
  twice["products"].push_back(twice["products"][0]);
  EXPECT_THAT(refusal(twice.dump()),
              HasSubstr("product 3: a second algorithm for 5336 x 50304 x 768 (bf16 to f32, added"));
}

TEST(ProductsFile, ShapesTravel) {
  const std::vector<ProductShape> shapes = {example().products[0].shape, example().products[1].shape};
  EXPECT_EQ(parse_product_shapes(to_json(shapes)), shapes);
  EXPECT_TRUE(parse_product_shapes(to_json(std::vector<ProductShape>{})).empty());
}

}  // namespace
}  // namespace vqlm
