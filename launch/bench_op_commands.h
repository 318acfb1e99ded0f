// The benchmarks of single operations: vqlm bench attention, vqlm bench ops.
#pragma once

#include <CLI/CLI.hpp>

#include "train/config.h"

namespace vqlm {

/// --device of every benchmark.
void add_device_option(CLI::App& command, DeviceKind& device);

void add_attention_bench(CLI::App& bench);
void add_ops_bench(CLI::App& bench);

}  // namespace vqlm
