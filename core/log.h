// Logging: one spdlog logger for the program. Library code logs facts; only launch/ sets level and sinks, and only
// rank 0 of a job speaks below warning level.
#pragma once

#include <spdlog/spdlog.h>

namespace vqlm::log {

using spdlog::debug;
using spdlog::error;
using spdlog::info;
using spdlog::set_level;
using spdlog::warn;
namespace level = spdlog::level;

}  // namespace vqlm::log
