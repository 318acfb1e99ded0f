// What vqlm bench collectives prints and writes.
#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "train/tools/bench/collective_bench.h"

namespace vqlm {
namespace {

std::string rate_text(double bytes_per_second) {
  return fmt::format("{:.3f} GB/s", 1e-9 * bytes_per_second);
}

const CollectiveRate* largest(const GroupRates& group, std::string_view collective) {
  const CollectiveRate* found = nullptr;
  for (const CollectiveRate& rate : group.rates) {
    if (rate.collective == collective) found = &rate;
  }
  return found;
}

const GroupRates* find_group(const CollectiveBenchResult& result, std::string_view name) {
  const auto found = std::ranges::find(result.groups, name, &GroupRates::group);
  return found != result.groups.end() ? &*found : nullptr;
}

/// What a rank sends in the two collectives of ZeRO, the slower one of them, at the largest size.
double ring_rate(const GroupRates& group) {
  return std::min(largest(group, "reduce_scatter")->bus_rate(), largest(group, "all_gather")->bus_rate());
}

/// For plans: the data group is the network, or the world where it is the data group.
nlohmann::ordered_json rates_json(const CollectiveBenchResult& result) {
  nlohmann::ordered_json rates = nlohmann::ordered_json::object();
  const GroupRates* const world = find_group(result, "world");
  const GroupRates* const data = find_group(result, "data");
  const GroupRates* const tensor = find_group(result, "tensor");
  if (world == nullptr) return rates;
  const GroupRates& network = data != nullptr ? *data : *world;
  rates["network_bytes_per_second"] = ring_rate(network);
  rates["exchange_bytes_per_second"] = largest(*world, "all_to_all")->bus_rate();
  rates["tensor_bytes_per_second"] = ring_rate(tensor != nullptr ? *tensor : *world);
  rates["collective_seconds"] = network.rates.front().seconds;
  return rates;
}

std::string pairs_text(const CollectiveBenchResult& result) {
  std::vector<double> rates;
  for (const HostPair& pair : result.pairs) rates.push_back(pair.rate);
  std::ranges::sort(rates);
  const double middle = rates[rates.size() / 2];
  std::string text = "pairs of hosts, one rank each, both ways at once; each way\n";
  for (const HostPair& pair : result.pairs) {
    const bool slow = pair.rate < 0.5 * middle;
    text += fmt::format("  {} - {}  {}{}\n", pair.first, pair.second, rate_text(pair.rate),
                        slow ? "  slow: less than half of the median pair's" : "");
  }
  return text;
}

}  // namespace

std::string to_text(const CollectiveBenchResult& result) {
  std::string text = fmt::format("machine {}; f32\n", result.machine);
  if (result.groups.empty()) return text + "one rank: nothing to exchange; start several (launch/mpirun.sh -n 4 ...)\n";
  for (const GroupRates& group : result.groups) {
    text += fmt::format("\ngroup '{}', {} ranks\n  {:<16}{:>14}{:>14}{:>14}{:>14}\n", group.group, group.ranks, "",
                        "bytes", "us", "algbw GB/s", "busbw GB/s");
    for (const CollectiveRate& rate : group.rates) {
      text +=
          fmt::format("  {:<16}{:>14}{:>14.1f}{:>14.3f}{:>14.3f}\n", rate.collective, rate.bytes, 1e6 * rate.seconds,
                      1e-9 * static_cast<double>(rate.bytes) / rate.seconds, 1e-9 * rate.bus_rate());
    }
  }
  if (!result.pairs.empty()) text += fmt::format("\n{}", pairs_text(result));
  return text;
}

std::string to_json(const CollectiveBenchResult& result) {
  nlohmann::ordered_json json;
  json["machine"] = result.machine;
  json["hosts"] = result.hosts;
  json["groups"] = nlohmann::ordered_json::array();
  for (const GroupRates& group : result.groups) {
    nlohmann::ordered_json rates = nlohmann::ordered_json::array();
    for (const CollectiveRate& rate : group.rates) {
      rates.push_back({{"collective", rate.collective},
                       {"bytes", rate.bytes},
                       {"seconds", rate.seconds},
                       {"bus_bytes_per_second", rate.bus_rate()}});
    }
    json["groups"].push_back({{"group", group.group}, {"ranks", group.ranks}, {"rates", rates}});
  }
  json["pairs"] = nlohmann::ordered_json::array();
  for (const HostPair& pair : result.pairs) {
    json["pairs"].push_back({{"hosts", {pair.first, pair.second}}, {"bytes_per_second", pair.rate}});
  }
  json["rates"] = rates_json(result);
  return json.dump(2) + "\n";
}

}  // namespace vqlm
