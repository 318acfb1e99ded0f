// A rank file of a checkpoint: boxes of logical tensors, and beside it the table that says where they belong. Layout:
// docs/checkpoints.md.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "core/box.h"
#include "core/parameters.h"
#include "data/hdf5/h5.h"

namespace vqlm {

/// A box of a logical tensor, float32, as a dataset of a rank file.
struct FileSlice {
  std::string tensor;   // logical name
  std::string dataset;  // in the rank file: "NAME/0"
  h5::Dims global_shape;
  h5::Dims offset;  // of the box in the logical tensor
  h5::Dims count;
  std::uint64_t first_byte = 0;  // of the box's elements in the rank file, one contiguous piece
  std::string xxh3;              // XXH3-64 of these bytes, 16 hex digits

  std::uint64_t bytes() const { return h5::element_count(count) * sizeof(float); }
};

/// What there is to know of a rank file without opening it as HDF5, which may crash on one that is damaged.
struct RankTable {
  std::string file;         // "rank-00000.h5"
  std::uint64_t bytes = 0;  // of the whole file
  std::string xxh3;         // of the whole file
  std::vector<FileSlice> slices;
};

/// "rank-00000.h5" and "rank-00000.json", its table.
std::string rank_file_name(int rank);
std::string rank_table_name(int rank);

/// Writes `folder`/rank-..., and its table when finished. From any one thread; no other rank is asked. Values go to HDF5
/// in pieces of a few MiB, so that its process-wide lock is free for a loader in between. Errors: Error naming the file.
class RankFileWriter {
 public:
  RankFileWriter(const std::filesystem::path& folder, int rank);

  /// A box (offset and extent) of the logical tensor `name`; `values` row-major, as many as it has elements. Boxes of one
  /// tensor may come in any order and number; over all rank files they must cover it once.
  void add(const std::string& name, const Shape& global_shape, const Box& box, std::span<const float> values);
  /// Closes, hashes and syncs the file and writes the table, durably; nothing may be added afterwards.
  void finish();

 private:
  std::filesystem::path folder_;
  int rank_;
  h5::File file_;
  std::map<std::string, int> next_;  // number of the next dataset, by tensor
  RankTable table_;
};

/// The table in `folder`/NAME (rank_table_name). Throws Error naming it where it cannot be read or is no table.
RankTable read_rank_table(const std::filesystem::path& folder, const std::string& name);

}  // namespace vqlm
