// The Python files of the native form (docs/convert.md), embedded by CMake from the .py files beside this one.
#pragma once

#include <string_view>

namespace vqlm {

extern const std::string_view configuration_vqlm_py;
extern const std::string_view modeling_vqlm_py;

}  // namespace vqlm
