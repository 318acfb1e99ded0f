#include "train/records/report.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "train/config/config.h"
#include "train/config/model_text.h"
#include "train/engine/planned_model.h"

namespace vqlm {
namespace {

using Json = nlohmann::json;

std::optional<double> number_at(const Json& object, const char* key) {
  const auto found = object.find(key);
  if (found == object.end() || !found->is_number()) return std::nullopt;
  return found->get<double>();
}

std::optional<double> median(std::vector<double> values) {
  if (values.empty()) return std::nullopt;
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

void read_config(RunSummary& run, const std::filesystem::path& folder) {
  const Config config = load_saved_config(folder / "config.toml");
  run.name = config.run.name.empty() ? folder.string() : config.run.name;
  run.head_kind = kind_of(config.head);
  run.head = head_text(config.model, config.head);
  if (config.model.vocab_size == 0) return;  // written before the shards were known
  const HeadCost cost = head_cost(config.model, config.head);
  run.head_matrices = cost.matrix_parameters;
  run.head_biases = cost.bias_parameters;
  run.fraction_of_dense =
      static_cast<double>(cost.matrix_parameters) / static_cast<double>(config.model.vocab_size * config.model.d_model);
}

void read_metrics(RunSummary& run, const std::filesystem::path& path) {
  std::ifstream file(path);
  std::vector<double> speeds;
  std::vector<double> head_seconds;
  std::string line;
  while (std::getline(file, line)) {
    const Json object = Json::parse(line, nullptr, false);
    if (!object.is_object()) {
      if (file.eof()) break;  // a run in progress is writing it
      throw Error(fmt::format("{}: a line is not JSON: {:.60}", path.string(), line));
    }
    const auto tokens = number_at(object, "tokens");
    if (!tokens) continue;
    if (const auto loss = number_at(object, "loss")) run.train.push_back({*tokens, *loss});
    if (const auto loss = number_at(object, "heldout_loss")) {
      run.heldout.push_back({*tokens, *loss});
      run.perplexity = std::exp(*loss);
      run.bits_per_byte = number_at(object, "heldout_bits_per_byte");
    }
    if (const auto speed = number_at(object, "tokens_per_second")) speeds.push_back(*speed);
    if (const auto seconds = number_at(object, "seconds_head")) head_seconds.push_back(*seconds);
  }
  run.tokens_per_second = median(std::move(speeds));
  run.head_seconds = median(std::move(head_seconds));
}

void read_evaluation(RunSummary& run, const std::filesystem::path& path) {
  std::ifstream file(path);
  if (!file) return;
  const Json object = Json::parse(file, nullptr, false);
  if (!object.is_object()) {
    throw Error(fmt::format("{}: not a JSON object; write it again with vqlm eval --json", path.string()));
  }
  run.perplexity = number_at(object, "perplexity");
  run.bits_per_byte = number_at(object, "bits_per_byte");
  const auto head = object.find("head");
  if (head == object.end() || !head->is_object()) return;
  if (const auto matrices = number_at(*head, "parameters")) run.head_matrices = static_cast<std::int64_t>(*matrices);
  if (const auto biases = number_at(*head, "biases")) run.head_biases = static_cast<std::int64_t>(*biases);
  if (const auto fraction = number_at(*head, "fraction_of_dense")) run.fraction_of_dense = fraction;
}

using Row = std::vector<std::string>;

std::string cell(const std::optional<double>& value, std::string_view format, double scale = 1) {
  return value ? fmt::format(fmt::runtime(format), *value * scale) : "-";
}

/// 12345678 -> "12,345,678".
std::string grouped(std::int64_t number) {
  const std::string digits = std::to_string(number);
  std::string text;
  for (std::size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0) text += ',';
    text += digits[i];
  }
  return text;
}

std::string cell(const std::optional<std::int64_t>& count) {
  return count ? grouped(*count) : "-";
}

/// Columns as wide as their longest cell; the first two read from the left, numbers from the right.
std::string layout(const std::vector<Row>& rows) {
  std::vector<std::size_t> widths(rows.front().size());
  for (const Row& row : rows) {
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string text;
  for (const Row& row : rows) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) {
      if (i > 0) line += "  ";
      line += i < 2 ? fmt::format("{:<{}}", row[i], widths[i]) : fmt::format("{:>{}}", row[i], widths[i]);
    }
    text += line + '\n';
    if (&row == &rows.front()) text += std::string(line.size(), '-') + '\n';
  }
  return text;
}

}  // namespace

RunSummary summarize_run(const std::filesystem::path& run) {
  if (!std::filesystem::exists(run / "config.toml")) {
    throw Error(
        fmt::format("{}: no config.toml, so not a run folder; name the run.dir of a training run", run.string()));
  }
  RunSummary summary;
  read_config(summary, run);
  read_metrics(summary, run / "metrics.jsonl");
  read_evaluation(summary, run / "eval.json");
  return summary;
}

std::string report_table(const std::vector<RunSummary>& runs) {
  const auto dense = std::find_if(runs.begin(), runs.end(), [](const RunSummary& run) {
    return run.head_kind == HeadKind::dense && run.perplexity;
  });
  std::vector<Row> rows = {{"run", "head", "output-layer parameters", "+ biases", "% of V x d", "tokens/s",
                            "head ms/step", "perplexity", "bits/byte", "perplexity vs dense"}};
  for (const RunSummary& run : runs) {
    std::optional<double> relative;
    if (dense != runs.end() && run.perplexity) relative = *run.perplexity / *dense->perplexity - 1;
    rows.push_back({run.name, run.head, cell(run.head_matrices), cell(run.head_biases),
                    cell(run.fraction_of_dense, "{:.2f}", 100), cell(run.tokens_per_second, "{:.0f}"),
                    cell(run.head_seconds, "{:.1f}", 1000), cell(run.perplexity, "{:.2f}"),
                    cell(run.bits_per_byte, "{:.4f}"), cell(relative, "{:+.1f} %", 100)});
  }
  return layout(rows);
}

std::vector<LossPoint> smooth(const std::vector<LossPoint>& points, int window) {
  VQLM_ASSERT(window >= 1);
  const double keep = 1 - 1.0 / window;
  std::vector<LossPoint> smoothed;
  double sum = 0;
  double weight = 0;  // 1 - keep^n: without it the start would lean to zero
  for (const LossPoint& point : points) {
    sum = keep * sum + (1 - keep) * point.loss;
    weight = keep * weight + (1 - keep);
    smoothed.push_back({point.tokens, sum / weight});
  }
  return smoothed;
}

}  // namespace vqlm
