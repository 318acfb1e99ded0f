#include "train/tools/plan/measured_rates.h"

#include <spdlog/fmt/fmt.h>

#include <nlohmann/json.hpp>
#include <utility>

#include "core/error.h"
#include "data/files/atomic_file.h"

namespace vqlm {

StatedRates with_measured(StatedRates rates, const std::string& path) {
  const auto json = nlohmann::json::parse(read_file(path), nullptr, false);
  const auto* const stated =
      json.is_object() && json.contains("rates") && json["rates"].is_object() ? &json["rates"] : nullptr;
  if (stated == nullptr) {
    throw Error(fmt::format("{}: has no \"rates\": it must be what vqlm bench collectives --json wrote", path));
  }
  for (const auto& [key, target] : {std::pair{"network_bytes_per_second", &rates.network_bytes},
                                    {"tensor_bytes_per_second", &rates.tensor_link_bytes},
                                    {"exchange_bytes_per_second", &rates.exchange_bytes},
                                    {"collective_seconds", &rates.collective_seconds}}) {
    if (!stated->contains(key)) continue;
    const auto& value = (*stated)[key];
    if (!value.is_number() || !(value.get<double>() > 0)) {
      throw Error(fmt::format("{}: rates.{} = {}: must be a number above 0", path, key, value.dump()));
    }
    *target = value.get<double>();
  }
  return rates;
}

}  // namespace vqlm
