// Kinds of GPUs by name, and what a job on so many of them gets: the rates of a plan from makers' data sheets and from stated
// assumptions about what of them is reached. docs/planning.md says where every number comes from.
#pragma once

#include <span>
#include <string_view>

#include "train/engine/planned_machine.h"

namespace vqlm {

/// As data sheets say; bytes and bytes a second are decimal, links one way.
struct GpuKind {
  std::string_view name;         // "h100-80"
  std::string_view description;  // "H100 SXM, 80 GB"
  double memory_bytes = 0;
  double product_flops = 0;  // bf16 with fp32 sums, not sparse, a second
  double memory_rate = 0;    // of its memory, bytes a second
  double link_rate = 0;      // to the GPUs of its node, bytes a second
  double network_rate = 0;   // its share of its node's network, bytes a second
};

std::span<const GpuKind> gpu_kinds();
/// Throws UsageError naming all kinds.
const GpuKind& gpu_kind(std::string_view name);

/// What of the data sheet's rates programs reach, and what is lost beside the work. Assumptions, no measurements.
struct Attainment {
  double products = 0.8;
  double memory = 0.9;
  double links = 0.8;                 // NVLink, PCIe and network
  double op_seconds = 3e-6;           // of every op beside its work: launch, start and end
  double collective_seconds = 20e-6;  // of every collective beside its bytes
};

struct Cluster {
  GpuKind gpu;
  int gpus_per_node = 8;
  Attainment attainment;
};

/// The rates of data x tensor ranks, whose world ranks (data rank x tensor ranks + tensor rank) fill one node after the other.
/// - A job that fits one node has all groups on the node's links.
/// - Else a ring through nodes is as fast as what its members in a node can send out of it together, each through its own
///   part of the network, and no faster than the node's links. A data group has max(1, node / tensor) members in a node, all
///   of them at work at once; a tensor group lies in a node where `tensor` divides the node's GPUs, else gcd(tensor, node)
///   of its members do.
/// - An all-to-all of the world sends to (N - node) of N - 1 other ranks by the network and to node - 1 by links, both at once.
StatedRates rates_of(const Cluster& cluster, int data, int tensor);

}  // namespace vqlm
