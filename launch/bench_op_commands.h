// The benchmarks of single operations: vqlm bench attention, vqlm bench ops.
#pragma once

#include <CLI/CLI.hpp>

namespace vqlm {

void add_attention_bench(CLI::App& bench);
void add_ops_bench(CLI::App& bench);

}  // namespace vqlm
