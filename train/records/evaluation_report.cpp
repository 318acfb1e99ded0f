#include "train/records/evaluation_report.h"

#include <spdlog/fmt/fmt.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "train/codes/map_seen.h"
#include "train/config/enum_words.h"

namespace vqlm {
namespace {

double fraction_of_dense(const EvaluationSubject& subject) {
  const ModelConfig& model = subject.config.model;
  return static_cast<double>(subject.head.matrix_parameters) / static_cast<double>(model.vocab_size * model.d_model);
}

double share_of(const BandLoss& loss, const Evaluation& evaluation) {
  return static_cast<double>(loss.means.tokens) / static_cast<double>(evaluation.tokens);
}

nlohmann::ordered_json band_json(const BandLoss& loss, const Evaluation& evaluation) {
  const LossMeans& means = loss.means;
  nlohmann::ordered_json json = {{"first_rank", loss.band.first_rank},
                                 {"last_rank", loss.band.last_rank},
                                 {"tokens", means.tokens},
                                 {"share", share_of(loss, evaluation)}};
  if (means.tokens == 0) return json;
  json["nll"] = means.nll;
  json["perplexity"] = std::exp(means.nll);
  if (means.cluster_nll) json["cluster_nll"] = *means.cluster_nll;
  if (means.member_nll) json["member_nll"] = *means.member_nll;
  return json;
}

nlohmann::ordered_json future_json(const FutureEvaluation& head) {
  nlohmann::ordered_json json = {{"tokens", head.tokens}};
  if (head.tokens == 0) return json;
  json["nll"] = head.nll;
  json["perplexity"] = std::exp(head.nll);
  if (head.acceptance) json["acceptance"] = *head.acceptance;
  return json;
}

std::string future_text(const Evaluation& evaluation) {
  std::string text;
  for (std::size_t j = 0; j < evaluation.future.size(); ++j) {
    const FutureEvaluation& head = evaluation.future[j];
    text += fmt::format("token t + {:<4} {}", j + 2,
                        head.tokens > 0 ? fmt::format("nll {:.5f}, perplexity {:.3f}", head.nll, std::exp(head.nll))
                                        : "no position has one");
    if (head.acceptance && head.tokens > 0)
      text += fmt::format(", {:.2f} % of drafts accepted", 100 * *head.acceptance);
    text += fmt::format(" ({} positions)\n", head.tokens);
  }
  return text;
}

/// The member document_losses. Losses with seven digits: single precision, as they are computed in.
std::string documents_json(const Evaluation& evaluation) {
  std::string tokens, nll;
  for (std::size_t i = 0; i < evaluation.document_tokens.size(); ++i) {
    tokens += fmt::format("{}{:.0f}", i > 0 ? "," : "", evaluation.document_tokens[i]);
    const double sum = evaluation.document_nll[i];
    nll += fmt::format("{}{}", i > 0 ? "," : "",
                       std::isfinite(sum) ? fmt::format("{:.7g}", sum) : "null");  // no NaN in JSON
  }
  return fmt::format(",\n  \"document_losses\": {{\n    \"tokens\": [{}],\n    \"nll\": [{}]\n  }}", tokens, nll);
}

/// What is known of the perplexity's error.
std::string interval_text(const Evaluation& evaluation) {
  if (!evaluation.nll_ci95) return "one document, so no interval";
  const auto [low, high] = *evaluation.nll_ci95;
  return fmt::format("95 %: {:.3f} to {:.3f}, from the losses of {} documents", std::exp(low), std::exp(high),
                     evaluation.documents);
}

std::string bands_text(const Evaluation& evaluation) {
  if (evaluation.bands.empty()) return "";
  std::string text =
      fmt::format("targets by rank in the training text\n{:>16}  {:>10}  {:>7}  {:>10}  {:>9}  {:>9}  {:>9}\n", "ranks",
                  "tokens", "share", "perplexity", "nll", "cluster", "member");
  for (const BandLoss& loss : evaluation.bands) {
    const LossMeans& means = loss.means;
    const auto shown = [&](const std::optional<double>& value) {
      return value && means.tokens > 0 ? fmt::format("{:.5f}", *value) : "-";
    };
    text += fmt::format("{:>16}  {:>10}  {:>5.1f} %  {:>10}  {:>9}  {:>9}  {:>9}\n",
                        fmt::format("{}-{}", loss.band.first_rank, loss.band.last_rank), means.tokens,
                        100 * share_of(loss, evaluation),
                        means.tokens > 0 ? fmt::format("{:.3f}", std::exp(means.nll)) : "-", shown(means.nll),
                        shown(means.cluster_nll), shown(means.member_nll));
  }
  return text;
}

}  // namespace

std::string evaluation_json(const Evaluation& evaluation, const EvaluationSubject& subject) {
  nlohmann::ordered_json json = {{"nll", evaluation.nll}, {"perplexity", evaluation.perplexity}};
  if (evaluation.bits_per_byte) json["bits_per_byte"] = *evaluation.bits_per_byte;
  json["tokens"] = evaluation.tokens;
  if (evaluation.bytes) json["bytes"] = *evaluation.bytes;
  json["documents"] = evaluation.documents;
  if (evaluation.nll_ci95) json["nll_ci95"] = *evaluation.nll_ci95;
  json["seconds"] = evaluation.seconds;
  json["checkpoint"] = subject.checkpoint;
  json["data"] = subject.data;
  json["data_fingerprint"] = subject.data_fingerprint;
  json["tokenizer_sha256"] = subject.tokenizer_sha256;
  json["complete"] = subject.complete;
  json["seq_len"] = subject.config.data.seq_len;
  json["model"] = {{"parameters", subject.parameters}, {"training_flops_per_token", subject.flops_per_token}};
  json["head"] = {{"kind", word_of(kind_of(subject.config.head))},   {"parameters", subject.head.matrix_parameters},
                  {"fraction_of_dense", fraction_of_dense(subject)}, {"biases", subject.head.bias_parameters},
                  {"code_bytes", subject.head.code_bytes},           {"multiply_adds", subject.head.multiply_adds}};
  if (subject.map_tokens > 0) {
    json["code_map"] = {{"counted_tokens", subject.map_tokens}};
    if (subject.trained_tokens > 0)
      json["code_map"]["trained_tokens"] = static_cast<std::int64_t>(subject.trained_tokens);
    if (const auto times = times_trained(subject.map_tokens, subject.trained_tokens))
      json["code_map"]["times_trained"] = *times;
  }
  if (evaluation.code_usage) {
    json["code_usage"] = {{"codes", evaluation.code_usage->codes},
                          {"used", evaluation.code_usage->used},
                          {"perplexity", evaluation.code_usage->perplexity}};
  }
  if (evaluation.cluster_nll) {
    json["parts"] = {{"cluster_nll", *evaluation.cluster_nll}, {"member_nll", *evaluation.member_nll}};
  }
  for (const FutureEvaluation& head : evaluation.future) json["future"].push_back(future_json(head));
  for (const BandLoss& band : evaluation.bands) json["bands"].push_back(band_json(band, evaluation));
  std::string text = json.dump(2);
  text.erase(text.rfind('\n'));  // the closing brace
  return text + documents_json(evaluation) + "\n}\n";
}

std::string evaluation_text(const Evaluation& evaluation, const EvaluationSubject& subject) {
  std::string text = fmt::format(
      "perplexity     {:.3f}   ({})\n"
      "nll            {:.5f} nats a token\n"
      "bits per byte  {}\n"
      "predicted      {} tokens, {}in samples of {} tokens\n"
      "model          {} parameters\n"
      "output head    {} parameters ({:.2f} % of V x d), {} biases, {} bytes of codes\n",
      evaluation.perplexity, interval_text(evaluation), evaluation.nll,
      evaluation.bits_per_byte ? fmt::format("{:.5f}", *evaluation.bits_per_byte)
                               : "n/a (shards of ids do not tell the bytes of their text)",
      evaluation.tokens, evaluation.bytes ? fmt::format("{} bytes of text, ", *evaluation.bytes) : "",
      subject.config.data.seq_len, subject.parameters, subject.head.matrix_parameters,
      100.0 * fraction_of_dense(subject), subject.head.bias_parameters, subject.head.code_bytes);
  if (subject.map_tokens > 0) {
    text += fmt::format("code map saw   {} tokens{}\n", subject.map_tokens,
                        times_trained_text(subject.map_tokens, subject.trained_tokens));
  }
  if (evaluation.code_usage) {
    text += fmt::format("code usage     {} of {} codes, perplexity {:.1f}\n", evaluation.code_usage->used,
                        evaluation.code_usage->codes, evaluation.code_usage->perplexity);
  }
  if (evaluation.cluster_nll) {
    text += fmt::format("nll in parts   {:.5f} for the target's cluster, {:.5f} for the member in it\n",
                        *evaluation.cluster_nll, *evaluation.member_nll);
  }
  return text + future_text(evaluation) + bands_text(evaluation);
}

}  // namespace vqlm
