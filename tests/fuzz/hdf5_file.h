// An HDF5 file made through the library, in which the input chooses what is wrong. The bytes of the file are not the
// input: README.md says why.
#pragma once

#include <hdf5.h>

#include <string>
#include <vector>

#include "tests/fuzz/fuzz.h"

namespace vqlm::fuzz {

/// Writes attributes and datasets, each as a reader expects it where the next byte of the input is 0 (or has ended).
class H5FileMaker {
 public:
  H5FileMaker(const std::string& path, Choices& choices);
  H5FileMaker(const H5FileMaker&) = delete;
  H5FileMaker& operator=(const H5FileMaker&) = delete;
  ~H5FileMaker();

  void attribute(const char* name, const std::string& expected);
  void attribute(const char* name, std::int64_t expected);
  /// type: as it is expected in the file.
  void dataset(const char* name, hid_t type, const std::vector<hsize_t>& shape,
               const std::vector<std::int64_t>& values);

 private:
  /// An attribute that is not as expected.
  void odd_attribute(const char* name, std::uint8_t choice);
  hid_t odd_type();
  hid_t storage(const std::vector<hsize_t>& shape);

  Choices& choices_;
  hid_t file_;
  std::vector<hid_t> types_;  // to close
};

}  // namespace vqlm::fuzz
