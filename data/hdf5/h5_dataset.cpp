// Datasets of HDF5 files (h5.h, class Dataset).
#include <spdlog/fmt/fmt.h>

#include "data/hdf5/h5.h"
#include "data/hdf5/h5_internal.h"

namespace vqlm::h5 {
namespace {

Type stored_type(hid_t dataset, const std::string& label) {
  Handle type(check(H5Dget_type(dataset), label, "read the type"), H5Tclose);
  const H5T_class_t kind = H5Tget_class(type.id());
  const std::size_t bytes = H5Tget_size(type.id());
  if (kind == H5T_FLOAT && bytes == 4) return Type::f32;
  if (kind == H5T_FLOAT && bytes == 8) return Type::f64;
  if (kind == H5T_INTEGER) {
    const bool is_signed = H5Tget_sign(type.id()) == H5T_SGN_2;
    if (is_signed && bytes == 4) return Type::i32;
    if (is_signed && bytes == 8) return Type::i64;
    if (!is_signed && bytes == 1) return Type::u8;
    if (!is_signed && bytes == 2) return Type::u16;
    if (!is_signed && bytes == 4) return Type::u32;
    if (!is_signed && bytes == 8) return Type::u64;
  }
  throw Error(
      fmt::format("{}: elements of HDF5 class {} with {} bytes are not supported; store f32, f64, i32, i64, "
                  "u8, u16, u32 or u64",
                  label, static_cast<int>(kind), bytes));
}

}  // namespace

// --------------------------------------------------------------------------------------------------------

Dataset::Dataset(std::shared_ptr<Handle> file, Handle dataset, std::string label)
    : Object(std::make_shared<Handle>(std::move(dataset)), std::move(label)), file_(std::move(file)) {
  Handle space(check(H5Dget_space(id()), label_, "read the shape"), H5Sclose);
  const int rank = check(H5Sget_simple_extent_ndims(space.id()), label_, "read the shape");
  if (rank > 4) throw Error(fmt::format("{}: {} axes; at most 4 are supported", label_, rank));
  std::vector<hsize_t> extents(static_cast<std::size_t>(rank));
  check(H5Sget_simple_extent_dims(space.id(), extents.data(), nullptr), label_, "read the shape");
  shape_.assign(extents.begin(), extents.end());
  type_ = stored_type(id(), label_);
}

Dims Dataset::chunk() const {
  LibraryLock lock;
  Handle list(check(H5Dget_create_plist(id()), label_, "read the storage"), H5Pclose);
  if (H5Pget_layout(list.id()) != H5D_CHUNKED) return {};
  std::vector<hsize_t> extents(shape_.size());
  check(H5Pget_chunk(list.id(), static_cast<int>(extents.size()), extents.data()), label_, "read the storage");
  return {extents.begin(), extents.end()};
}

std::vector<int> Dataset::filters() const {
  LibraryLock lock;
  Handle list(check(H5Dget_create_plist(id()), label_, "read the storage"), H5Pclose);
  std::vector<int> found;
  const int n = check(H5Pget_nfilters(list.id()), label_, "read the filters");
  for (int i = 0; i < n; ++i) {
    unsigned flags = 0;
    std::size_t values = 0;
    found.push_back(
        check(H5Pget_filter2(list.id(), static_cast<unsigned>(i), &flags, &values, nullptr, 0, nullptr, nullptr),
              label_, "read the filters"));
  }
  return found;
}

void Dataset::read_box(void* out, Type type, const Dims& offset, const Dims& count) const {
  VQLM_ASSERT(count.size() == shape_.size());
  if (element_count(count) == 0) return;
  LibraryLock lock;
  Handle space(check(H5Dget_space(id()), label_, "read"), H5Sclose);
  select_box(space, offset, count, label_);
  Handle memory = make_space(count, {}, label_);
  check(H5Dread(id(), memory_type(type), memory.id(), space.id(), H5P_DEFAULT, out), label_, "read");
}

void Dataset::write_box(const void* in, Type type, const Dims& offset, const Dims& count) {
  VQLM_ASSERT(count.size() == shape_.size());
  if (element_count(count) == 0) return;
  LibraryLock lock;
  Handle space(check(H5Dget_space(id()), label_, "write"), H5Sclose);
  select_box(space, offset, count, label_);
  Handle memory = make_space(count, {}, label_);
  check(H5Dwrite(id(), memory_type(type), memory.id(), space.id(), H5P_DEFAULT, in), label_, "write");
}

void Dataset::extend(std::uint64_t extent) {
  VQLM_ASSERT(!shape_.empty());
  LibraryLock lock;
  Dims shape = shape_;
  shape[0] = extent;
  const auto extents = to_hsize(shape);
  check(H5Dset_extent(id(), extents.data()), label_, "extend");
  shape_ = shape;
}

std::uint32_t Dataset::read_raw_chunk(std::vector<std::uint8_t>& bytes, const Dims& offset) const {
  VQLM_ASSERT(offset.size() == shape_.size());
  LibraryLock lock;
  const auto at = to_hsize(offset);
  hsize_t stored = 0;
  check(H5Dget_chunk_storage_size(id(), at.data(), &stored), label_, "find a chunk");
  bytes.resize(stored);
  std::uint32_t skipped = 0;
  check(H5Dread_chunk(id(), H5P_DEFAULT, at.data(), &skipped, bytes.data()), label_, "read a chunk");
  return skipped;
}

void Dataset::require_stored() const {
  LibraryLock lock;
  // zlib's page of technical details: deflate makes data at most 1,032 times smaller. Small ones may be all fill value.
  constexpr std::uint64_t most_deflated = 1032;
  constexpr std::uint64_t small_bytes = std::uint64_t{1} << 20;
  const std::uint64_t most_bytes = H5Dget_storage_size(id()) * most_deflated + small_bytes;
  std::uint64_t elements = most_bytes / size_of(type_);
  for (const std::uint64_t extent : shape_) elements = extent == 0 ? elements : elements / extent;
  if (elements == 0) {
    throw Error(fmt::format("{}: the file is too small for the elements that its shape tells; it is damaged", label_));
  }
}

std::uint64_t Dataset::file_offset() const {
  LibraryLock lock;
  const haddr_t begin = H5Dget_offset(id());
  if (begin == HADDR_UNDEF) fail(label_, "tell where in the file the elements are");
  return begin;
}

void Dataset::close() {
  LibraryLock lock;
  if (!object_->close()) fail(label_, "close");
  file_.reset();
}

}  // namespace vqlm::h5
