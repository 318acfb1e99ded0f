#include "train/tools/bench/head_grid.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/error.h"

namespace vqlm {
namespace {

/// A number of the table, or a dash.
std::string cell(double value, int decimals) {
  return value > 0 ? fmt::format("{:.{}f}", value, decimals) : "-";
}

double training_ms(const HeadBenchResult& result, BenchedHead head) {
  const HeadResult* const found = result.find(head);
  return found == nullptr ? 0 : 1e3 * found->training.seconds;
}

std::string line_of(const HeadBenchResult& result) {
  const HeadBenchOptions& o = result.options;
  const HeadResult* const dense = result.find(BenchedHead::dense);
  const double share = 100.0 * static_cast<double>(o.clusters + o.codes) / static_cast<double>(o.vocab_size);
  std::string line = fmt::format(
      "  {:>7} {:>5} {:>5} {:>4} {:>3} {:>5.2f} |{:>10} {:>10} {:>10} {:>9} {:>9} {:>9} {:>6} |{:>9}", o.vocab_size,
      o.width, o.clusters, o.codes, o.groups, share, cell(training_ms(result, BenchedHead::dense_plain), 1),
      cell(training_ms(result, BenchedHead::dense), 1), cell(training_ms(result, BenchedHead::low_rank), 1),
      cell(training_ms(result, BenchedHead::vq), 2), cell(training_ms(result, BenchedHead::vq_embedding), 2),
      cell(training_ms(result, BenchedHead::vq_logits), 2), cell(result.ratio_dense_over_vq(), 1),
      cell(1e3 * dense->decode_seconds("log_probs"), 2));
  for (const char* const operation : {"log_probs", "arg_max", "top_k", "sample"}) {
    line += fmt::format(" {:>9}", cell(result.decode_ratio(operation), 1));
  }
  return line + "\n";
}

}  // namespace

HeadBudget budget_for(std::int64_t vocab_size, std::int64_t width) {
  const auto sixteens = [](double x) {
    return std::max<std::int64_t>(16, static_cast<std::int64_t>(x / 16 + 0.5) * 16);
  };
  const auto vocabulary = static_cast<double>(vocab_size);
  HeadBudget budget;
  budget.codes = static_cast<int>(std::min<std::int64_t>(256, sixteens(vocabulary / 200)));
  budget.clusters = std::max<std::int64_t>(budget.codes, sixteens(vocabulary / 100) - budget.codes);
  budget.clusters = std::min(budget.clusters, vocab_size);
  budget.groups = 1;
  while (budget.groups < 64 && width % (2 * budget.groups) == 0 && 2 * budget.groups <= width / 16) {
    budget.groups *= 2;
  }
  return budget;
}

std::vector<HeadBenchResult> run_head_grid(Backend& backend, const HeadBenchOptions& options,
                                           const std::vector<std::int64_t>& vocabularies,
                                           const std::vector<std::int64_t>& widths) {
  for (const auto* sizes : {&vocabularies, &widths}) {
    for (const std::int64_t size : *sizes) {
      if (size >= 1) continue;
      throw UsageError(
          fmt::format("bench head: --{} {}: choose 1 or more", sizes == &vocabularies ? "vocabs" : "widths", size));
    }
  }
  const std::int64_t largest =
      *std::max_element(vocabularies.begin(), vocabularies.end()) * *std::max_element(widths.begin(), widths.end());
  const MachineRates rates = measure_rates(backend, options.clock, largest);
  std::vector<HeadBenchResult> grid;
  for (const std::int64_t vocabulary : vocabularies) {
    for (const std::int64_t width : widths) {
      HeadBenchOptions sized = options;
      const HeadBudget budget = budget_for(vocabulary, width);
      sized.vocab_size = vocabulary;
      sized.width = width;
      sized.clusters = budget.clusters;
      sized.groups = budget.groups;
      sized.codes = budget.codes;
      grid.push_back(run_head_bench(backend, sized, rates));
    }
  }
  return grid;
}

std::string grid_text(const std::vector<HeadBenchResult>& grid) {
  VQLM_ASSERT(!grid.empty());
  const HeadBenchResult& first = grid.front();
  std::string text = fmt::format(
      "forward and backward of {} rows, and decoding one token at a time; medians of {} in turns\n"
      "machine {}; {}; {} time; products peak at {:.1f} GFLOP/s, memory at {:.1f} GB/s\n"
      "ms of training (low_rank: r = d / 4), ms of the dense head's full log-probabilities, and ratios dense / vq; "
      "%: (K + Q) / V\n\n"
      "  {:>7} {:>5} {:>5} {:>4} {:>3} {:>5} |{:>10} {:>10} {:>10} {:>9} {:>9} {:>9} {:>6} |{:>9} {:>9} {:>9} {:>9} "
      "{:>9}\n",
      first.options.rows, first.options.repeats, first.machine, first.dtype,
      first.options.clock == wall_seconds ? "wall" : "processor", 1e-9 * first.matmul_peak, 1e-9 * first.memory_rate,
      "V", "d", "K", "Q", "G", "%", "plain", "dense", "low_rank", "vq", "embedding", "vq_logits", "ratio", "dense ms",
      "log_probs", "arg_max", "top_k", "sample");
  std::string skipped;
  for (const HeadBenchResult& result : grid) {
    text += line_of(result);
    for (const HeadResult& head : result.heads) {
      const auto where =
          fmt::format("  V {} d {} {}", result.options.vocab_size, result.options.width, name_of(head.head));
      if (!head.training_skipped.empty()) skipped += fmt::format("{} training: {}\n", where, head.training_skipped);
      if (!head.decoding_skipped.empty()) skipped += fmt::format("{} decoding: {}\n", where, head.decoding_skipped);
    }
  }
  return skipped.empty() ? text : text + "\nskipped\n" + skipped;
}

std::string grid_json(const std::vector<HeadBenchResult>& grid) {
  nlohmann::ordered_json json;
  json["grid"] = nlohmann::ordered_json::array();
  for (const HeadBenchResult& result : grid) json["grid"].push_back(nlohmann::ordered_json::parse(to_json(result)));
  return json.dump(2) + "\n";
}

}  // namespace vqlm
