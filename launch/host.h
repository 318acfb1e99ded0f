// The machine that this process runs on, for reports.
#pragma once

#include <cstddef>
#include <string>

namespace vqlm {

struct Host {
  std::string name;
  std::string processor;             // "Intel(R) Xeon(R) Platinum 8480+", or empty where the kernel does not say
  int cores = 0;                     // online
  int allowed_cores = 0;             // that this process may run on,
  std::string allowed;               // as the kernel numbers them: "0-7,16"
  std::size_t memory = 0;            // bytes
  std::size_t available_memory = 0;  // without swapping, by the kernel's estimate
};

Host describe_host();

}  // namespace vqlm
