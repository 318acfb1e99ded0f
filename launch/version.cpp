#include "launch/version.h"

#include <vqlm_version.h>

namespace vqlm {

const char* version_text() {
  return VQLM_VERSION;
}

}  // namespace vqlm
