// Sizes of memory in words.
#pragma once

#include <string>

namespace vqlm {

/// "123 B", "1.5 KiB", "12.34 GiB": three or four digits.
std::string human_bytes(double bytes);

}  // namespace vqlm
