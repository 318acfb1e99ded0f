#include "dist/nccl_settings.h"

#include <spdlog/fmt/fmt.h>

#include <cstdlib>
#include <utility>

#include "core/error.h"

namespace vqlm {

void set_nccl_environment() {
  constexpr int keep_the_users_choice = 0;
  for (const auto& [variable, value] :
       {std::pair{"NCCL_LAUNCH_ORDER_IMPLICIT", "1"}, {"NCCL_NVLS_ENABLE", "0"}, {"NCCL_GRAPH_REGISTER", "0"}}) {
    if (::setenv(variable, value, keep_the_users_choice) != 0)
      throw Error(fmt::format("setenv {}: out of memory", variable));
  }
}

}  // namespace vqlm
