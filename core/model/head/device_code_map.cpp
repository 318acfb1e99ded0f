#include "core/model/head/device_code_map.h"

#include <algorithm>

#include "core/tensor_arena.h"

namespace vqlm {

DeviceCodeMap::DeviceCodeMap(Backend& backend, const CodeMap& map, std::optional<TensorParallel::Part> part)
    : cluster_of_token_(map.cluster_of_token) {
  const std::int64_t vocabulary = map.vocab_size, clusters = map.clusters;
  TensorArena arena;
  arena.add(whole_.cluster_of_token, {vocabulary}, DType::i32);
  arena.add(whole_.position_of_token, {vocabulary}, DType::i32);
  arena.add(whole_.members, {vocabulary}, DType::i32);
  arena.add(whole_.member_begin, {clusters + 1}, DType::i32);
  if (map.groups > 0) arena.add(whole_.member_codes, {vocabulary, map.groups}, DType::u8);
  if (part) {
    arena.add(part_.position_of_token, {vocabulary}, DType::i32);
    arena.add(part_.members, {part->count}, DType::i32);
    arena.add(part_rows_, {part->count}, DType::i32);
    arena.add(part_.member_begin, {clusters + 1}, DType::i32);
    arena.add(part_.cluster_sizes, {clusters}, DType::i32);
  }
  storage_ = arena.allocate(backend, MemoryUse::parameters);
  const MemberOrder order(map.cluster_of_token, clusters);
  upload_whole(backend, map, order);
  if (part) upload_part(backend, order, *part);
}

void DeviceCodeMap::upload_whole(Backend& backend, const CodeMap& map, const MemberOrder& order) {
  const auto vocabulary = static_cast<std::size_t>(map.vocab_size), groups = static_cast<std::size_t>(map.groups);
  for (std::size_t k = 0; k < static_cast<std::size_t>(map.clusters); ++k) {
    const std::int64_t size = order.begin[k + 1] - order.begin[k];
    whole_.largest_cluster = std::max(whole_.largest_cluster, size);
    whole_.mean_members += static_cast<double>(size) * static_cast<double>(size) / static_cast<double>(map.vocab_size);
  }
  std::vector<std::int32_t> position(vocabulary);
  std::vector<std::uint8_t> codes(vocabulary * groups);
  for (std::size_t place = 0; place < vocabulary; ++place) {
    const auto token = static_cast<std::size_t>(order.members[place]);
    position[token] = static_cast<std::int32_t>(place);
    std::copy_n(map.member_codes.begin() + static_cast<std::ptrdiff_t>(token * groups), groups,
                codes.begin() + static_cast<std::ptrdiff_t>(place * groups));
  }
  backend.copy_from_host(whole_.cluster_of_token, map.cluster_of_token.data());
  backend.copy_from_host(whole_.position_of_token, position.data());
  backend.copy_from_host(whole_.members, order.members.data());
  backend.copy_from_host(whole_.member_begin, order.begin.data());
  if (groups > 0) backend.copy_from_host(whole_.member_codes, codes.data());
}

void DeviceCodeMap::upload_part(Backend& backend, const MemberOrder& order, TensorParallel::Part part) {
  const std::size_t clusters = order.begin.size() - 1;
  const auto vocabulary = static_cast<double>(order.members.size());
  std::vector<std::int32_t> position(order.members.size(), -1), members, rows, begin(1, 0), sizes(clusters);
  for (std::size_t k = 0; k < clusters; ++k) {
    for (std::int32_t i = order.begin[k]; i < order.begin[k + 1]; ++i) {
      const std::int32_t token = order.members[static_cast<std::size_t>(i)];
      if (token < part.begin || token >= part.begin + part.count) continue;
      position[static_cast<std::size_t>(token)] = static_cast<std::int32_t>(members.size());
      members.push_back(token);
      rows.push_back(token - static_cast<std::int32_t>(part.begin));
    }
    const auto own = static_cast<std::int64_t>(members.size()) - begin.back();
    sizes[k] = order.begin[k + 1] - order.begin[k];
    begin.push_back(static_cast<std::int32_t>(members.size()));
    part_.largest_cluster = std::max(part_.largest_cluster, own);
    part_.mean_members += static_cast<double>(sizes[k]) * static_cast<double>(own) / vocabulary;
  }
  part_.cluster_of_token = whole_.cluster_of_token;
  backend.copy_from_host(part_.position_of_token, position.data());
  backend.copy_from_host(part_.members, members.data());
  backend.copy_from_host(part_rows_, rows.data());
  backend.copy_from_host(part_.member_begin, begin.data());
  backend.copy_from_host(part_.cluster_sizes, sizes.data());
}

}  // namespace vqlm
