// On the host executor: the stand-in's rule.
#include "tests/cuda/unaligned_products.h"
#include "tests/simt/cublaslt_rules.h"

namespace vqlm::testing {

UnalignedProducts::UnalignedProducts(Unaligned rule, const char* /*why*/) {
  simt::set_unaligned_operands(rule == Unaligned::allowed ? simt::UnalignedOperands::allowed
                                                          : simt::UnalignedOperands::no_algorithm);
}
UnalignedProducts::~UnalignedProducts() {
  simt::set_unaligned_operands(simt::UnalignedOperands::refused);
}

}  // namespace vqlm::testing
