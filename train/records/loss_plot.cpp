#include "train/records/loss_plot.h"

#include <spawn.h>
#include <spdlog/fmt/fmt.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "core/error.h"
#include "train/records/append_file.h"

namespace vqlm {
namespace {

// Okabe and Ito's colours: told apart by colour-blind readers too.
constexpr std::array<std::string_view, 6> colours = {"#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"};

std::string_view colour(std::size_t run) {
  return colours[run % colours.size()];
}

/// A gnuplot string: single quotes, doubled inside.
std::string quoted(const std::string& text) {
  std::string out = "'";
  for (char c : text) out += c == '\'' ? std::string("''") : std::string(1, c);
  return out + "'";
}

std::string data_block(const std::string& name, const std::vector<LossPoint>& points) {
  // A picture is about 900 pixels wide: more points only make the file larger.
  const std::size_t stride = std::max<std::size_t>(1, points.size() / 1000);
  std::string block = fmt::format("${} << END\n", name);
  for (std::size_t i = 0; i < points.size(); ++i) {
    if (i % stride != 0 && i + 1 != points.size()) continue;
    block += fmt::format("{} {}\n", points[i].tokens / 1e6, points[i].loss);
  }
  return block + "END\n";
}

/// The losses that the curves settle to fill the picture; the steep first tenth may leave it at the top.
double top_of_axis(const std::vector<RunSummary>& runs) {
  double top = 0;
  for (const RunSummary& run : runs) {
    if (!run.train.empty()) top = std::max(top, smooth(run.train, 20)[run.train.size() / 20].loss);
    for (const LossPoint& point : run.heldout) top = std::max(top, point.loss);
  }
  return top * 1.02;
}

std::string terminal(const std::filesystem::path& picture) {
  const std::string ending = picture.extension().string();
  if (ending == ".svg") return "svg size 900,560 font 'Helvetica,15' background '#ffffff'";
  if (ending == ".png") return "pngcairo size 900,560 font 'Helvetica,11' background '#ffffff'";
  throw UsageError(fmt::format("--plot {}: the name must end in .svg or .png", picture.string()));
}

/// gnuplot's exit status. Started without a shell: file names need no quoting.
int run_gnuplot(const std::filesystem::path& script) {
  std::string program = "gnuplot";
  std::string argument = script.string();
  std::array<char*, 3> arguments = {program.data(), argument.data(), nullptr};
  pid_t process = 0;
  const int failure = ::posix_spawnp(&process, program.c_str(), nullptr, nullptr, arguments.data(), environ);
  if (failure != 0) {
    throw Error(
        fmt::format("--plot: cannot start gnuplot: {}; install the package gnuplot-nox", std::strerror(failure)));
  }
  int status = 0;
  while (::waitpid(process, &status, 0) < 0) {
    if (errno != EINTR) throw Error(fmt::format("--plot: lost gnuplot: {}", std::strerror(errno)));
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

}  // namespace

std::string loss_plot_script(const std::vector<RunSummary>& runs, const std::filesystem::path& picture) {
  std::string script =
      fmt::format("set terminal {} noenhanced\nset output {}\n", terminal(picture), quoted(picture.string()));
  std::vector<std::string> curves;
  for (std::size_t i = 0; i < runs.size(); ++i) {
    const RunSummary& run = runs[i];
    const std::string title = run.head.starts_with(run.name) ? run.head : fmt::format("{} ({})", run.name, run.head);
    if (!run.train.empty()) {
      script += data_block(fmt::format("train{}", i), smooth(run.train, 20));
      curves.push_back(fmt::format("$train{} using 1:2 with lines linewidth 2 linecolor rgb '{}' title {}", i,
                                   colour(i), quoted(title + ", training")));
    }
    if (!run.heldout.empty()) {
      script += data_block(fmt::format("heldout{}", i), run.heldout);
      curves.push_back(
          fmt::format("$heldout{} using 1:2 with points pointtype {} pointsize 1 linecolor rgb '{}' title {}", i,
                      i % 2 == 0 ? 7 : 5, colour(i), quoted(title + ", held-out")));
    }
  }
  if (curves.empty()) throw Error("--plot: none of the runs has a loss in its metrics.jsonl; train one first");
  script += fmt::format(
      "set xlabel 'tokens trained on (millions)'\nset ylabel 'loss (nats per token)'\n"
      "set key top right\nset border 3\nset tics nomirror\nset grid ytics linecolor rgb '#dddddd' linetype "
      "1\n"
      "set xrange [0:]\nset yrange [:{}]\n"
      "plot {}\n",
      top_of_axis(runs), fmt::join(curves, ", \\\n     "));
  return script;
}

void draw_losses(const std::vector<RunSummary>& runs, const std::filesystem::path& picture) {
  std::filesystem::path script = picture;
  script += ".gnuplot";
  const std::string content = loss_plot_script(runs, picture);
  std::filesystem::remove(script);
  AppendFile(script).append(content);
  const int status = run_gnuplot(script);
  std::filesystem::remove(script);
  if (status == 0) return;
  throw Error(
      fmt::format("--plot {}: gnuplot ended with status {}; its own message stands above", picture.string(), status));
}

}  // namespace vqlm
