// Products whose bf16 operands begin, or whose rows begin, off multiples of 8 elements: cuBLASLt has only its slowest
// kernels for them, or none. The host executor's stand-in refuses them, so that no layer makes one unnoticed.
#pragma once

namespace vqlm::testing {

enum class Unaligned {
  allowed,      // as the library does it, slowly
  unsupported,  // no algorithm is found
};

/// What the stand-in does with them while this lives; on a GPU nothing changes. `why`: why a test makes such products.
class UnalignedProducts {
 public:
  UnalignedProducts(Unaligned rule, const char* why);
  ~UnalignedProducts();
  UnalignedProducts(const UnalignedProducts&) = delete;
  UnalignedProducts& operator=(const UnalignedProducts&) = delete;
};

}  // namespace vqlm::testing
