#include "train/tools/plan/plan_report.h"

#include <spdlog/fmt/fmt.h>

#include <cctype>
#include <charconv>
#include <cmath>
#include <utility>

#include "core/error.h"
#include "train/config/enum_words.h"
#include "train/config/model_text.h"
#include "train/engine/human_bytes.h"

namespace vqlm {
namespace {

double mean_rate(double amount, double seconds) {
  return seconds > 0 ? amount / seconds : 0;
}

std::string human_seconds(double seconds) {
  if (seconds >= 1) return fmt::format("{:.3f} s", seconds);
  return seconds >= 1e-3 ? fmt::format("{:.2f} ms", 1e3 * seconds) : fmt::format("{:.1f} us", 1e6 * seconds);
}

std::string heading_text(const PlanReport& report) {
  const Config& config = report.config;
  const StatedRates& rates = report.options.rates;
  std::string text =
      fmt::format("model   {}: {:.2f} M parameters\n", model_text(config), 1e-6 * report.step.parameters);
  text += fmt::format(
      "grid    {} data x {} tensor ranks; a step is {} micro-batches of {} x {} tokens on each of "
      "{} data ranks: {:.0f} tokens\n",
      config.parallel.data, config.parallel.tensor, report.step.micro_batches, config.train.micro_batch,
      config.data.seq_len, config.parallel.data, report.step.tokens);
  if (!report.machine.empty()) text += fmt::format("gpu     {}\n", report.machine);
  text += fmt::format(
      "rates   stated, not measured{}: products {:.4g} "
      "TFLOP/s ({}), memory {:.4g} GB/s, network {:.4g} GB/s, "
      "tensor group {:.4g} GB/s a rank\n",
      report.machine.empty() ? " (defaults: an H200, one link of 400 Gbit/s a GPU)" : "", 1e-12 * rates.product_flops,
      name_of(report.options.activation), 1e-9 * rates.memory_bytes, 1e-9 * rates.network_bytes,
      1e-9 * rates.tensor_link_bytes);
  for (const std::string& note : report.notes) text += fmt::format("note    {}\n", note);
  return text;
}

std::string memory_text(const PlanReport& report) {
  const MemoryPlan& memory = report.step.memory;
  std::string text = "\nmemory of one rank\n";
  for (std::size_t use = 0; use < memory.bytes.size(); ++use) {
    text +=
        fmt::format("  {:<12} {:>12}\n", memory_use_names[use], human_bytes(static_cast<double>(memory.bytes[use])));
  }
  text += fmt::format("  {:<12} {:>12}", "total", human_bytes(static_cast<double>(memory.total())));
  if (!report.device_memory) return text + "\n";
  text += fmt::format(" of {} ({} of the device, less {} for driver, libraries and kernels): {}\n",
                      human_bytes(static_cast<double>(report.available())),
                      human_bytes(static_cast<double>(*report.device_memory)),
                      human_bytes(static_cast<double>(report.reserve)), report.fits() ? "fits" : "DOES NOT FIT");
  if (report.largest_micro_batch) {
    text += fmt::format("  the largest train.micro_batch that fits: {}\n", *report.largest_micro_batch);
  } else {
    text += "  no train.micro_batch fits\n";
  }
  if (report.fits()) return text;
  text += "  one change at a time:\n";
  for (const MemoryChange& change : report.changes) {
    text += fmt::format("    {:<56} {:>12}  {}\n", change.change, human_bytes(static_cast<double>(change.bytes)),
                        change.fits ? "fits" : "does not fit");
  }
  return text;
}

void add(OpCount& sum, const OpCount& op) {
  sum.calls += op.calls;
  sum.flops += op.flops;
  sum.bytes_read += op.bytes_read;
  sum.bytes_written += op.bytes_written;
  sum.seconds += op.seconds;
}

std::string work_text(const StepPlan& step) {
  std::string text = fmt::format("\nwork of one rank and step\n  {:<25} {:>8} {:>10} {:>12} {:>12} {:>11} {:>8}\n",
                                 "op", "calls", "TFLOP", "read", "written", "time", "share");
  const double compute = step.product_seconds + step.memory_seconds + step.launch_seconds;
  const auto line = [&](std::string_view name, const OpCount& op) {
    text += fmt::format("  {:<25} {:>8} {:>10.3f} {:>12} {:>12} {:>11} {:>6.1f} %\n", name, op.calls, 1e-12 * op.flops,
                        human_bytes(op.bytes_read), human_bytes(op.bytes_written), human_seconds(op.seconds),
                        100 * op.seconds / compute);
  };
  constexpr double small_share = 1e-3;  // such ops share a line
  OpCount small, all;
  int small_ones = 0;
  for (const OpCount& op : step.ops) {
    add(all, op);
    if (op.seconds >= small_share * compute) {
      line(op.name, op);
    } else {
      ++small_ones;
      add(small, op);
    }
  }
  if (small_ones > 0) line(fmt::format("{} others", small_ones), small);
  line("together", all);
  return text;
}

std::string communication_text(const StepPlan& step) {
  if (step.collectives.empty()) return "\ncommunication: none\n";
  std::string text = fmt::format(
      "\ncommunication of one rank and step (ring algorithm)\n  {:<8} {:>6} {:<16} {:>8} {:>12} {:>12} "
      "{:>11}\n",
      "group", "ranks", "collective", "calls", "payload", "sent", "time");
  for (const CollectiveCount& c : step.collectives) {
    text += fmt::format("  {:<8} {:>6} {:<16} {:>8} {:>12} {:>12} {:>11}\n", c.group, c.ranks, c.name, c.calls,
                        human_bytes(c.payload_bytes), human_bytes(c.sent_bytes), human_seconds(c.seconds));
  }
  return text;
}

std::string recomputation_text(const PlanReport& report) {
  if (report.config.train.recompute == Recompute::none) return "";
  const RecomputationCost& cost = report.recomputation;
  return fmt::format(
      "\nrecompute  {}: {:.3f} TFLOP of a rank and step are done again ({:.1f} % of all), {} longer; spares {}\n",
      word_of(report.config.train.recompute), 1e-12 * cost.flops, 100 * cost.flops / report.step.flops,
      human_seconds(cost.seconds), human_bytes(cost.bytes));
}

std::string step_text(const StepPlan& step) {
  const double without = step.seconds_without_overlap();
  const bool launches = step.launch_seconds > 0;
  return fmt::format(
             "\nstep    {} with reductions beside backward and gathers beside forward, {} without: {} bound by operations + {} "
             "by "
             "memory + {} of collectives{}\n",
             human_seconds(step.seconds), human_seconds(without), human_seconds(step.product_seconds),
             human_seconds(step.memory_seconds), human_seconds(step.collective_seconds),
             launches ? fmt::format(" + {} of launches", human_seconds(step.launch_seconds)) : "") +
         fmt::format("        {} of it in the head; at the stated rates, {}\n", human_seconds(step.head_seconds),
                     launches ? "without contention: predicted, not measured"
                              : "without launches, latencies and contention: a bound, no forecast") +
         fmt::format("update  {} of it after the gradients: {:.3f} TFLOP ({:.2f} % of the step's), {} sent\n",
                     human_seconds(step.update.seconds), 1e-12 * step.update.flops,
                     step.flops > 0 ? 100 * step.update.flops / step.flops : 0.0, human_bytes(step.update.sent_bytes)) +
         fmt::format(
             "speed   {} {:.0f} tokens/s ({:.0f} without overlap), MFU {:.1f} % ({:.1f} %), {:.1f} "
             "MFLOP "
             "a token\n",
             launches ? "about" : "at most", step.tokens_per_second(), mean_rate(step.tokens, without),
             100 * step.mfu(), 100 * step.mfu() * step.seconds / without, 1e-6 * step.flops_per_token);
}

}  // namespace

std::size_t parse_bytes(const std::string& text, std::string_view option) {
  double number = 0;
  const char* const last = text.data() + text.size();
  const auto [end, status] = std::from_chars(text.data(), last, number);
  std::string unit(end, last);
  for (char& letter : unit) letter = static_cast<char>(std::toupper(static_cast<unsigned char>(letter)));
  const bool binary = unit.size() == 3 && unit.ends_with("IB");
  if (unit.size() == 2 && unit[1] == 'B') unit.pop_back();
  const std::size_t power = unit == "B" ? 0 : std::string_view("BKMGT").find(unit[0]);
  const bool known = unit.size() <= 1 || binary;
  const double bytes = number * std::pow(binary ? 1024.0 : 1000.0, static_cast<double>(power));
  if (status != std::errc() || unit.empty() || !known || power > 4 || !(bytes >= 1 && bytes < 1e18)) {
    throw UsageError(
        fmt::format("{} {}: no size; write a number and a unit, for example 80GB (decimal), 80GiB (binary) or "
                    "512M",
                    option, text));
  }
  return static_cast<std::size_t>(std::llround(bytes));
}

ParallelSection parse_grid(const std::string& text) {
  ParallelSection grid;
  const char* const last = text.data() + text.size();
  const auto data = std::from_chars(text.data(), last, grid.data);
  const bool crossed = data.ec == std::errc() && data.ptr != last && *data.ptr == 'x';
  const auto tensor = crossed ? std::from_chars(data.ptr + 1, last, grid.tensor) : data;
  constexpr int many = 1 << 20;
  if (!crossed || tensor.ec != std::errc() || tensor.ptr != last || grid.data < 1 || grid.tensor < 1 ||
      grid.data > many / grid.tensor) {
    throw UsageError(fmt::format(
        "--grid {}: write the data ranks x the tensor ranks, for example --grid 8x2 (at most {} ranks)", text, many));
  }
  return grid;
}

PlanReport make_plan_report(const Config& config, const PlanOptions& options, std::optional<std::size_t> device_memory,
                            std::size_t reserve, std::vector<std::string> notes, std::string machine) {
  PlanReport report{.config = config,
                    .options = options,
                    .step = plan_step(config, options),
                    .recomputation = {},
                    .notes = std::move(notes),
                    .machine = std::move(machine),
                    .device_memory = device_memory,
                    .reserve = reserve,
                    .changes = {},
                    .largest_micro_batch = {}};
  report.recomputation = recomputation_cost(config, options, report.step);
  if (!device_memory) return report;
  report.largest_micro_batch = largest_micro_batch(config, options, report.available());
  if (!report.fits()) report.changes = memory_changes(config, options, report.available());
  return report;
}

std::string to_text(const PlanReport& report) {
  return heading_text(report) + memory_text(report) + work_text(report.step) + communication_text(report.step) +
         recomputation_text(report) + step_text(report.step);
}

}  // namespace vqlm
