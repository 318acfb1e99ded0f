#include "data/hdf5/h5.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <limits>

#include "core/log.h"
#include "data/hdf5/h5_internal.h"

namespace vqlm::h5 {
namespace {

/// Little-endian types of the file, so that its bytes do not depend on the machine.
hid_t file_type(Type type) {
  switch (type) {
    case Type::f32:
      return H5T_IEEE_F32LE;
    case Type::f64:
      return H5T_IEEE_F64LE;
    case Type::i32:
      return H5T_STD_I32LE;
    case Type::i64:
      return H5T_STD_I64LE;
    case Type::u8:
      return H5T_STD_U8LE;
    case Type::u16:
      return H5T_STD_U16LE;
    case Type::u32:
      return H5T_STD_U32LE;
    case Type::u64:
      return H5T_STD_U64LE;
  }
  return H5I_INVALID_HID;
}

Handle make_property_list(hid_t list_class, const std::string& label) {
  return {check(H5Pcreate(list_class), label, "make a property list"), H5Pclose};
}

/// Property list of an object's creation (H5P_DATASET_CREATE, H5P_GROUP_CREATE) that leaves out times: same contents, same
/// bytes.
Handle creation_properties(hid_t list_class, const std::string& label) {
  Handle list = make_property_list(list_class, label);
  check(H5Pset_obj_track_times(list.id(), false), label, "leave out times");
  return list;
}

/// Makes the groups on the way to `name` that are not there. (HDF5 would make them itself, but with times.)
void make_groups(hid_t file, const std::string& name, const std::string& label) {
  for (std::size_t end = name.find('/', 1); end != std::string::npos; end = name.find('/', end + 1)) {
    const std::string group = name.substr(0, end);
    if (check(H5Lexists(file, group.c_str(), H5P_DEFAULT), label, "look for a name") > 0) continue;
    const Handle creation = creation_properties(H5P_GROUP_CREATE, label);
    const hid_t id = H5Gcreate2(file, group.c_str(), H5P_DEFAULT, creation.id(), H5P_DEFAULT);
    const Handle made(check(id, label, "make a group"), H5Gclose);
  }
}

}  // namespace

std::vector<hsize_t> to_hsize(const Dims& dims) {
  return {dims.begin(), dims.end()};
}

Handle make_space(const Dims& shape, const Dims& max_shape, const std::string& label) {
  VQLM_ASSERT(shape.size() <= 4);
  if (shape.empty()) return {check(H5Screate(H5S_SCALAR), label, "make a dataspace"), H5Sclose};
  const auto extents = to_hsize(shape);
  auto limits = to_hsize(max_shape);
  return {check(H5Screate_simple(static_cast<int>(extents.size()), extents.data(),
                                 limits.empty() ? nullptr : limits.data()),
                label, "make a dataspace"),
          H5Sclose};
}

void select_box(const Handle& space, const Dims& offset, const Dims& count, const std::string& label) {
  VQLM_ASSERT(offset.size() == count.size());
  if (count.empty()) return;  // a scalar is selected whole
  const auto start = to_hsize(offset);
  const auto extent = to_hsize(count);
  check(H5Sselect_hyperslab(space.id(), H5S_SELECT_SET, start.data(), nullptr, extent.data(), nullptr), label,
        "select a box");
}

LibraryLock::LibraryLock() {
  // The process' only lock of HDF5 (see the class): state of the foreign library, not of ours.
  static std::recursive_mutex mutex;
  // After a failed write (full disk) HDF5 1.10 crashes in its clean-up at exit. Nothing needs that clean-up: our handles
  // close what they opened. Must come before any other call of the library.
  static const bool without_cleanup_at_exit = H5dont_atexit() >= 0;
  static_cast<void>(without_cleanup_at_exit);
  lock_ = std::unique_lock(mutex);
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
}

std::string innermost_message() {
  std::string message;
  const auto take_first = [](unsigned n, const H5E_error2_t* error, void* out) -> herr_t {
    if (n == 0 && error->desc != nullptr) *static_cast<std::string*>(out) = error->desc;
    return 0;
  };
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, take_first, &message);
  // "unable to open file: name = '...', errno = 2, error message = 'No such file or directory', flags = 0,
  // ..."
  constexpr std::string_view marker = "error message = '";
  if (const auto at = message.find(marker); at != std::string::npos) {
    const auto begin = at + marker.size();
    return message.substr(begin, message.find('\'', begin) - begin);
  }
  return message.empty() ? "no message from HDF5" : message;
}

void fail(const std::string& label, const std::string& action) {
  throw Error(fmt::format("{}: cannot {}: {}", label, action, innermost_message()));
}

hid_t memory_type(Type type) {
  switch (type) {
    case Type::f32:
      return H5T_NATIVE_FLOAT;
    case Type::f64:
      return H5T_NATIVE_DOUBLE;
    case Type::i32:
      return H5T_NATIVE_INT32;
    case Type::i64:
      return H5T_NATIVE_INT64;
    case Type::u8:
      return H5T_NATIVE_UINT8;
    case Type::u16:
      return H5T_NATIVE_UINT16;
    case Type::u32:
      return H5T_NATIVE_UINT32;
    case Type::u64:
      return H5T_NATIVE_UINT64;
  }
  return H5I_INVALID_HID;
}

std::size_t size_of(Type type) {
  switch (type) {
    case Type::u8:
      return 1;
    case Type::u16:
      return 2;
    case Type::f32:
    case Type::i32:
    case Type::u32:
      return 4;
    case Type::f64:
    case Type::i64:
    case Type::u64:
      return 8;
  }
  return 0;
}

std::uint64_t element_count(const Dims& dims) {
  std::uint64_t n = 1;
  for (const std::uint64_t extent : dims) n *= extent;
  return n;
}

Handle::~Handle() {
  if (!close()) log::warn("HDF5: closing a file or dataset failed: data may be missing from it");
}

bool Handle::close() {
  if (id_ < 0) return true;
  LibraryLock lock;
  return close_(std::exchange(id_, H5I_INVALID_HID)) >= 0;
}

// ---- File
// -----------------------------------------------------------------------------------------------------------

File::File(Handle file, const std::string& path) : Object(std::make_shared<Handle>(std::move(file)), path) {}

File File::open(const std::string& path) {
  LibraryLock lock;
  Handle access = make_property_list(H5P_FILE_ACCESS, path);
  check(H5Pset_file_locking(access.id(), false, true), path, "switch file locking off");
  const hid_t id = H5Fopen(path.c_str(), H5F_ACC_RDONLY, access.id());
  return File({check(id, path, "open"), H5Fclose}, path);
}

File File::create(const std::string& path) {
  LibraryLock lock;
  Handle access = make_property_list(H5P_FILE_ACCESS, path);
  check(H5Pset_file_locking(access.id(), false, true), path, "switch file locking off");
  check(H5Pset_libver_bounds(access.id(), H5F_LIBVER_V110, H5F_LIBVER_V110), path, "choose the file format");
  Handle creation = make_property_list(H5P_FILE_CREATE, path);
  check(H5Pset_obj_track_times(creation.id(), false), path, "leave out times");
  const hid_t id = H5Fcreate(path.c_str(), H5F_ACC_TRUNC, creation.id(), access.id());
  return File({check(id, path, "create"), H5Fclose}, path);
}

bool File::exists(const std::string& name) const {
  LibraryLock lock;
  // H5Lexists wants every group on the way to exist.
  for (std::size_t end = name.find('/', 1);; end = name.find('/', end + 1)) {
    const std::string prefix = name.substr(0, end);
    if (check(H5Lexists(id(), prefix.c_str(), H5P_DEFAULT), label_, "look for a name") == 0) return false;
    if (end == std::string::npos) return true;
  }
}

std::vector<std::string> File::names(const std::string& group) const {
  LibraryLock lock;
  const std::string label = fmt::format("{}: {}", label_, group);
  H5G_info_t info{};
  check(H5Gget_info_by_name(id(), group.c_str(), &info, H5P_DEFAULT), label, "list");
  std::vector<std::string> found;
  for (hsize_t i = 0; i < info.nlinks; ++i) {
    const auto by_index = [&](char* out, std::size_t size) {
      return check(H5Lget_name_by_idx(id(), group.c_str(), H5_INDEX_NAME, H5_ITER_INC, i, out, size, H5P_DEFAULT),
                   label, "list");
    };
    std::string name(static_cast<std::size_t>(by_index(nullptr, 0)), '\0');
    by_index(name.data(), name.size() + 1);
    found.push_back(std::move(name));
  }
  return found;
}

Dataset File::dataset(const std::string& name) const {
  LibraryLock lock;
  const std::string label = fmt::format("{}: {}", label_, name);
  if (!exists(name)) throw Error(fmt::format("{}: there is no dataset {}", label_, name));
  Handle dataset(check(H5Dopen2(id(), name.c_str(), H5P_DEFAULT), label, "open"), H5Dclose);
  return Dataset(object_, std::move(dataset), label);
}

Dataset File::make_dataset(const std::string& name, Type type, const Dims& shape, const Dims& max_shape,
                           hid_t creation) {
  const std::string label = fmt::format("{}: {}", label_, name);
  Handle space = make_space(shape, max_shape, label);
  make_groups(id(), name, label);
  const hid_t id_of_new =
      H5Dcreate2(id(), name.c_str(), file_type(type), space.id(), H5P_DEFAULT, creation, H5P_DEFAULT);
  return Dataset(object_, {check(id_of_new, label, "create"), H5Dclose}, label);
}

Dataset File::create_dataset(const std::string& name, Type type, const Dims& shape, const Storage& storage) {
  LibraryLock lock;
  VQLM_ASSERT(storage.chunk.empty() || storage.chunk.size() == shape.size());
  VQLM_ASSERT(!storage.chunk.empty() || (storage.deflate == 0 && !storage.shuffle && !storage.fletcher32));
  VQLM_ASSERT(!storage.extendible || !storage.chunk.empty());
  Handle creation = creation_properties(H5P_DATASET_CREATE, label_);
  if (!storage.chunk.empty()) {
    const auto extents = to_hsize(storage.chunk);
    check(H5Pset_chunk(creation.id(), static_cast<int>(extents.size()), extents.data()), label_, "set the chunk");
  }
  if (storage.shuffle) check(H5Pset_shuffle(creation.id()), label_, "set the shuffle filter");
  if (storage.deflate > 0) {
    check(H5Pset_deflate(creation.id(), static_cast<unsigned>(storage.deflate)), label_, "set the deflate filter");
  }
  if (storage.fletcher32) check(H5Pset_fletcher32(creation.id()), label_, "set the checksum");
  Dims max_shape = shape;
  if (storage.extendible) max_shape[0] = H5S_UNLIMITED;
  return make_dataset(name, type, shape, max_shape, creation.id());
}

Dataset File::create_virtual_dataset(const std::string& name, Type type, const Dims& shape,
                                     const std::vector<VirtualSource>& sources) {
  LibraryLock lock;
  Handle creation = creation_properties(H5P_DATASET_CREATE, label_);
  if (type == Type::f32) {  // what a source that is missing reads as: not the zeros of a model that seems to be there
    const float missing = std::numeric_limits<float>::quiet_NaN();
    check(H5Pset_fill_value(creation.id(), H5T_NATIVE_FLOAT, &missing), label_, "set the fill value");
  }
  Handle space = make_space(shape, {}, label_);
  for (const VirtualSource& source : sources) {
    VQLM_ASSERT(element_count(source.source_count) == element_count(source.count));
    Handle source_space = make_space(source.source_shape, {}, label_);
    select_box(source_space, source.source_offset, source.source_count, label_);
    select_box(space, source.offset, source.count, label_);
    check(H5Pset_virtual(creation.id(), space.id(), source.file.c_str(), source.dataset.c_str(), source_space.id()),
          label_, "map a virtual dataset");
  }
  return make_dataset(name, type, shape, {}, creation.id());
}

void File::flush() {
  LibraryLock lock;
  check(H5Fflush(id(), H5F_SCOPE_LOCAL), label_, "write");
}

void File::close() {
  LibraryLock lock;
  VQLM_ASSERT(object_.use_count() == 1);  // a dataset still holds the file open
  flush();
  if (!object_->close()) fail(label_, "close");
}

}  // namespace vqlm::h5
