#include "train/records/report.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "data/tokenizer/tokenizer_files.h"
#include "train/codes/code_map_file.h"
#include "train/config/config.h"
#include "train/config/model_text.h"
#include "train/engine/planned_model.h"

namespace vqlm {
namespace {

using Json = nlohmann::json;
constexpr int loss_window = 50;  // steps that a loss is smoothed over

std::optional<double> number_at(const Json& object, const char* key) {
  const auto found = object.find(key);
  if (found == object.end() || !found->is_number()) return std::nullopt;
  return found->get<double>();
}

std::optional<double> median_of_known(std::vector<double> values) {
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
  run.tied = config.model.tie_embeddings;
  run.seed = config.train.seed;
  run.trained_tokens = config.trained_tokens();
  const std::filesystem::path map = folder / "code_map.h5";
  if (run.head_kind == HeadKind::vq && std::filesystem::exists(map))
    run.map_tokens = load_code_map(map.string()).counted_tokens;
  run.vocab_size = config.model.vocab_size;
  run.seq_len = config.data.seq_len;
  run.partial = config.train.eval_tokens > 0;
  if (config.model.vocab_size == 0) return;  // written before the shards were known
  const HeadCost cost = head_cost(config.model, config.head);
  run.head_matrices = cost.matrix_parameters;
  run.head_biases = cost.bias_parameters;
  run.fraction_of_dense =
      static_cast<double>(cost.matrix_parameters) / static_cast<double>(config.model.vocab_size * config.model.d_model);
  if (config.model.n_kv_heads == 0 || config.model.d_ff == 0) return;  // not resolved
  std::int64_t parameters = 0;
  for (const LogicalTensor& tensor : logical_tensors(config.model, config.head)) parameters += tensor.shape.numel();
  run.parameters = parameters;
}

/// The hash of the tokenizer beside the run's newest checkpoint; none where there is neither.
std::optional<std::string> tokenizer_of(const std::filesystem::path& run) {
  std::filesystem::path newest;
  std::error_code none;
  for (const auto& entry : std::filesystem::directory_iterator(run / "checkpoints", none)) {
    if (std::filesystem::exists(entry.path() / "manifest.json")) newest = std::max(newest, entry.path());
  }
  const std::string identity = newest.empty() ? "" : tokenizer_identity(newest);
  return identity.empty() ? std::nullopt : std::optional(identity);
}

/// OBJECT[key] = {NAME: {field: number}}, into numbers[NAME].
void read_names(const Json& object, const char* key, const char* field, std::map<std::string, double>& numbers) {
  const auto found = object.find(key);
  if (found == object.end() || !found->is_object()) return;
  for (const auto& [name, values] : found->items()) {
    if (const auto number = values.is_object() ? number_at(values, field) : std::nullopt) numbers[name] = *number;
  }
}

void read_metrics(RunSummary& run, const std::filesystem::path& path) {
  std::ifstream file(path);
  std::vector<double> speeds;
  std::vector<double> head_seconds;
  std::map<std::string, std::vector<LossPoint>> by_source;
  std::map<std::string, std::size_t> last_line;  // of each source
  double trained = 0;                            // seconds of steps
  std::string line;
  while (std::getline(file, line)) {
    const Json object = Json::parse(line, nullptr, false);
    if (!object.is_object()) {
      if (file.eof()) break;  // a run in progress is writing it
      throw Error(fmt::format("{}: a line is not JSON: {:.60}", path.string(), line));
    }
    if (object.contains("resumed")) {
      ++run.resumed;
      run.lost.steps_repeated += static_cast<std::int64_t>(number_at(object, "steps_repeated").value_or(0));
      run.lost.seconds_repeated += number_at(object, "seconds_repeated").value_or(0);
      run.lost.seconds_between += number_at(object, "seconds_between").value_or(0);
    }
    const auto tokens = number_at(object, "tokens");
    if (!tokens) continue;
    if (object.contains("loss")) {
      run.tokens = static_cast<std::int64_t>(*tokens);
      if (const auto step = number_at(object, "step")) run.steps = static_cast<std::int64_t>(*step);
    }
    if (const auto loss = number_at(object, "loss")) {
      trained += number_at(object, "seconds").value_or(0);
      run.train.push_back({*tokens, *loss, trained});
    }
    if (const auto loss = number_at(object, "heldout_loss")) {
      if (const auto evaluated = number_at(object, "heldout_tokens"))
        run.evaluated = static_cast<std::int64_t>(*evaluated);
      run.heldout.push_back({*tokens, *loss, trained});
      run.perplexity = std::exp(*loss);
      run.bits_per_byte = number_at(object, "heldout_bits_per_byte");
    }
    read_names(object, "heldout_by_set", "perplexity", run.set_perplexities);
    if (const auto sources = object.find("loss_by_source"); sources != object.end() && sources->is_object()) {
      for (const auto& [name, loss] : sources->items()) {
        if (loss.is_number()) by_source[name].push_back({*tokens, loss.get<double>(), trained});
        last_line[name] = run.train.size();
      }
    }
    if (const auto speed = number_at(object, "tokens_per_second")) speeds.push_back(*speed);
    if (const auto seconds = number_at(object, "seconds_head")) head_seconds.push_back(*seconds);
  }
  for (const auto& [name, points] : by_source) {
    if (last_line[name] + loss_window >= run.train.size())
      run.source_losses[name] = smooth(points, loss_window).back().loss;
  }
  run.tokens_per_second = median_of_known(std::move(speeds));
  run.head_seconds = median_of_known(std::move(head_seconds));
}

std::vector<double> numbers_at(const Json& object, const char* key) {
  std::vector<double> numbers;
  const auto found = object.find(key);
  if (found == object.end() || !found->is_array()) return numbers;
  for (const Json& number : *found) numbers.push_back(number.is_number() ? number.get<double>() : 0);
  return numbers;
}

/// What was evaluated, on what. Evaluations of earlier versions say less.
void read_subject(RunSummary& run, const Json& object) {
  const auto text = [&](const char* key) -> std::optional<std::string> {
    const auto found = object.find(key);
    return found != object.end() && found->is_string() ? std::optional(found->get<std::string>()) : std::nullopt;
  };
  const auto count = [&](const char* key) -> std::optional<std::int64_t> {
    const auto number = number_at(object, key);
    return number ? std::optional(static_cast<std::int64_t>(*number)) : std::nullopt;
  };
  run.heldout_set = text("data_fingerprint");
  if (const auto tokenizer = text("tokenizer_sha256"); tokenizer && !tokenizer->empty()) run.tokenizer = tokenizer;
  run.seq_len = count("seq_len").value_or(run.seq_len);
  run.evaluated = count("tokens");
  const auto whole = object.find("complete");
  run.partial = whole != object.end() && whole->is_boolean() && !whole->get<bool>();
  if (const auto model = object.find("model"); model != object.end() && model->is_object()) {
    if (const auto parameters = number_at(*model, "parameters"))
      run.parameters = static_cast<std::int64_t>(*parameters);
  }
  if (const auto losses = object.find("document_losses"); losses != object.end() && losses->is_object()) {
    run.document_tokens = numbers_at(*losses, "tokens");
    run.document_nll = numbers_at(*losses, "nll");
    if (run.document_tokens.size() != run.document_nll.size()) run.document_tokens = run.document_nll = {};
  }
}

/// Several sets' results (`vqlm eval` of named sets) as one: means over all tokens, the documents one behind the other.
Json of_all_sets(const Json& object) {
  const auto sets = object.find("sets");
  if (sets == object.end() || !sets->is_object() || sets->empty()) return object;
  Json all = sets->begin().value();
  double nll = 0, tokens = 0, bytes = 0;
  bool complete = true, bytes_known = true;
  std::string fingerprint;
  Json document_tokens = Json::array(), document_nll = Json::array();
  for (const auto& [name, set] : sets->items()) {
    const double of_set = number_at(set, "tokens").value_or(0);
    nll += number_at(set, "nll").value_or(0) * of_set;
    tokens += of_set;
    bytes_known = bytes_known && set.contains("bytes");
    bytes += number_at(set, "bytes").value_or(0);
    complete = complete && set.value("complete", true);
    fingerprint += set.value("data_fingerprint", "");
    const Json losses = set.value("document_losses", Json::object());
    for (const Json& number : losses.value("tokens", Json::array())) document_tokens.push_back(number);
    for (const Json& number : losses.value("nll", Json::array())) document_nll.push_back(number);
  }
  const bool finite = std::ranges::all_of(*sets, [](const Json& set) { return number_at(set, "nll").has_value(); });
  all["perplexity"] = finite ? Json(std::exp(nll / tokens)) : Json();
  all.erase("bits_per_byte");
  if (bytes_known && bytes > 0) all["bits_per_byte"] = nll / std::log(2.0) / bytes;
  all["tokens"] = tokens;
  all["complete"] = complete;
  all["data_fingerprint"] = fingerprint;
  all["document_losses"] = {{"tokens", document_tokens}, {"nll", document_nll}};
  return all;
}

void read_evaluation(RunSummary& run, const std::filesystem::path& path) {
  std::ifstream file(path);
  if (!file) return;
  const Json written = Json::parse(file, nullptr, false);
  if (!written.is_object()) {
    throw Error(fmt::format("{}: not a JSON object; write it again with vqlm eval --json", path.string()));
  }
  const Json object = of_all_sets(written);
  read_names(written, "sets", "perplexity", run.set_perplexities);
  run.perplexity = number_at(object, "perplexity");
  run.bits_per_byte = number_at(object, "bits_per_byte");
  read_subject(run, object);
  const auto head = object.find("head");
  if (head == object.end() || !head->is_object()) return;
  if (const auto matrices = number_at(*head, "parameters")) run.head_matrices = static_cast<std::int64_t>(*matrices);
  if (const auto biases = number_at(*head, "biases")) run.head_biases = static_cast<std::int64_t>(*biases);
  if (const auto fraction = number_at(*head, "fraction_of_dense")) run.fraction_of_dense = fraction;
}

}  // namespace

RunSummary summarize_run(const std::filesystem::path& run) {
  if (!std::filesystem::exists(run / "config.toml")) {
    throw Error(
        fmt::format("{}: no config.toml, so not a run folder; name the run.dir of a training run", run.string()));
  }
  RunSummary summary;
  summary.folder = run;
  read_config(summary, run);
  summary.tokenizer = tokenizer_of(run);
  read_metrics(summary, run / "metrics.jsonl");
  read_evaluation(summary, run / "eval.json");
  return summary;
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
    smoothed.push_back({point.tokens, sum / weight, point.seconds});
  }
  return smoothed;
}

std::optional<TimeToLoss> time_to_loss(const std::vector<RunSummary>& runs) {
  TimeToLoss reached;
  std::vector<std::vector<LossPoint>> smoothed;
  for (const RunSummary& run : runs) {
    const RunSummary& first = runs.front();
    const bool same =
        run.vocab_size == first.vocab_size && (!run.tokenizer || !first.tokenizer || run.tokenizer == first.tokenizer);
    if (run.train.size() < loss_window || !same) return std::nullopt;
    smoothed.push_back(smooth(run.train, loss_window));
    reached.loss = std::max(reached.loss, smoothed.back().back().loss);
  }
  if (runs.size() < 2) return std::nullopt;
  for (const std::vector<LossPoint>& points : smoothed) {
    const auto first = std::ranges::find_if(points.begin() + loss_window - 1, points.end(),
                                            [&](const LossPoint& point) { return point.loss <= reached.loss; });
    VQLM_ASSERT(first != points.end());
    reached.seconds.push_back(first->seconds);
  }
  return reached;
}

}  // namespace vqlm
