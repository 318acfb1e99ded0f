// The handles and checks that h5.cpp, h5_attributes.cpp and h5_dataset.cpp share. Not for other files.
#pragma once

#include <hdf5.h>

#include <mutex>
#include <string>
#include <vector>

#include "data/hdf5/h5.h"

namespace vqlm::h5 {

/// A lock that is held around every sequence of HDF5 calls. HDF5 keeps global state, and only some builds of it are
/// thread-safe; the lock is therefore one for the process, whoever opened the files. Also switches HDF5's own
/// printing of errors off, which is a setting of each thread.
class LibraryLock {
 public:
  LibraryLock();

 private:
  std::unique_lock<std::recursive_mutex> lock_;
};

/// The innermost message of HDF5's error stack (where it went wrong first), without the list of open flags.
std::string innermost_message();

/// Throws Error "label: cannot ACTION: innermost message". Call it before any other HDF5 call clears the
/// stack.
[[noreturn]] void fail(const std::string& label, const std::string& action);

/// Passes an identifier or a status through; negative ones fail().
template <class Result>
Result check(Result result, const std::string& label, const char* action) {
  if (result < 0) fail(label, action);
  return result;
}

hid_t memory_type(Type type);

std::vector<hsize_t> to_hsize(const Dims& dims);

/// A dataspace of `shape`; an empty max_shape means that the extents are fixed.
Handle make_space(const Dims& shape, const Dims& max_shape, const std::string& label);

/// Selects the box [offset, offset + count) of a dataspace.
void select_box(const Handle& space, const Dims& offset, const Dims& count, const std::string& label);

}  // namespace vqlm::h5
