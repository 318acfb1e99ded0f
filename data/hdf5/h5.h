// HDF5 files as owning handles: shards, code maps and checkpoints read and write through these and nothing
// else.
//
// Threads: every call takes one process-wide lock inside h5.cpp, so files may be used from several threads
// (the batch loader reads while a checkpoint is written) whether or not the HDF5 library was built
// thread-safe. One handle belongs to one thread at a time.
//
// Errors: vqlm::Error, one line with the file, the dataset or attribute, and HDF5's own innermost message.
//
// Files are written in HDF5's 1.10 format: all its metadata carries checksums, so a flipped byte is found on
// reading. Strings have fixed length for the same reason (variable-length ones live in a heap without
// checksums). Creation times are left out: the same contents give the same bytes.
#pragma once

#include <hdf5.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/error.h"

namespace vqlm::h5 {

enum class Type : std::uint8_t { f32, f64, i32, i64, u8, u16, u32, u64 };

std::size_t size_of(Type type);

/// The Type of a C++ type.
template <class T>
constexpr Type type_of();
template <>
constexpr Type type_of<float>() {
  return Type::f32;
}
template <>
constexpr Type type_of<double>() {
  return Type::f64;
}
template <>
constexpr Type type_of<std::int32_t>() {
  return Type::i32;
}
template <>
constexpr Type type_of<std::int64_t>() {
  return Type::i64;
}
template <>
constexpr Type type_of<std::uint8_t>() {
  return Type::u8;
}
template <>
constexpr Type type_of<std::uint16_t>() {
  return Type::u16;
}
template <>
constexpr Type type_of<std::uint32_t>() {
  return Type::u32;
}
template <>
constexpr Type type_of<std::uint64_t>() {
  return Type::u64;
}

/// Extents, offsets and counts; 0 (scalar) to 4 axes.
using Dims = std::vector<std::uint64_t>;

std::uint64_t element_count(const Dims& dims);

/// Owns one HDF5 identifier and closes it; an error of closing in the destructor is logged.
class Handle {
 public:
  using Close = herr_t (*)(hid_t);

  Handle() = default;
  Handle(hid_t id, Close close_function) : id_(id), close_(close_function) {}
  Handle(Handle&& other) noexcept { *this = std::move(other); }
  Handle& operator=(Handle&& other) noexcept {
    std::swap(id_, other.id_);
    std::swap(close_, other.close_);
    return *this;
  }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  ~Handle();

  hid_t id() const { return id_; }
  /// Closes now; false where HDF5 reports an error. The handle is empty afterwards.
  bool close();

 private:
  hid_t id_ = H5I_INVALID_HID;
  Close close_ = nullptr;
};

/// A file (its root group) or a dataset, as far as they have things in common: attributes.
class Object {
 public:
  void set_attribute(const std::string& name, const std::string& value);
  void set_attribute(const std::string& name, const char* value) { set_attribute(name, std::string(value)); }
  void set_attribute(const std::string& name, std::int64_t value);
  void set_attribute(const std::string& name, double value);
  void set_attribute(const std::string& name, const std::vector<std::string>& values);

  bool has_attribute(const std::string& name) const;
  /// Each throws where the attribute is missing or of another kind.
  std::string string_attribute(const std::string& name) const;
  std::int64_t int_attribute(const std::string& name) const;
  double double_attribute(const std::string& name) const;
  std::vector<std::string> strings_attribute(const std::string& name) const;

  /// Returns the object's name for messages: "shards/train-00000.h5: /tokens".
  const std::string& label() const { return label_; }

 protected:
  Object() = default;
  Object(std::shared_ptr<Handle> object, std::string label) : object_(std::move(object)), label_(std::move(label)) {}

  hid_t id() const { return object_ ? object_->id() : H5I_INVALID_HID; }

  std::shared_ptr<Handle> object_;
  std::string label_;

 private:
  void write_attribute(const std::string& name, hid_t type, hid_t space, const void* value);
  Handle open_attribute(const std::string& name) const;
};

/// The layout of a dataset in the file. An empty chunk stores it in one contiguous piece; filters need a chunk.
struct Storage {
  Dims chunk;
  int deflate = 0;          // 0 (off) to 9
  bool shuffle = false;     // bytes of equal significance together, before deflate
  bool fletcher32 = false;  // checksum of every chunk, checked on reading
  bool extendible = false;  // the first axis may grow with extend()
};

class Dataset : public Object {
 public:
  const Dims& shape() const { return shape_; }
  /// The stored type. Reading and writing with another memory type converts.
  Type type() const { return type_; }
  /// Extents of a chunk; empty where the dataset is not chunked.
  Dims chunk() const;
  /// HDF5's numbers of the filters in the order of writing (H5Z_FILTER_SHUFFLE, ...).
  std::vector<int> filters() const;

  /// Reads the box [offset, offset + count), row-major, into `out` (exactly the box's number of elements).
  template <class T>
  void read(std::span<T> out, const Dims& offset, const Dims& count) const {
    VQLM_ASSERT(out.size() == element_count(count));
    read_box(out.data(), type_of<T>(), offset, count);
  }
  template <class T>
  std::vector<T> read_all() const {
    std::vector<T> values(element_count(shape_));
    read_box(values.data(), type_of<T>(), Dims(shape_.size(), 0), shape_);
    return values;
  }
  template <class T>
  void write(std::span<const T> in, const Dims& offset, const Dims& count) {
    VQLM_ASSERT(in.size() == element_count(count));
    write_box(in.data(), type_of<T>(), offset, count);
  }
  template <class T>
  void write_all(std::span<const T> in) {
    VQLM_ASSERT(in.size() == element_count(shape_));
    write_box(in.data(), type_of<T>(), Dims(shape_.size(), 0), shape_);
  }
  /// Read and write a box whose memory type is known at run time only.
  void read_box(void* out, Type type, const Dims& offset, const Dims& count) const;
  void write_box(const void* in, Type type, const Dims& offset, const Dims& count);

  /// Sets the extent of the first axis of an extendible dataset.
  void extend(std::uint64_t extent);

  /// The stored bytes of the chunk that begins at `offset`, before any filter is undone; resized to fit. The
  /// result has a bit set for every filter of the pipeline that was skipped for this chunk.
  std::uint32_t read_raw_chunk(std::vector<std::uint8_t>& bytes, const Dims& offset) const;

  /// Throws Error where the file holds too few bytes for this shape to have been written: a size that a damaged file makes
  /// up must not decide how much memory and time reading takes. Filters: at most deflate.
  void require_stored() const;

  /// Returns the place in the file where the elements of a dataset without chunks begin, row-major; it must have been
  /// written.
  std::uint64_t file_offset() const;

  void close();

 private:
  friend class File;
  Dataset(std::shared_ptr<Handle> file, Handle dataset, std::string label);

  std::shared_ptr<Handle> file_;  // the file stays open as long as its datasets
  Dims shape_;
  Type type_ = Type::f32;
};

/// A box of a virtual dataset and where its elements lie: `count` at `offset` of the virtual dataset are
/// `source_count` at `source_offset` of `dataset` in `file` (relative names are looked up beside the virtual
/// file). The ranks may differ; the numbers of elements must not.
struct VirtualSource {
  std::string file;
  std::string dataset;
  Dims source_shape;
  Dims source_offset;
  Dims source_count;
  Dims offset;
  Dims count;
};

class File : public Object {
 public:
  /// Opens for reading. Takes no file lock: many ranks read, and some cluster file systems have no locks.
  static File open(const std::string& path);
  /// Creates, replacing what is there.
  static File create(const std::string& path);

  const std::string& path() const { return label_; }

  bool exists(const std::string& name) const;
  /// Names of the datasets and groups directly in `group`, in alphabetical order.
  std::vector<std::string> names(const std::string& group = "/") const;

  Dataset dataset(const std::string& name) const;
  /// Groups on the way to `name` are made as needed.
  Dataset create_dataset(const std::string& name, Type type, const Dims& shape, const Storage& storage = {});
  /// A whole dataset at once, closed with errors checked: HDF5 may write a chunk no sooner than that.
  template <class T>
  void write_dataset(const std::string& name, const Dims& shape, std::span<const T> values, const Storage& storage) {
    Dataset dataset = create_dataset(name, type_of<T>(), shape, storage);
    dataset.write_all(values);
    dataset.close();
  }
  /// A dataset without data of its own. Elements that no source covers, or whose file is gone, read as NaN, integers as 0.
  Dataset create_virtual_dataset(const std::string& name, Type type, const Dims& shape,
                                 const std::vector<VirtualSource>& sources);

  void flush();
  /// Closes with errors checked; all datasets must be gone by then. Without it the destructor closes and
  /// logs.
  void close();

 private:
  File(Handle file, const std::string& path);

  Dataset make_dataset(const std::string& name, Type type, const Dims& shape, const Dims& max_shape, hid_t creation);
};

}  // namespace vqlm::h5
