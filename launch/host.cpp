#include "launch/host.h"

#include <sched.h>
#include <spdlog/fmt/fmt.h>
#include <unistd.h>

#include <array>
#include <fstream>

namespace vqlm {
namespace {

/// What follows `key` and a colon in a file of lines "key : value"; empty where there is none.
std::string value_of(const char* path, const std::string& key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with(key)) continue;
    const std::size_t begin = line.find_first_not_of(" \t", line.find(':') + 1);
    return begin == std::string::npos ? "" : line.substr(begin);
  }
  return "";
}

/// /proc/meminfo's numbers are KiB.
std::size_t meminfo(const std::string& key) {
  const std::string value = value_of("/proc/meminfo", key);
  return value.empty() ? 0 : std::stoull(value) * 1024;
}

/// Ranges of the set's members, "0-7,16".
std::string ranges(const cpu_set_t& set) {
  std::string text;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &set)) continue;
    int last = cpu;
    while (last + 1 < CPU_SETSIZE && CPU_ISSET(last + 1, &set)) ++last;
    text += fmt::format("{}{}{}", text.empty() ? "" : ",", cpu, last > cpu ? fmt::format("-{}", last) : "");
    cpu = last;
  }
  return text;
}

}  // namespace

Host describe_host() {
  Host host;
  std::array<char, 256> name{};
  if (::gethostname(name.data(), name.size() - 1) == 0) host.name = name.data();
  host.processor = value_of("/proc/cpuinfo", "model name");
  host.cores = static_cast<int>(::sysconf(_SC_NPROCESSORS_ONLN));
  cpu_set_t set;
  CPU_ZERO(&set);
  if (::sched_getaffinity(0, sizeof(set), &set) == 0) {
    host.allowed_cores = CPU_COUNT(&set);
    host.allowed = ranges(set);
  }
  host.memory = meminfo("MemTotal");
  host.available_memory = meminfo("MemAvailable");
  return host;
}

}  // namespace vqlm
