// What a report says of runs side by side.
#include <spdlog/fmt/fmt.h>
#include <spdlog/fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "core/task_progress.h"
#include "train/codes/map_seen.h"
#include "train/records/report.h"

namespace vqlm {
namespace {

constexpr std::size_t widest = 120;   // columns of a usual terminal beside an editor
constexpr std::size_t shortest = 12;  // of a name that is cut

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

/// Columns as wide as their longest cell; the first `left` read from the left, numbers from the right. Cells of these are cut
/// where lines would be too long.
std::string layout(std::vector<Row> rows, std::size_t left) {
  std::vector<std::size_t> widths(rows.front().size());
  for (const Row& row : rows) {
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::size_t width = std::accumulate(widths.begin(), widths.end(), 2 * (widths.size() - 1));
  for (; width > widest; --width) {
    const auto longest = std::max_element(widths.begin(), widths.begin() + static_cast<std::ptrdiff_t>(left));
    if (*longest <= shortest) break;
    --*longest;
  }
  std::string text;
  for (const Row& row : rows) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) {
      if (i > 0) line += "  ";
      const std::string shown = row[i].size() <= widths[i] ? row[i] : row[i].substr(0, widths[i] - 2) + "..";
      line += i < left ? fmt::format("{:<{}}", shown, widths[i]) : fmt::format("{:>{}}", shown, widths[i]);
    }
    text += line + '\n';
    if (&row == &rows.front()) text += std::string(line.size(), '-') + '\n';
  }
  return text;
}

/// The runs' names; their folders where two have one name.
std::vector<std::string> names_of(const std::vector<RunSummary>& runs) {
  std::vector<std::string> names;
  for (const RunSummary& run : runs) {
    const auto same = std::count_if(runs.begin(), runs.end(), [&](const RunSummary& r) { return r.name == run.name; });
    names.push_back(same > 1 ? run.folder.lexically_normal().string() : run.name);
  }
  return names;
}

/// Collects notes; the same words twice are one note.
class Notes {
 public:
  /// The mark that refers to the note: "(a)".
  std::string mark(const std::string& words) {
    auto found = std::find(notes_.begin(), notes_.end(), words);
    if (found == notes_.end()) found = notes_.insert(notes_.end(), words);
    return fmt::format("({})", letter(static_cast<std::size_t>(found - notes_.begin())));
  }
  std::string text() const {
    std::string text;
    for (std::size_t i = 0; i < notes_.size(); ++i) text += fmt::format("({}) {}\n", letter(i), notes_[i]);
    return text;
  }

 private:
  static std::string letter(std::size_t i) {
    return i < 26 ? std::string(1, static_cast<char>('a' + i)) : std::to_string(i);
  }
  std::vector<std::string> notes_;
};

std::string models_table(const std::vector<RunSummary>& runs, const std::vector<std::string>& names) {
  std::vector<Row> rows = {
      {"run", "head", "parameters", "output layer", "biases", "% of V x d", "steps", "tokens", "seed"}};
  for (std::size_t i = 0; i < runs.size(); ++i) {
    const RunSummary& run = runs[i];
    // A tied head has no matrix of its own.
    rows.push_back({names[i], run.head, cell(run.parameters), run.tied ? "tied" : cell(run.head_matrices),
                    cell(run.head_biases), run.tied ? "tied" : cell(run.fraction_of_dense, "{:.2f}", 100),
                    cell(run.steps), cell(run.tokens), std::to_string(run.seed)});
  }
  return layout(rows, 2);
}

/// A column for each name that a run has, as many as fit beside the runs' names; empty where no run has any.
std::string table_by_name(const std::vector<RunSummary>& runs, const std::vector<std::string>& names,
                          const std::string& title, const char* format,
                          std::map<std::string, double> RunSummary::* numbers) {
  std::set<std::string> all;
  for (const RunSummary& run : runs) {
    for (const auto& [name, number] : run.*numbers) all.insert(name);
  }
  if (all.empty()) return "";
  constexpr std::size_t narrowest = 8, title_width = 30;
  std::vector<std::string> columns;
  std::size_t width = title_width;
  for (const std::string& name : all) {
    width += 2 + std::max(narrowest, name.size());
    if (width > widest) break;
    columns.push_back(name);
  }
  std::vector<Row> rows = {{title}};
  for (const std::string& column : columns) rows[0].push_back(column);
  for (std::size_t i = 0; i < runs.size(); ++i) {
    rows.push_back({names[i]});
    for (const std::string& column : columns) {
      const auto found = (runs[i].*numbers).find(column);
      rows.back().push_back(found == (runs[i].*numbers).end() ? "-" : cell(std::optional(found->second), format));
    }
  }
  const std::size_t more = all.size() - columns.size();
  return '\n' + layout(rows, 1) + (more > 0 ? fmt::format("{} more names: in metrics.jsonl\n", more) : "");
}

/// "-9.5 % (-10.4 to -8.7)", or the mark of why not.
std::string comparison(const RunSummary& run, const RunSummary& base, const std::string& base_name, Notes& notes) {
  if (!run.perplexity) return "-";
  if (&run == &base) return "0";
  if (const auto reasons = incomparable(run, base); !reasons.empty()) {
    return notes.mark(fmt::format("not compared with {}: {}", base_name, fmt::join(reasons, "; ")));
  }
  if (const auto paired = paired_difference(run, base)) {
    return fmt::format("{:+.1f} % ({:+.1f} to {:+.1f})", 100 * paired->relative, 100 * paired->low, 100 * paired->high);
  }
  return fmt::format("{:+.1f} %", 100 * (*run.perplexity / *base.perplexity - 1));
}

/// A line for each run whose code map was counted on text.
std::string maps_text(const std::vector<RunSummary>& runs, const std::vector<std::string>& names) {
  std::string text;
  for (std::size_t i = 0; i < runs.size(); ++i) {
    if (runs[i].map_tokens == 0) continue;
    text += fmt::format("{}: its code map saw {} tokens{}\n", names[i], grouped(runs[i].map_tokens),
                        times_trained_text(runs[i].map_tokens, runs[i].trained_tokens));
  }
  return text.empty() ? "" : '\n' + text;
}

/// What runs that were continued lost by that.
std::string lost_text(const std::vector<RunSummary>& runs, const std::vector<std::string>& names) {
  std::string text;
  for (std::size_t i = 0; i < runs.size(); ++i) {
    const RunSummary& run = runs[i];
    if (run.resumed == 0) continue;
    const double kept = run.train.empty() ? 0 : run.train.back().seconds;
    const double all = kept + run.lost.seconds_repeated + run.lost.seconds_between;
    text += fmt::format("{}: continued {} time{}, {} steps repeated in {}, {} between jobs; goodput {:.1f} %\n",
                        names[i], run.resumed, run.resumed == 1 ? "" : "s", run.lost.steps_repeated,
                        duration_text(run.lost.seconds_repeated), duration_text(run.lost.seconds_between),
                        all > 0 ? 100 * kept / all : 0.0);
  }
  return text;
}

}  // namespace

std::vector<std::string> incomparable(const RunSummary& run, const RunSummary& other) {
  std::vector<std::string> reasons;
  const auto differ = [](const auto& a, const auto& b) { return a && b && *a != *b; };
  const bool other_tokens = run.vocab_size > 0 && other.vocab_size > 0 && run.vocab_size != other.vocab_size;
  if (differ(run.tokenizer, other.tokenizer)) {
    reasons.emplace_back("another tokenizer (bits per byte of the same text can be compared)");
  } else if (other_tokens) {
    reasons.push_back(fmt::format("a vocabulary of {}, not {}", grouped(run.vocab_size), grouped(other.vocab_size)));
  } else if (differ(run.heldout_set, other.heldout_set)) {
    reasons.emplace_back("another held-out text");
  } else if (differ(run.evaluated, other.evaluated)) {
    reasons.push_back(fmt::format("{} tokens evaluated, not {}", grouped(*run.evaluated), grouped(*other.evaluated)));
  }
  if (run.seq_len != other.seq_len)
    reasons.push_back(fmt::format("samples of {} tokens, not {}", run.seq_len, other.seq_len));
  return reasons;
}

std::optional<PairedDifference> paired_difference(const RunSummary& run, const RunSummary& other) {
  const std::size_t documents = run.document_tokens.size();
  if (documents < 2 || run.document_tokens != other.document_tokens) return std::nullopt;
  const double tokens = std::accumulate(run.document_tokens.begin(), run.document_tokens.end(), 0.0);
  double sum = 0;
  for (std::size_t i = 0; i < documents; ++i) sum += run.document_nll[i] - other.document_nll[i];
  const double mean = sum / tokens;
  // As the evaluator's interval: documents are the random draws (Cochran, Sampling Techniques, 6.4).
  double squares = 0;
  for (std::size_t i = 0; i < documents; ++i) {
    const double residual = run.document_nll[i] - other.document_nll[i] - mean * run.document_tokens[i];
    squares += residual * residual;
  }
  const auto n = static_cast<double>(documents);
  const double deviation = std::sqrt(squares * n / (n - 1)) / tokens;
  return PairedDifference{.relative = std::expm1(mean),
                          .low = std::expm1(mean - 1.96 * deviation),
                          .high = std::expm1(mean + 1.96 * deviation)};
}

std::string report_table(const std::vector<RunSummary>& runs) {
  const auto dense = std::find_if(runs.begin(), runs.end(), [](const RunSummary& run) {
    return run.head_kind == HeadKind::dense && run.perplexity;
  });
  const std::vector<std::string> names = names_of(runs);
  Notes notes;
  const std::string base = dense == runs.end() ? "" : names[static_cast<std::size_t>(dense - runs.begin())];
  const std::optional<TimeToLoss> time = time_to_loss(runs);
  std::vector<Row> rows = {{"run", "tokens/s", "head ms/step", "evaluated", "perplexity", "bits/byte",
                            base.empty() ? "vs dense" : fmt::format("vs {} (95 %, paired)", base)}};
  if (rows.front().back().size() > 40) rows.front().back() = "vs the first dense run (95 %)";
  for (std::size_t i = 0; i < runs.size(); ++i) {
    const RunSummary& run = runs[i];
    std::string evaluated = cell(run.evaluated);
    if (run.partial && run.perplexity) evaluated += " " + notes.mark("the beginning of the held-out text only");
    rows.push_back({names[i], cell(run.tokens_per_second, "{:.0f}"), cell(run.head_seconds, "{:.1f}", 1000), evaluated,
                    cell(run.perplexity, "{:.2f}"), cell(run.bits_per_byte, "{:.4f}"),
                    dense == runs.end() ? "-" : comparison(run, *dense, base, notes)});
  }
  if (time) {
    constexpr std::ptrdiff_t column = 3;
    rows.front().insert(rows.front().begin() + column, fmt::format("s to loss {:.3f}", time->loss));
    for (std::size_t i = 0; i < runs.size(); ++i)
      rows[i + 1].insert(rows[i + 1].begin() + column, fmt::format("{:.0f}", time->seconds[i]));
  }
  return models_table(runs, names) + '\n' + layout(rows, 1) +
         table_by_name(runs, names, "held-out perplexity by set", "{:.2f}", &RunSummary::set_perplexities) +
         table_by_name(runs, names, "loss by source, last steps", "{:.4f}", &RunSummary::source_losses) +
         maps_text(runs, names) + lost_text(runs, names) + notes.text();
}

}  // namespace vqlm
