#include "core/error.h"

#include <cstdio>
#include <cstdlib>

namespace vqlm {

void assertion_failed(const char* condition, const char* file, int line) {
  std::fprintf(stderr, "vqlm: internal error: %s is false at %s:%d\n", condition, file, line);
  std::abort();
}

}  // namespace vqlm
