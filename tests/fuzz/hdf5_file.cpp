#include "tests/fuzz/hdf5_file.h"

namespace vqlm::fuzz {

namespace {

hid_t string_type(std::size_t bytes) {
  const hid_t type = H5Tcopy(H5T_C_S1);
  H5Tset_size(type, bytes);
  return type;
}

std::int64_t odd_number(Choices& choices) {
  constexpr std::int64_t limits[] = {
      -1, 0, 1, 2, 65535, 65536, 1 << 20, INT32_MAX, std::int64_t{INT32_MAX} + 1, INT64_MAX, INT64_MIN};
  const std::uint8_t choice = choices.byte();
  // Powers of two (and one more, for offsets), so that attributes and shapes can agree about what is too large.
  if (choice >= 128) return (std::int64_t{1} << (choice / 2 % 48)) + choice % 2;
  return choice < std::size(limits) ? limits[choice] : static_cast<std::int64_t>(choices.number());
}

void write_attribute(hid_t file, const char* name, hid_t type, hid_t space, const void* value) {
  const hid_t attribute = H5Acreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
  if (attribute >= 0) {
    if (value != nullptr) H5Awrite(attribute, type, value);
    H5Aclose(attribute);
  }
  H5Sclose(space);
}

}  // namespace

H5FileMaker::H5FileMaker(const std::string& path, Choices& choices) : choices_(choices) {
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
  file_ = H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
  if (file_ < 0) abort();
}

H5FileMaker::~H5FileMaker() {
  for (const hid_t type : types_) H5Tclose(type);
  H5Fclose(file_);
}

void H5FileMaker::attribute(const char* name, const std::string& expected) {
  const std::uint8_t choice = choices_.byte();
  if (choice > 1) return odd_attribute(name, choice);
  const std::string value = choice == 0 ? expected : choices_.text(200);
  const hid_t type = string_type(std::max<std::size_t>(value.size(), 1));
  write_attribute(file_, name, type, H5Screate(H5S_SCALAR), value.c_str());
  H5Tclose(type);
}

void H5FileMaker::attribute(const char* name, std::int64_t expected) {
  const std::uint8_t choice = choices_.byte();
  if (choice > 1) return odd_attribute(name, choice);
  const std::int64_t value = choice == 0 ? expected : odd_number(choices_);
  write_attribute(file_, name, H5T_NATIVE_INT64, H5Screate(H5S_SCALAR), &value);
}

void H5FileMaker::odd_attribute(const char* name, std::uint8_t choice) {
  const std::uint64_t numbers[4] = {choices_.number(), choices_.number(), 3, 4};
  const hsize_t extents[2] = {choice % 4u, 2};
  const std::string text = choices_.text(30) + std::string(1, '\0');
  const char* strings[4] = {text.c_str(), nullptr, "", "b"};
  switch (choice % 8) {
    case 0:
      return;  // missing
    case 1:
      return write_attribute(file_, name, odd_type(), H5Screate(H5S_SCALAR), nullptr);
    case 2:
      return write_attribute(file_, name, H5T_NATIVE_UINT64, H5Screate_simple(1, extents, nullptr), numbers);
    case 3:
      return write_attribute(file_, name, H5T_STD_U64BE, H5Screate(H5S_SCALAR), numbers);
    case 4:
      return write_attribute(file_, name, H5T_NATIVE_DOUBLE, H5Screate(H5S_SCALAR), numbers);
    case 5:
      return write_attribute(file_, name, H5T_NATIVE_INT64, H5Screate(H5S_NULL), nullptr);
    case 6: {
      types_.push_back(string_type(H5T_VARIABLE));
      return write_attribute(file_, name, types_.back(), H5Screate_simple(1, extents, nullptr), strings);
    }
    default: {
      types_.push_back(string_type(1 + choices_.byte()));
      return write_attribute(file_, name, types_.back(), H5Screate_simple(2, extents, nullptr), nullptr);
    }
  }
}

hid_t H5FileMaker::odd_type() {
  const hid_t simple[] = {H5T_STD_U16LE,  H5T_STD_U32BE, H5T_STD_I8LE,  H5T_STD_I64LE,   H5T_STD_U64LE,  H5T_IEEE_F32LE,
                          H5T_IEEE_F64BE, H5T_STD_B16LE, H5T_STD_I32LE, H5T_STD_REF_OBJ, H5T_UNIX_D32LE, H5T_STD_U8LE};
  const std::uint8_t choice = choices_.byte();
  if (choice < std::size(simple)) return simple[choice];
  hid_t type = H5I_INVALID_HID;
  const hsize_t extent = 2;
  switch (choice % 5) {
    case 0:
      type = string_type(H5T_VARIABLE);
      break;
    case 1:
      type = H5Tvlen_create(H5T_NATIVE_INT);
      break;
    case 2:
      type = H5Tarray_create2(H5T_NATIVE_INT, 1, &extent);
      break;
    case 3:
      type = H5Tcreate(H5T_OPAQUE, 1 + choice);
      break;
    default:
      type = H5Tcopy(H5T_STD_I32LE);
      H5Tset_precision(type, 1 + choice % 31);
  }
  types_.push_back(type);
  return type;
}

/// Chunks and filters.
hid_t H5FileMaker::storage(const std::vector<hsize_t>& shape) {
  const hid_t list = H5Pcreate(H5P_DATASET_CREATE);
  const std::uint8_t choice = choices_.byte();
  if (choice == 0 || shape.empty()) return list;
  std::vector<hsize_t> chunk(shape.size());
  for (hsize_t& extent : chunk) extent = 1 + choices_.byte();
  H5Pset_chunk(list, static_cast<int>(chunk.size()), chunk.data());
  if ((choice & 1) != 0) H5Pset_shuffle(list);
  if ((choice & 2) != 0) H5Pset_deflate(list, 1);
  if ((choice & 4) != 0) H5Pset_fletcher32(list);
  if ((choice & 8) != 0) H5Pset_deflate(list, 1);
  return list;
}

void H5FileMaker::dataset(const char* name, hid_t type, const std::vector<hsize_t>& shape,
                          const std::vector<std::int64_t>& values) {
  const std::uint8_t choice = choices_.byte();
  if (choice == 1) return;  // missing
  std::vector<hsize_t> extents = shape;
  std::vector<std::int64_t> contents = values;
  if ((choice & 2) != 0) type = odd_type();
  if ((choice & 4) != 0) {
    extents.assign(choices_.byte() % 6, 0);
    for (hsize_t& extent : extents) extent = choices_.byte();
  }
  // Large without data: such files are small, and must not decide how much memory a reader takes.
  if ((choice & 8) != 0 && !extents.empty()) extents[0] = static_cast<hsize_t>(odd_number(choices_));
  if ((choice & 16) != 0) {
    for (std::int64_t& value : contents) value = odd_number(choices_);
  }
  const std::vector<hsize_t> limits(extents.size(), H5S_UNLIMITED);
  const hid_t list = storage(extents);
  const bool chunked = H5Pget_layout(list) == H5D_CHUNKED;
  const hid_t space = extents.empty() ? H5Screate(H5S_SCALAR)
                                      : H5Screate_simple(static_cast<int>(extents.size()), extents.data(),
                                                         chunked ? limits.data() : nullptr);
  const hid_t made = H5Dcreate2(file_, name, type, space, H5P_DEFAULT, list, H5P_DEFAULT);
  if (made >= 0) {
    hsize_t count = 1;
    for (const hsize_t extent : extents) count *= extent;
    if (count <= contents.size() && (choice & 32) == 0) {
      H5Dwrite(made, H5T_NATIVE_INT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, contents.data());
    }
    H5Dclose(made);
  }
  H5Sclose(space);
  H5Pclose(list);
}

}  // namespace vqlm::fuzz
