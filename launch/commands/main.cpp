// vqlm: one program with sub-commands. Errors leave it as one line on standard error: exit code 1 failed, 2 bad usage. A
// training that stopped before its end, and is saved, has 75.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <new>
#include <string>
#include <vector>

#include "core/error.h"
#include "launch/command_line.h"
#include "launch/commands/commands.h"
#include "launch/environment.h"
#include "launch/version.h"

namespace {

constexpr const char* examples =
    "Examples:\n"
    "  vqlm prepare --input 'c4-train.*.json.gz' --train-tokenizer 32000 --out shards/\n"
    "  mpirun -n 4 vqlm train --config configs/smoke.toml --set run.dir=runs/a\n"
    "  mpirun -n 2 vqlm eval --checkpoint runs/a --data 'shards/heldout-*.h5' --json runs/a/eval.json\n"
    "  vqlm report runs/a runs/b --plot loss.svg\n"
    "`vqlm COMMAND --help` says more about each.";

/// Ranks of one mpirun are given the same words, so one of them answers for a mistake in these.
int fail(const char* message, int exit_code) {
  if (vqlm::launcher_rank() == 0) std::fprintf(stderr, "vqlm: error: %s\n", vqlm::one_line(message).c_str());
  return exit_code;
}

/// What did not reach standard output (a full disk) is an error like any other.
void flush_standard_output() {
  const bool flushed = std::fflush(stdout) == 0;
  if (flushed && std::ferror(stdout) == 0) return;
  throw vqlm::Error(std::string("standard output could not be written") +
                    (flushed ? "" : std::string(": ") + std::strerror(errno)));
}

/// `help train` and `version`, as other programs have them, in this one's words.
std::vector<std::string> usual_words(std::vector<std::string> words) {
  if (words.empty()) return words;
  if (words.front() == "version") words.front() = "--version";
  if (words.front() == "help") {
    words.erase(words.begin());
    words.emplace_back("--help");
  }
  return words;
}

void build_command_line(CLI::App& app, int& exit_code) {
  app.set_version_flag("--version", std::string("vqlm ") + vqlm::version_text());
  app.require_subcommand(1);
  app.footer(examples);
  vqlm::add_prepare_command(app);
  vqlm::add_train_command(app, exit_code);
  vqlm::add_eval_command(app);
  vqlm::add_convert_command(app);
  vqlm::add_codes_command(app);
  vqlm::add_generate_command(app);
  vqlm::add_score_command(app);
  vqlm::add_samples_command(app);
  vqlm::add_replay_command(app);
  vqlm::add_bench_command(app);
  vqlm::add_tune_command(app);
  vqlm::add_plan_command(app);
  vqlm::add_doctor_command(app);
  vqlm::add_selftest_command(app);
  vqlm::add_report_command(app);
}

}  // namespace

int main(int argc, char** argv) {
  // Sources of virtual data sets lie beside them; the variable would make HDF5 read another folder's.
  ::unsetenv("HDF5_VDS_PREFIX");
  CLI::App app(
      "Pretrains transformer language models, data- and tensor-parallel, with a dense, low-rank or VQ output head.",
      "vqlm");
  try {
    vqlm::configure_logging();
    int exit_code = 0;
    build_command_line(app, exit_code);
    std::vector<std::string> words = usual_words({argv + 1, argv + argc});
    vqlm::check_names(app, words);
    std::ranges::reverse(words);  // as CLI11 takes them
    try {
      app.parse(words);
    } catch (const CLI::ParseError& error) {
      if (error.get_exit_code() != static_cast<int>(CLI::ExitCodes::Success)) throw;
      if (vqlm::launcher_rank() == 0) app.exit(error);  // --help, --version
    }
    flush_standard_output();
    // A launcher ends the other ranks as soon as one leaves with such a code, srun by SIGKILL: all leave at once, before
    // libraries tidy up (a CUDA context takes a while), so that none is killed on its way out and reported as that.
    if (exit_code != 0) std::_Exit(exit_code);
    return 0;
  } catch (const CLI::ParseError& error) {
    return fail((std::string(error.what()) + " (see vqlm --help)").c_str(), 2);
  } catch (const vqlm::Error& error) {
    return fail(error.what(), error.exit_code());
  } catch (const std::bad_alloc&) {
    return fail("out of memory; use more ranks, or a smaller train.micro_batch", 1);
  } catch (const std::exception& error) {
    return fail(error.what(), 1);
  }
}
