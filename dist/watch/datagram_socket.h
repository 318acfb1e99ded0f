// DatagramSocket: UDP over IPv4 on this host.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace vqlm {

struct SocketAddress {
  std::uint32_t address = 0;  // IPv4, in the host's byte order
  std::uint16_t port = 0;
  bool operator==(const SocketAddress&) const = default;
};

class DatagramSocket {
 public:
  struct Datagram {
    SocketAddress from;
    std::vector<std::byte> bytes;
  };

  /// On a free port of every interface. Throws Error.
  DatagramSocket();
  ~DatagramSocket();
  DatagramSocket(const DatagramSocket&) = delete;
  DatagramSocket& operator=(const DatagramSocket&) = delete;

  std::uint16_t port() const { return port_; }
  /// What cannot be sent is lost, as it may be on its way.
  void send(const SocketAddress& to, std::span<const std::byte> datagram) noexcept;
  /// The next datagram, or nothing after `wait`. An error counts as nothing.
  std::optional<Datagram> receive(std::chrono::milliseconds wait);

 private:
  int socket_;
  std::uint16_t port_ = 0;
};

}  // namespace vqlm
