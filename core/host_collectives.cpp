#include "core/host_collectives.h"

#include <cstring>

namespace vqlm {
namespace {

/// Sends the bytes of `data` from root; all ranks have the same number of bytes.
void broadcast_bytes(Backend& backend, Communicator& group, int root, void* data, std::size_t bytes) {
  const Buffer buffer = backend.allocate(bytes, MemoryUse::workspace);
  const Tensor device = buffer.view({static_cast<std::int64_t>(bytes)}, DType::u8);
  backend.copy_from_host(device, data);
  backend.wait(backend.compute_stream(), group.broadcast(device, root, backend.compute_stream()));
  backend.copy_to_host(data, device);
}

template <class T>
void broadcast_vector(Backend& backend, Communicator& group, int root, std::vector<T>& values) {
  if (group.size() == 1) return;
  auto count = static_cast<std::int64_t>(values.size());
  broadcast_bytes(backend, group, root, &count, sizeof(count));
  values.resize(static_cast<std::size_t>(count));
  if (count > 0) broadcast_bytes(backend, group, root, values.data(), values.size() * sizeof(T));
}

template <class T>
std::vector<T> gather_vector(Backend& backend, Communicator& group, const std::vector<T>& values) {
  if (group.size() == 1 || values.empty()) return values;
  const auto bytes = static_cast<std::int64_t>(values.size() * sizeof(T));
  const Buffer buffer = backend.allocate(static_cast<std::size_t>((1 + group.size()) * bytes), MemoryUse::workspace);
  const Tensor all = buffer.view({1 + group.size(), bytes}, DType::u8);
  const Tensor own = all.rows(0, 1), gathered = all.rows(1, group.size());
  backend.copy_from_host(own, values.data());
  backend.wait(backend.compute_stream(), group.all_gather(gathered, own, backend.compute_stream()));
  std::vector<T> result(values.size() * static_cast<std::size_t>(group.size()));
  backend.copy_to_host(result.data(), gathered);
  return result;
}

void reduce_over(Backend& backend, Communicator& group, std::vector<double>& values, Reduce how) {
  if (group.size() == 1 || values.empty()) return;
  const Buffer buffer = backend.allocate(values.size() * sizeof(double), MemoryUse::workspace);
  const Tensor device = buffer.view({static_cast<std::int64_t>(values.size())}, DType::f64);
  backend.copy_from_host(device, values.data());
  backend.wait(backend.compute_stream(), group.all_reduce(device, how, backend.compute_stream()));
  backend.copy_to_host(values.data(), device);
}

}  // namespace

void sum_over(Backend& backend, Communicator& group, std::vector<double>& values) {
  reduce_over(backend, group, values, Reduce::sum);
}

double max_over(Backend& backend, Communicator& group, double value) {
  std::vector<double> values = {value};
  reduce_over(backend, group, values, Reduce::max);
  return values.front();
}

std::string first_text(Backend& backend, Communicator& group, const std::string& text) {
  const int none = -group.size();
  const auto speaker = -static_cast<int>(max_over(backend, group, text.empty() ? none : -group.rank()));
  if (speaker == group.size()) return "";
  std::vector<std::uint8_t> bytes(text.begin(), text.end());
  broadcast_from(backend, group, speaker, bytes);
  return {bytes.begin(), bytes.end()};
}

void broadcast_from(Backend& backend, Communicator& group, int root, std::vector<std::int64_t>& values) {
  broadcast_vector(backend, group, root, values);
}
void broadcast_from(Backend& backend, Communicator& group, int root, std::vector<std::int32_t>& values) {
  broadcast_vector(backend, group, root, values);
}
void broadcast_from(Backend& backend, Communicator& group, int root, std::vector<std::uint8_t>& values) {
  broadcast_vector(backend, group, root, values);
}

std::vector<std::uint64_t> gather_from_all(Backend& backend, Communicator& group,
                                           const std::vector<std::uint64_t>& values) {
  return gather_vector(backend, group, values);
}
std::vector<std::uint8_t> gather_from_all(Backend& backend, Communicator& group,
                                          const std::vector<std::uint8_t>& values) {
  return gather_vector(backend, group, values);
}

}  // namespace vqlm
