#include "train/tools/plan/gpu_kinds.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <numeric>
#include <string>

#include "core/error.h"

namespace vqlm {
namespace {

constexpr double giga = 1e9, tera = 1e12;
// Ports of 400, 200, 100 and 25 Gbit/s a GPU.
constexpr double ndr = 50 * giga, hdr = 25 * giga, edr = 12.5 * giga, ethernet = 3.125 * giga;
constexpr double pcie4 = 32 * giga;

constexpr GpuKind kinds[] = {
    {"a100-40", "A100 SXM, 40 GB", 40 * giga, 312 * tera, 1555 * giga, 300 * giga, hdr},
    {"a100-80", "A100 SXM, 80 GB", 80 * giga, 312 * tera, 2039 * giga, 300 * giga, hdr},
    {"h100-80", "H100 SXM, 80 GB", 80 * giga, 989.4 * tera, 3350 * giga, 450 * giga, ndr},
    {"h200", "H200 SXM, 141 GB", 141 * giga, 989.4 * tera, 4800 * giga, 450 * giga, ndr},
    {"b200", "B200 in an HGX or DGX, 180 GB", 180 * giga, 2250 * tera, 8000 * giga, 900 * giga, ndr},
    {"l40s", "L40S, 48 GB, PCIe 4.0", 48 * giga, 362.05 * tera, 864 * giga, pcie4, edr},
    {"rtx4090", "GeForce RTX 4090, 24 GB, PCIe 4.0", 24 * giga, 165.2 * tera, 1008 * giga, pcie4, ethernet},
};

}  // namespace

std::span<const GpuKind> gpu_kinds() {
  return kinds;
}

const GpuKind& gpu_kind(std::string_view name) {
  const auto* const found = std::ranges::find(kinds, name, &GpuKind::name);
  if (found != std::end(kinds)) return *found;
  std::string known;
  for (const GpuKind& kind : kinds)
    known += fmt::format("{}{} ({})", known.empty() ? "" : ", ", kind.name, kind.description);
  throw UsageError(
      fmt::format("--gpu {}: unknown; there are {}. Another one: one of these with --peak-tflops, --memory-gbs, "
                  "--tensor-gbs, --network-gbs and --device-memory",
                  name, known));
}

StatedRates rates_of(const Cluster& cluster, int data, int tensor) {
  VQLM_ASSERT(data >= 1 && tensor >= 1 && cluster.gpus_per_node >= 1);
  const GpuKind& gpu = cluster.gpu;
  const Attainment& attainment = cluster.attainment;
  const int node = cluster.gpus_per_node, ranks = data * tensor;
  const double link = gpu.link_rate * attainment.links, network = gpu.network_rate * attainment.links;
  const auto ring = [&](int members_in_node) { return std::min(link, members_in_node * network); };

  StatedRates rates;
  rates.product_flops = gpu.product_flops * attainment.products;
  rates.memory_bytes = gpu.memory_rate * attainment.memory;
  rates.op_seconds = attainment.op_seconds;
  rates.collective_seconds = attainment.collective_seconds;
  rates.peak_flops = gpu.product_flops;
  if (ranks <= node) {
    rates.one_link = true;
    rates.network_bytes = rates.tensor_link_bytes = rates.exchange_bytes = link;
    return rates;
  }
  rates.network_bytes = ring(std::max(1, node / tensor));
  rates.tensor_link_bytes = node % tensor == 0 ? link : ring(std::gcd(tensor, node));
  // By one rank, of all that it sends.
  const double others = ranks - 1, outside = (ranks - node) / others, inside = (node - 1) / others;
  rates.exchange_bytes = 1 / std::max(outside / network, inside / link);
  return rates;
}

}  // namespace vqlm
