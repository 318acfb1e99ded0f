// The sub-commands of vqlm. Each adds its options and its callback to the program's command line; a callback throws
// Error or UsageError, which main turns into one line and an exit code.
#pragma once

#include <CLI/CLI.hpp>

namespace vqlm {

void add_prepare_command(CLI::App& app);
void add_train_command(CLI::App& app);
void add_eval_command(CLI::App& app);
void add_convert_command(CLI::App& app);
void add_codes_command(CLI::App& app);
void add_generate_command(CLI::App& app);
void add_score_command(CLI::App& app);
void add_samples_command(CLI::App& app);
void add_replay_command(CLI::App& app);
void add_bench_command(CLI::App& app);
void add_plan_command(CLI::App& app);
void add_doctor_command(CLI::App& app);
void add_selftest_command(CLI::App& app);
void add_report_command(CLI::App& app);

}  // namespace vqlm
