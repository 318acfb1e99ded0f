#include "train/records/metrics.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "core/error.h"
#include "core/log.h"
#include "data/files/atomic_file.h"

namespace vqlm {
namespace {

// ordered: a line reads in the order that people look for things.
using OrderedJson = nlohmann::ordered_json;

double number_or_0(const OrderedJson& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_number() ? found->get<double>() : 0;
}

/// Adds what a line that is cut tells.
void add_lost(LostTime& lost, const OrderedJson& line) {
  if (line.contains("resumed")) {
    lost.steps_repeated += static_cast<std::int64_t>(number_or_0(line, "steps_repeated"));
    lost.seconds_repeated += number_or_0(line, "seconds_repeated");
    lost.seconds_between += number_or_0(line, "seconds_between");
  } else if (line.contains("loss")) {
    ++lost.steps_repeated;
    lost.seconds_repeated += number_or_0(line, "seconds");
  }
}

/// Since the file was last written; 0 where the clock says that this is still to come.
double age_seconds(const std::filesystem::path& path) {
  std::error_code failed;
  const auto written = std::filesystem::last_write_time(path, failed);
  if (failed) return 0;
  return std::max(0.0, std::chrono::duration<double>(std::filesystem::file_time_type::clock::now() - written).count());
}

std::filesystem::path metrics_file(const Config& config) {
  return std::filesystem::path(config.run.dir) / "metrics.jsonl";
}

}  // namespace

std::optional<LostTime> cut_metrics(const std::filesystem::path& path, std::int64_t last_step) {
  std::ifstream file(path);
  if (!file) {
    if (!std::filesystem::exists(path)) return std::nullopt;
    throw Error(fmt::format("{}: cannot read; check its permissions", path.string()));
  }
  LostTime lost{.seconds_between = age_seconds(path)};
  std::string kept;
  std::string line;
  for (std::int64_t number = 1; std::getline(file, line); ++number) {
    const bool whole = !file.eof();  // a line without its newline was cut by a crash
    const OrderedJson object = OrderedJson::parse(line, nullptr, false);
    const auto step = object.is_object() ? object.find("step") : object.end();
    if (!object.is_object() || step == object.end() || !step->is_number_integer()) {
      if (!whole) continue;
      throw Error(fmt::format("{}:{}: not a metrics line; mend or move the file, then continue with --resume",
                              path.string(), number));
    }
    if (whole && step->get<std::int64_t>() <= last_step) {
      kept += line + '\n';
      if (object.contains("heldout_loss")) lost.evaluated_step = step->get<std::int64_t>();
    } else {
      add_lost(lost, object);
    }
  }
  write_file_atomically(path.string(), kept);
  return lost;
}

std::optional<std::int64_t> last_evaluated_step(const std::filesystem::path& path) {
  std::ifstream file(path);
  if (!file) return std::nullopt;
  std::int64_t last = 0;
  for (std::string line; std::getline(file, line);) {
    const OrderedJson object = OrderedJson::parse(line, nullptr, false);
    if (object.is_object() && object.contains("heldout_loss"))
      last = static_cast<std::int64_t>(number_or_0(object, "step"));
  }
  return last;
}

Metrics::Metrics(const Config& config, std::int64_t resumed_step, Terminal terminal)
    : lost_(cut_metrics(metrics_file(config), resumed_step)),
      lines_(metrics_file(config)),
      events_(config.run.dir, resumed_step + 1),
      progress_(config.train.steps, config.run.log_every, terminal) {
  if (resumed_step > 0) note_resumed(resumed_step);
  // Markdown shows lines that begin with four spaces as they are.
  std::istringstream lines(to_toml(config));
  std::string markdown;
  for (std::string line; std::getline(lines, line);) markdown += "    " + line + '\n';
  try {
    events_.add_text(resumed_step, "config", markdown);
  } catch (const Error& error) {
    full_ = true;
    log::error("{}; the run goes on and keeps its lines until there is room", error.what());
  }
}

namespace {

/// Losses of heads for later tokens, the nearest token's first.
void add_future(const std::string& prefix, const std::string& group, const std::vector<double>& losses,
                OrderedJson& object, std::vector<Scalar>& scalars) {
  if (losses.empty()) return;
  object[prefix + "future_losses"] = losses;
  for (std::size_t j = 0; j < losses.size(); ++j) {
    scalars.push_back({fmt::format("{}future_loss_{}", group, j + 1), static_cast<float>(losses[j])});
  }
}

}  // namespace

void Metrics::add(const StepMetrics& step) {
  OrderedJson object = {{"step", step.step},
                        {"tokens", step.tokens},
                        {"loss", step.loss},
                        {"lr", step.lr},
                        {"grad_norm", step.grad_norm},
                        {"tokens_per_second", step.tokens_per_second},
                        {"seconds", step.seconds},
                        {"seconds_data", step.seconds_data},
                        {"seconds_head", step.seconds_head},
                        {"mfu", step.mfu},
                        {"memory_bytes", step.memory_bytes}};
  std::vector<Scalar> scalars = {{"train/loss", static_cast<float>(step.loss)},
                                 {"train/lr", static_cast<float>(step.lr)},
                                 {"train/grad_norm", static_cast<float>(step.grad_norm)},
                                 {"speed/tokens_per_second", static_cast<float>(step.tokens_per_second)},
                                 {"speed/seconds_data", static_cast<float>(step.seconds_data)},
                                 {"speed/seconds_head", static_cast<float>(step.seconds_head)},
                                 {"speed/mfu", static_cast<float>(step.mfu)},
                                 {"memory/peak_MiB", static_cast<float>(step.memory_bytes) / (1 << 20)}};
  if (step.commitment) {
    object["commitment"] = *step.commitment;
    scalars.push_back({"train/commitment", static_cast<float>(*step.commitment)});
  }
  if (step.z_loss) {
    object["z_loss"] = *step.z_loss;
    scalars.push_back({"train/z_loss", static_cast<float>(*step.z_loss)});
  }
  add_future("", "train/", step.future_losses, object, scalars);
  for (const auto& [name, times] :
       {std::pair{"seconds_data_by_rank", &step.data_times}, {"seconds_head_by_rank", &step.head_times}}) {
    if (*times) object[name] = {{"min", (*times)->least}, {"max", (*times)->most}, {"slowest", (*times)->slowest}};
  }
  if (!step.sources.empty()) {
    OrderedJson losses = OrderedJson::object(), epochs = OrderedJson::object();
    for (const SourceMetrics& source : step.sources) {
      epochs[source.name] = source.epochs;
      if (!source.loss) continue;
      losses[source.name] = *source.loss;
      scalars.push_back({"train/loss/" + source.name, static_cast<float>(*source.loss)});
    }
    object["loss_by_source"] = losses;
    object["epochs"] = epochs;
  }
  if (step.skipped) object["skipped"] = true;  // JSON has no NaN: the loss reads null where it is none
  write(step.step, object.dump(), scalars);
  progress_.add(step);
}

void Metrics::write(std::int64_t step, const std::string& line, const std::vector<Scalar>& scalars) {
  std::string failure;
  const auto attempt = [&](const auto& append) {
    try {
      append();
    } catch (const Error& error) {
      failure = error.what();
    }
  };
  attempt([&] { lines_.append(line + '\n'); });
  if (!scalars.empty()) attempt([&] { events_.add(step, scalars); });
  if (!failure.empty() && !full_) log::error("{}; the run goes on and keeps its lines until there is room", failure);
  full_ = !failure.empty();
}

void Metrics::note_resumed(std::int64_t step) {
  if (!lost_) return;  // a fork, in a folder of its own
  const OrderedJson object = {{"step", step},
                              {"resumed", true},
                              {"steps_repeated", lost_->steps_repeated},
                              {"seconds_repeated", lost_->seconds_repeated},
                              {"seconds_between", lost_->seconds_between}};
  write(step, object.dump(), {});
}

void Metrics::add(const CheckpointMetrics& checkpoint) {
  const OrderedJson object = {{"step", checkpoint.step},
                              {"checkpoint", checkpoint.name},
                              {"seconds_wait", checkpoint.wait_seconds},
                              {"seconds_copy", checkpoint.copy_seconds},
                              {"seconds_write", checkpoint.write_seconds}};
  write(checkpoint.step, object.dump(), {});
}

namespace {

/// "; later tokens 5.1234 5.4321"
std::string future_text(const std::vector<double>& losses) {
  std::string text;
  for (const double loss : losses) text += fmt::format(" {:.4f}", loss);
  return text.empty() ? text : "; later tokens" + text;
}

}  // namespace

void Metrics::add(const HeldoutMetrics& heldout) {
  OrderedJson object = {{"step", heldout.step},
                        {"tokens", heldout.tokens},
                        {"heldout_loss", heldout.loss},
                        {"heldout_perplexity", std::exp(heldout.loss)},
                        {"heldout_tokens", heldout.heldout_tokens},
                        {"seconds", heldout.seconds}};
  std::vector<Scalar> scalars = {{"heldout/loss", static_cast<float>(heldout.loss)},
                                 {"heldout/perplexity", static_cast<float>(std::exp(heldout.loss))}};
  if (heldout.bits_per_byte) {
    object["heldout_bits_per_byte"] = *heldout.bits_per_byte;
    scalars.push_back({"heldout/bits_per_byte", static_cast<float>(*heldout.bits_per_byte)});
  }
  if (heldout.cluster_loss && heldout.member_loss) {
    object["heldout_cluster_loss"] = *heldout.cluster_loss;
    object["heldout_member_loss"] = *heldout.member_loss;
    scalars.push_back({"heldout/cluster_loss", static_cast<float>(*heldout.cluster_loss)});
    scalars.push_back({"heldout/member_loss", static_cast<float>(*heldout.member_loss)});
  }
  add_future("heldout_", "heldout/", heldout.future_losses, object, scalars);
  std::string by_set;
  for (const HeldoutSetMetrics& set : heldout.sets) {
    object["heldout_by_set"][set.name] = {
        {"loss", set.loss}, {"perplexity", std::exp(set.loss)}, {"tokens", set.tokens}};
    scalars.push_back({"heldout/loss/" + set.name, static_cast<float>(set.loss)});
    by_set += fmt::format("; {} {:.4f}, {:.2f} ({} tokens)", set.name, set.loss, std::exp(set.loss), set.tokens);
  }
  write(heldout.step, object.dump(), scalars);
  log::info("step {}: held-out loss {:.4f}, perplexity {:.2f} ({} tokens, {}){}", heldout.step, heldout.loss,
            std::exp(heldout.loss), heldout.heldout_tokens, duration_text(heldout.seconds),
            future_text(heldout.future_losses) + by_set);
}

}  // namespace vqlm
