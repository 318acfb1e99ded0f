// The code maps of tests/core/member_map.h on a device.
#pragma once

#include "tests/core/member_map.h"
#include "tests/cuda/op_testing_cuda.h"

namespace vqlm::testing {

/// A code map's tensors in device memory.
struct DeviceMemberMap {
  DeviceMemberMap(Backend& device, const MemberMap& map)
      : cluster_of_token(device, map.cluster_of_token),
        position_of_token(device, map.position_of_token),
        members(device, map.members),
        member_begin(device, map.member_begin),
        member_codes(device, map.member_codes),
        largest_cluster(map.largest_cluster) {}

  CodeMapView view() const {
    return {cluster_of_token,
            position_of_token,
            members,
            member_begin,
            member_codes.tensor().numel() > 0 ? member_codes.tensor() : Tensor{},
            {},
            largest_cluster};
  }

  DeviceArray cluster_of_token, position_of_token, members, member_begin, member_codes;
  std::int64_t largest_cluster;
};

}  // namespace vqlm::testing
