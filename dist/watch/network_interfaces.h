// The network interfaces of this host, and which of them the user chose for the job.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace vqlm {

struct NetworkInterface {
  std::string name;           // "eth0"
  std::uint32_t address = 0;  // IPv4, in the host's byte order
  std::uint32_t mask = 0;

  /// "eth0 10.1.2.3/16"
  std::string text() const;
};

/// "10.1.2.3"
std::string ipv4_text(std::uint32_t address);

/// Those that are up and have an IPv4 address, without the loopback. Throws Error.
std::vector<NetworkInterface> network_interfaces();

/// What the environment variable VQLM_INTERFACE chooses (launch/mpirun.sh --interface sets it): names or subnets,
/// "eth0,10.1.0.0/16"; empty: nothing is chosen.
std::string chosen_interface();

/// Those of `all` that `choice` names; all of them where it is empty. Throws Error with what is there where none is named.
std::vector<NetworkInterface> interfaces_for(std::string_view choice, const std::vector<NetworkInterface>& all);

}  // namespace vqlm
