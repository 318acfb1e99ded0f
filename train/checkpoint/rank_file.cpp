#include "train/checkpoint/rank_file.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "data/files/atomic_file.h"
#include "data/files/json_number.h"
#include "train/checkpoint/checkpoint_layout.h"
#include "train/checkpoint/hash.h"

namespace vqlm {
namespace {

// HDF5's lock is held for about a millisecond a piece while the system only copies it to its cache.
constexpr std::int64_t piece_elements = std::int64_t{1} << 20;

/// Writes a box's values and returns their hash.
std::string write_in_pieces(h5::Dataset& dataset, const Shape& shape, std::span<const float> values) {
  Xxh3 hash;
  std::size_t done = 0;
  for (std::int64_t begin = 0; begin < shape.numel(); begin += piece_elements) {
    for (const Box& box : boxes_of_range(shape, begin, std::min(begin + piece_elements, shape.numel()))) {
      const auto piece = values.subspan(done, static_cast<std::size_t>(box.extent.numel()));
      dataset.write(piece, dims_of(box.offset), dims_of(box.extent));
      hash.add(piece.data(), piece.size_bytes());  // nobody is kept from HDF5 meanwhile
      done += piece.size();
    }
  }
  return hash.hex();
}

void write_table(const std::filesystem::path& path, const RankTable& table) {
  nlohmann::ordered_json json;
  json["file"] = table.file;
  json["bytes"] = table.bytes;
  json["xxh3"] = table.xxh3;
  json["slices"] = nlohmann::ordered_json::array();
  for (const FileSlice& slice : table.slices) {
    json["slices"].push_back({{"name", slice.tensor},
                              {"dataset", slice.dataset},
                              {"global_shape", slice.global_shape},
                              {"offset", slice.offset},
                              {"count", slice.count},
                              {"first_byte", slice.first_byte},
                              {"xxh3", slice.xxh3}});
  }
  write_file_atomically(path.string(), json.dump(1) + '\n');
}

}  // namespace

std::string rank_file_name(int rank) {
  return fmt::format("rank-{:05d}.h5", rank);
}

std::string rank_table_name(int rank) {
  return fmt::format("rank-{:05d}.json", rank);
}

RankFileWriter::RankFileWriter(const std::filesystem::path& folder, int rank)
    : folder_(folder), rank_(rank), file_(h5::File::create((folder / rank_file_name(rank)).string())) {
  table_.file = rank_file_name(rank);
}

void RankFileWriter::add(const std::string& name, const Shape& global_shape, const Box& box,
                         std::span<const float> values) {
  VQLM_ASSERT(static_cast<std::int64_t>(values.size()) == box.extent.numel());
  FileSlice slice{.tensor = name,
                  .dataset = fmt::format("{}/{}", name, next_[name]++),
                  .global_shape = dims_of(global_shape),
                  .offset = dims_of(box.offset),
                  .count = dims_of(box.extent),
                  .xxh3 = {}};
  h5::Dataset dataset = file_.create_dataset(slice.dataset, h5::Type::f32, slice.count);
  slice.xxh3 = write_in_pieces(dataset, box.extent, values);
  slice.first_byte = dataset.file_offset();
  dataset.close();  // which writes what HDF5 still holds back
  table_.slices.push_back(std::move(slice));
}

void RankFileWriter::finish() {
  const std::filesystem::path path = folder_ / table_.file;
  file_.close();
  sync_to_disk(path.string());
  table_.bytes = std::filesystem::file_size(path);
  table_.xxh3 = xxh3_of_file(path);
  write_table(folder_ / rank_table_name(rank_), table_);
}

RankTable read_rank_table(const std::filesystem::path& folder, const std::string& name) {
  const std::string path = (folder / name).string();
  const std::string text = read_file(path);
  try {
    const nlohmann::json json = nlohmann::json::parse(text);
    RankTable table{.file = json.at("file"),
                    .bytes = whole_number<std::uint64_t>(json.at("bytes")),
                    .xxh3 = json.at("xxh3"),
                    .slices = {}};
    for (const auto& slice : json.at("slices")) {
      table.slices.push_back({.tensor = slice.at("name"),
                              .dataset = slice.at("dataset"),
                              .global_shape = whole_numbers<std::uint64_t>(slice.at("global_shape")),
                              .offset = whole_numbers<std::uint64_t>(slice.at("offset")),
                              .count = whole_numbers<std::uint64_t>(slice.at("count")),
                              .first_byte = whole_number<std::uint64_t>(slice.at("first_byte")),
                              .xxh3 = slice.at("xxh3")});
    }
    return table;
  } catch (const nlohmann::json::exception& e) {
    throw Error(fmt::format("{}: not a table of slices ({})", path, e.what()));
  } catch (const NotWholeNumber& e) {
    throw Error(fmt::format("{}: not a table of slices ({})", path, e.what()));
  }
}

}  // namespace vqlm
