// On a GPU the library itself decides.
#include "tests/cuda/unaligned_products.h"

namespace vqlm::testing {

UnalignedProducts::UnalignedProducts(Unaligned /*rule*/, const char* /*why*/) {}
UnalignedProducts::~UnalignedProducts() = default;

}  // namespace vqlm::testing
