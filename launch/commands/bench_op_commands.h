// The benchmarks of single operations and of the heads: vqlm bench attention, ops, products, head, collectives; and what all have in common.
#pragma once

#include <CLI/CLI.hpp>

#include "train/engine/stopwatch.h"

namespace vqlm {

void add_attention_bench(CLI::App& bench);
void add_ops_bench(CLI::App& bench);
void add_products_bench(CLI::App& bench);
void add_head_bench(CLI::App& bench);
void add_collectives_bench(CLI::App& bench);

/// --clock wall or cpu.
void add_clock(CLI::App& command, Clock& clock);
/// Throws UsageError for processor time of more than one rank or thread.
void check_clock(Clock clock, int ranks, int threads);

}  // namespace vqlm
