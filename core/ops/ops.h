// The list of ops. A back end visits it; one that lacks an op does not link.
#pragma once

#include <variant>

#include "core/ops/matmul.h"

namespace vqlm {

using Op = std::variant<  //
    const Matmul*>;

}  // namespace vqlm
