#include "dist/watch/network_interfaces.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <spdlog/fmt/fmt.h>
#include <spdlog/fmt/ranges.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <optional>

#include "core/error.h"

namespace vqlm {
namespace {

std::uint32_t ipv4_of(const sockaddr* address) {
  sockaddr_in copy;
  std::memcpy(&copy, address, sizeof(copy));
  return ntohl(copy.sin_addr.s_addr);
}

struct Subnet {
  std::uint32_t address;
  std::uint32_t mask;
};

/// "10.1.0.0/16", or an address alone; nothing for a name.
std::optional<Subnet> subnet_of(std::string_view word) {
  const std::size_t slash = word.find('/');
  in_addr address{};
  if (::inet_pton(AF_INET, std::string(word.substr(0, slash)).c_str(), &address) != 1) return std::nullopt;
  unsigned bits = 32;
  if (slash != std::string_view::npos) {
    const std::string_view digits = word.substr(slash + 1);
    const auto [end, status] = std::from_chars(digits.data(), digits.data() + digits.size(), bits);
    if (status != std::errc() || end != digits.data() + digits.size() || bits > 32) return std::nullopt;
  }
  return Subnet{ntohl(address.s_addr), bits == 0 ? 0 : ~std::uint32_t{0} << (32 - bits)};
}

bool names(std::string_view word, const NetworkInterface& interface) {
  const std::optional<Subnet> subnet = subnet_of(word);
  if (!subnet) return word == interface.name;
  return (interface.address & subnet->mask) == (subnet->address & subnet->mask);
}

}  // namespace

std::string ipv4_text(std::uint32_t address) {
  return fmt::format("{}.{}.{}.{}", address >> 24, address >> 16 & 255, address >> 8 & 255, address & 255);
}

std::string NetworkInterface::text() const {
  return fmt::format("{} {}/{}", name, ipv4_text(address), std::popcount(mask));
}

std::vector<NetworkInterface> network_interfaces() {
  ifaddrs* all = nullptr;
  if (::getifaddrs(&all) != 0) throw Error(fmt::format("getifaddrs: {}", std::strerror(errno)));
  std::vector<NetworkInterface> found;
  for (const ifaddrs* one = all; one != nullptr; one = one->ifa_next) {
    const bool serves = (one->ifa_flags & IFF_UP) != 0 && (one->ifa_flags & IFF_LOOPBACK) == 0;
    if (!serves || one->ifa_addr == nullptr || one->ifa_addr->sa_family != AF_INET) continue;
    found.push_back(
        {one->ifa_name, ipv4_of(one->ifa_addr), one->ifa_netmask != nullptr ? ipv4_of(one->ifa_netmask) : 0});
  }
  ::freeifaddrs(all);
  return found;
}

std::string chosen_interface() {
  const char* choice = std::getenv("VQLM_INTERFACE");
  return choice != nullptr ? choice : "";
}

std::vector<NetworkInterface> interfaces_for(std::string_view choice, const std::vector<NetworkInterface>& all) {
  if (choice.empty()) return all;
  std::vector<NetworkInterface> chosen;
  for (std::size_t begin = 0; begin <= choice.size();) {
    const std::size_t end = std::min(choice.find(',', begin), choice.size());
    const std::string_view word = choice.substr(begin, end - begin);
    std::ranges::copy_if(all, std::back_inserter(chosen),
                         [&](const auto& interface) { return names(word, interface); });
    begin = end + 1;
  }
  if (!chosen.empty()) return chosen;
  std::vector<std::string> there;
  for (const NetworkInterface& interface : all) there.push_back(interface.text());
  throw Error(
      fmt::format("VQLM_INTERFACE (launch/mpirun.sh --interface) = \"{}\": this host has no such interface; it has {}",
                  choice, fmt::join(there, ", ")));
}

}  // namespace vqlm
