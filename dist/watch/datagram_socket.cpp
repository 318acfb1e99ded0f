#include "dist/watch/datagram_socket.h"

#include <arpa/inet.h>
#include <poll.h>
#include <spdlog/fmt/fmt.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/error.h"
#include "core/log.h"

namespace vqlm {
namespace {

constexpr std::size_t largest_datagram = 2048;

sockaddr_in system_address(const SocketAddress& address) {
  sockaddr_in system{};
  system.sin_family = AF_INET;
  system.sin_addr.s_addr = htonl(address.address);
  system.sin_port = htons(address.port);
  return system;
}

}  // namespace

DatagramSocket::DatagramSocket() : socket_(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)) {
  const auto fail = [this](const char* call) {
    const int error = errno;
    if (socket_ >= 0) ::close(socket_);
    throw Error(fmt::format("heartbeat: {}: {}", call, std::strerror(error)));
  };
  if (socket_ < 0) fail("socket");
  sockaddr_in own = system_address({INADDR_ANY, 0});
  socklen_t size = sizeof(own);
  if (::bind(socket_, reinterpret_cast<const sockaddr*>(&own), size) != 0) fail("bind");
  if (::getsockname(socket_, reinterpret_cast<sockaddr*>(&own), &size) != 0) fail("getsockname");
  port_ = ntohs(own.sin_port);
}

DatagramSocket::~DatagramSocket() {
  if (::close(socket_) != 0) log::error("heartbeat: close: {}", std::strerror(errno));
}

void DatagramSocket::send(const SocketAddress& to, std::span<const std::byte> datagram) noexcept {
  const sockaddr_in system = system_address(to);
  // No route, or a refusal that answers an earlier one: the peer's silence is what counts.
  static_cast<void>(::sendto(socket_, datagram.data(), datagram.size(), MSG_NOSIGNAL,
                             reinterpret_cast<const sockaddr*>(&system), sizeof(system)));
}

std::optional<DatagramSocket::Datagram> DatagramSocket::receive(std::chrono::milliseconds wait) {
  pollfd ready{socket_, POLLIN, 0};
  if (::poll(&ready, 1, static_cast<int>(wait.count())) <= 0) return std::nullopt;
  std::vector<std::byte> bytes(largest_datagram);
  sockaddr_in from{};
  socklen_t size = sizeof(from);
  const ssize_t got = ::recvfrom(socket_, bytes.data(), bytes.size(), 0, reinterpret_cast<sockaddr*>(&from), &size);
  if (got < 0) return std::nullopt;
  bytes.resize(static_cast<std::size_t>(got));
  return Datagram{{ntohl(from.sin_addr.s_addr), ntohs(from.sin_port)}, std::move(bytes)};
}

}  // namespace vqlm
