#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/cpu/instruction_set.cpp"
#include "hwy/foreach_target.h"  // compiles this file once per instruction set

#include "core/cpu/instruction_set.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace vqlm::cpu::HWY_NAMESPACE {

const char* name_of_target() {
  return hwy::TargetName(HWY_TARGET);
}

}  // namespace vqlm::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace vqlm::cpu {

HWY_EXPORT(name_of_target);

const char* instruction_set() {
  return HWY_DYNAMIC_DISPATCH(name_of_target)();
}

}  // namespace vqlm::cpu
#endif  // HWY_ONCE
