#include "dist/nccl_settings.h"

#include <spdlog/fmt/fmt.h>

#include <cstdlib>
#include <string>
#include <utility>

#include "core/error.h"
#include "dist/launcher.h"
#include "dist/watch/network_interfaces.h"

namespace vqlm {

void set_nccl_environment() {
  constexpr int keep_the_users_choice = 0;
  for (const auto& [variable, value] :
       {std::pair{"NCCL_LAUNCH_ORDER_IMPLICIT", "1"}, {"NCCL_NVLS_ENABLE", "0"}, {"NCCL_GRAPH_REGISTER", "0"}}) {
    if (::setenv(variable, value, keep_the_users_choice) != 0)
      throw Error(fmt::format("setenv {}: out of memory", variable));
  }
  const std::string choice = chosen_interface();
  if (choice.empty() || !launcher_may_connect_ranks()) return;
  std::string names;
  for (const NetworkInterface& one : interfaces_for(choice, network_interfaces()))
    names += (names.empty() ? "=" : ",") + one.name;
  if (::setenv("NCCL_SOCKET_IFNAME", names.c_str(), keep_the_users_choice) != 0) throw Error("setenv: out of memory");
}

}  // namespace vqlm
