#include "train/engine/head_access.h"

#include <array>
#include <cstring>
#include <string_view>
#include <utility>

#include "core/host_collectives.h"

namespace vqlm {
namespace {

using Member = std::vector<float> HeadArrays::*;
constexpr std::array<std::pair<std::string_view, Member>, 4> members = {
    {{"vq_head.codebook", &HeadArrays::codebook},
     {"vq_head.cluster_bias", &HeadArrays::cluster_bias},
     {"vq_head.member_codebook", &HeadArrays::member_codebook},
     {"vq_head.token_bias", &HeadArrays::token_bias}}};

/// The array that a parameter belongs to; null for one that is not the head's.
Member member_of(const Parameter& p) {
  for (const auto& [name, member] : members) {
    if (p.name == name) return member;
  }
  return nullptr;
}

template <class Visit>
void for_each_of_head(const ParameterStore& parameters, const Visit& visit) {
  for (std::size_t id = 0; id < parameters.parameters().size(); ++id) {
    const Parameter& p = parameters.parameters()[id];
    if (const Member member = member_of(p)) visit(static_cast<ParameterId>(id), p, member);
  }
}

/// One moment of the head's parameters; each element comes from the rank that saves it, all others add nothing.
HeadArrays gather_moment(Backend& backend, const ProcessGrid& grid, const ParameterStore& parameters,
                         const Optimizer& optimizer, Tensor moment) {
  HeadArrays arrays;
  for_each_of_head(parameters, [&](ParameterId id, const Parameter& p, Member member) {
    std::vector<double> all(static_cast<std::size_t>(p.shape.numel()), 0.0);
    for (const Optimizer::OwnedSlice& slice : optimizer.owned_slices()) {
      if (slice.parameter != id || !optimizer.is_primary(id)) continue;
      std::vector<float> own(static_cast<std::size_t>(slice.count));
      backend.copy_to_host(own.data(), moment.range(slice.moment_begin, slice.count));
      std::copy(own.begin(), own.end(), all.begin() + slice.begin);
    }
    sum_over(backend, grid.world(), all);
    (arrays.*member).assign(all.begin(), all.end());
  });
  return arrays;
}

void write_moment(Backend& backend, const ParameterStore& parameters, const Optimizer& optimizer,
                  Tensor moment, const HeadArrays& arrays) {
  for (const Optimizer::OwnedSlice& slice : optimizer.owned_slices()) {
    const Member member = member_of(parameters.parameters()[static_cast<std::size_t>(slice.parameter)]);
    if (member == nullptr) continue;
    backend.copy_from_host(moment.range(slice.moment_begin, slice.count),
                           (arrays.*member).data() + slice.begin);
  }
}

}  // namespace

HeadState read_head(Backend& backend, const ProcessGrid& grid, const ParameterStore& parameters,
                    const Optimizer& optimizer) {
  HeadState head;
  for_each_of_head(parameters, [&](ParameterId id, const Parameter& p, Member member) {
    std::vector<float>& values = head.values.*member;
    values.resize(static_cast<std::size_t>(p.shape.numel()));
    backend.copy_to_host(values.data(), parameters.value(id));
    if (member == &HeadArrays::codebook) head.values.d_model = p.shape[1];
  });
  head.first_moment = gather_moment(backend, grid, parameters, optimizer, optimizer.first_moment());
  head.second_moment = gather_moment(backend, grid, parameters, optimizer, optimizer.second_moment());
  head.first_moment.d_model = head.second_moment.d_model = head.values.d_model;
  return head;
}

void write_head(Backend& backend, ParameterStore& parameters, const Optimizer& optimizer,
                const HeadState& head) {
  for_each_of_head(parameters, [&](ParameterId id, const Parameter&, Member member) {
    parameters.set_slice(id, head.values.*member);
  });
  write_moment(backend, parameters, optimizer, optimizer.first_moment(), head.first_moment);
  write_moment(backend, parameters, optimizer, optimizer.second_moment(), head.second_moment);
}

void broadcast_head(Backend& backend, Communicator& group, int root, HeadState& head) {
  for (HeadArrays* arrays : {&head.values, &head.first_moment, &head.second_moment}) {
    for (const auto& [name, member] : members) {
      std::vector<float>& values = arrays->*member;
      std::vector<std::int32_t> bits(values.size());
      if (!values.empty()) std::memcpy(bits.data(), values.data(), values.size() * sizeof(float));
      broadcast_from(backend, group, root, bits);
      VQLM_ASSERT(bits.size() == values.size());
      if (!values.empty()) std::memcpy(values.data(), bits.data(), values.size() * sizeof(float));
    }
  }
}

std::uint64_t head_fingerprint(Backend& backend, const ParameterStore& parameters) {
  std::uint64_t all = 0;
  for_each_of_head(parameters, [&](ParameterId id, const Parameter&, Member) {
    all = 31 * all + backend.fingerprint(parameters.value(id));
    all = 31 * all + backend.fingerprint(parameters.operand(id));
  });
  return all;
}

}  // namespace vqlm
