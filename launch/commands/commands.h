// The sub-commands of vqlm. Each adds its options and its callback to the program's command line; a callback throws
// Error or UsageError, which main turns into one line and an exit code: 1 failed, 2 bad usage.
#pragma once

#include <CLI/CLI.hpp>

namespace vqlm {

/// Exit code of what stopped before its end, is saved and shall be continued: EX_TEMPFAIL of sysexits.h.
inline constexpr int unfinished_exit_code = 75;

void add_prepare_command(CLI::App& app);
/// exit_code becomes unfinished_exit_code where a training was stopped; must outlive the parsing.
void add_train_command(CLI::App& app, int& exit_code);
void add_eval_command(CLI::App& app);
void add_convert_command(CLI::App& app);
void add_codes_command(CLI::App& app);
void add_generate_command(CLI::App& app);
void add_score_command(CLI::App& app);
void add_samples_command(CLI::App& app);
void add_replay_command(CLI::App& app);
void add_tune_command(CLI::App& app);
void add_bench_command(CLI::App& app);
void add_plan_command(CLI::App& app);
void add_doctor_command(CLI::App& app);
void add_selftest_command(CLI::App& app);
void add_report_command(CLI::App& app);

}  // namespace vqlm
