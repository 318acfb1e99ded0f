// vqlm report: runs side by side, as a table and a picture.
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "core/log.h"
#include "launch/commands/commands.h"
#include "launch/environment.h"
#include "train/records/loss_plot.h"
#include "train/records/report.h"

namespace vqlm {
namespace {

struct ReportArguments {
  std::vector<std::string> runs;
  std::string plot;
};

void report(const ReportArguments& options) {
  refuse_launcher_ranks("report", "run it once, without mpirun");
  std::vector<RunSummary> runs;
  for (const std::string& run : options.runs) runs.push_back(summarize_run(run));
  std::fputs(report_table(runs).c_str(), stdout);
  if (options.plot.empty()) return;
  draw_losses(runs, options.plot);
  log::info("loss curves: {}", options.plot);
}

}  // namespace

void add_report_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand("report", "Compare runs: a table, and a picture of their loss curves");
  auto options = std::make_shared<ReportArguments>();
  command->add_option("runs", options->runs, "run folders (run.dir of vqlm train)")->required();
  command->add_option("--plot", options->plot, "draw the loss curves into this .svg or .png (needs gnuplot)");
  command->footer(
      "Two tables: what the runs are (head, parameters, steps, tokens, seed), and what they came to (speed, held-out perplexity\n"
      "and bits per byte from eval.json, else from the last evaluation while training), compared with the first dense run. With\n"
      "RUN/eval.json of `vqlm eval --json` the difference is paired by documents and has a 95 % interval. What cannot be\n"
      "compared (tokenizer, held-out text, sample length, tokens evaluated) is marked. Held-out sets and sources by name have\n"
      "tables of their own. docs/records.md says more.\n"
      "Examples:\n"
      "  vqlm report runs/a\n"
      "  vqlm report demo/vq demo/dense --plot demo/loss.svg");
  command->callback([options] { report(*options); });
}

}  // namespace vqlm
