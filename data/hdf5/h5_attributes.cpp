// Attributes of files and datasets (h5.h, class Object).
#include <spdlog/fmt/fmt.h>

#include <algorithm>

#include "data/hdf5/h5.h"
#include "data/hdf5/h5_internal.h"

namespace vqlm::h5 {
namespace {

/// UTF-8 text of `bytes` bytes, padded with zeros. HDF5 has no strings of length 0.
Handle string_type(std::size_t bytes, const std::string& label) {
  Handle type(check(H5Tcopy(H5T_C_S1), label, "make a string type"), H5Tclose);
  check(H5Tset_size(type.id(), std::max<std::size_t>(bytes, 1)), label, "make a string type");
  check(H5Tset_strpad(type.id(), H5T_STR_NULLPAD), label, "make a string type");
  check(H5Tset_cset(type.id(), H5T_CSET_UTF8), label, "make a string type");
  return type;
}

Handle scalar_space(const std::string& label) {
  return {check(H5Screate(H5S_SCALAR), label, "make a dataspace"), H5Sclose};
}

/// Values of an attribute of strings, of fixed or (files made elsewhere, by h5py for one) variable length.
std::vector<std::string> read_strings(const Handle& attribute, const std::string& label) {
  Handle type(check(H5Aget_type(attribute.id()), label, "read"), H5Tclose);
  if (H5Tget_class(type.id()) != H5T_STRING) throw Error(fmt::format("{}: is not a string", label));
  Handle space(check(H5Aget_space(attribute.id()), label, "read"), H5Sclose);
  const auto n = static_cast<std::size_t>(check(H5Sget_simple_extent_npoints(space.id()), label, "read"));
  std::vector<std::string> values;
  if (n == 0) return values;
  if (check(H5Tis_variable_str(type.id()), label, "read") > 0) {
    std::vector<char*> pointers(n, nullptr);
    check(H5Aread(attribute.id(), type.id(), pointers.data()), label, "read");
    for (const char* pointer : pointers) values.emplace_back(pointer == nullptr ? "" : pointer);
    check(H5Dvlen_reclaim(type.id(), space.id(), H5P_DEFAULT, pointers.data()), label, "read");
    return values;
  }
  const std::size_t bytes = H5Tget_size(type.id());
  std::string text(n * bytes, '\0');
  check(H5Aread(attribute.id(), type.id(), text.data()), label, "read");
  for (std::size_t i = 0; i < n; ++i) {
    std::string value = text.substr(i * bytes, bytes);
    value.resize(std::min(value.find('\0'), value.size()));
    values.push_back(std::move(value));
  }
  return values;
}

/// Reads one number as `memory`, which must be of the class `kind`.
void read_number(const Handle& attribute, const std::string& label, H5T_class_t kind, hid_t memory, void* out) {
  Handle type(check(H5Aget_type(attribute.id()), label, "read"), H5Tclose);
  Handle space(check(H5Aget_space(attribute.id()), label, "read"), H5Sclose);
  if (H5Tget_class(type.id()) != kind || H5Sget_simple_extent_npoints(space.id()) != 1) {
    throw Error(fmt::format("{}: is not one {}", label, kind == H5T_INTEGER ? "integer" : "number"));
  }
  check(H5Aread(attribute.id(), memory, out), label, "read");
}

}  // namespace

void Object::write_attribute(const std::string& name, hid_t type, hid_t space, const void* value) {
  const std::string label = fmt::format("{}: attribute {}", label_, name);
  if (has_attribute(name)) check(H5Adelete(id(), name.c_str()), label, "replace");
  Handle attribute(check(H5Acreate2(id(), name.c_str(), type, space, H5P_DEFAULT, H5P_DEFAULT), label, "create"),
                   H5Aclose);
  check(H5Awrite(attribute.id(), type, value), label, "write");
}

void Object::set_attribute(const std::string& name, const std::string& value) {
  LibraryLock lock;
  Handle type = string_type(value.size(), label_);
  Handle space = scalar_space(label_);
  write_attribute(name, type.id(), space.id(), value.c_str());
}

void Object::set_attribute(const std::string& name, std::int64_t value) {
  LibraryLock lock;
  Handle space = scalar_space(label_);
  write_attribute(name, H5T_NATIVE_INT64, space.id(), &value);
}

void Object::set_attribute(const std::string& name, double value) {
  LibraryLock lock;
  Handle space = scalar_space(label_);
  write_attribute(name, H5T_NATIVE_DOUBLE, space.id(), &value);
}

void Object::set_attribute(const std::string& name, const std::vector<std::string>& values) {
  LibraryLock lock;
  std::size_t bytes = 1;
  for (const std::string& value : values) bytes = std::max(bytes, value.size());
  std::string text;
  for (const std::string& value : values) text += value + std::string(bytes - value.size(), '\0');
  Handle type = string_type(bytes, label_);
  const hsize_t n = values.size();
  Handle space(check(H5Screate_simple(1, &n, nullptr), label_, "make a dataspace"), H5Sclose);
  write_attribute(name, type.id(), space.id(), text.c_str());
}

bool Object::has_attribute(const std::string& name) const {
  LibraryLock lock;
  return check(H5Aexists(id(), name.c_str()), label_, "look for an attribute") > 0;
}

Handle Object::open_attribute(const std::string& name) const {
  if (!has_attribute(name)) throw Error(fmt::format("{}: has no attribute {}", label_, name));
  return {check(H5Aopen(id(), name.c_str(), H5P_DEFAULT), fmt::format("{}: attribute {}", label_, name), "open"),
          H5Aclose};
}

std::string Object::string_attribute(const std::string& name) const {
  LibraryLock lock;
  const std::string label = fmt::format("{}: attribute {}", label_, name);
  std::vector<std::string> values = read_strings(open_attribute(name), label);
  if (values.size() != 1) throw Error(fmt::format("{}: holds {} strings, not one", label, values.size()));
  return std::move(values[0]);
}

std::int64_t Object::int_attribute(const std::string& name) const {
  LibraryLock lock;
  std::int64_t value = 0;
  read_number(open_attribute(name), fmt::format("{}: attribute {}", label_, name), H5T_INTEGER, H5T_NATIVE_INT64,
              &value);
  return value;
}

double Object::double_attribute(const std::string& name) const {
  LibraryLock lock;
  double value = 0;
  read_number(open_attribute(name), fmt::format("{}: attribute {}", label_, name), H5T_FLOAT, H5T_NATIVE_DOUBLE,
              &value);
  return value;
}

std::vector<std::string> Object::strings_attribute(const std::string& name) const {
  LibraryLock lock;
  return read_strings(open_attribute(name), fmt::format("{}: attribute {}", label_, name));
}

}  // namespace vqlm::h5
