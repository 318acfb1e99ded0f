#include "train/evaluation_report.h"

#include <spdlog/fmt/fmt.h>

#include <cmath>
#include <nlohmann/json.hpp>

namespace vqlm {
namespace {

double fraction_of_dense(const EvaluationSubject& subject) {
  const ModelConfig& model = subject.config.model;
  return static_cast<double>(subject.head.matrix_parameters) /
         static_cast<double>(model.vocab_size * model.d_model);
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
  json["seq_len"] = subject.config.data.seq_len;
  json["head"] = {{"kind", subject.config.head.kind == HeadKind::vq ? "vq" : "dense"},
                  {"parameters", subject.head.matrix_parameters},
                  {"fraction_of_dense", fraction_of_dense(subject)},
                  {"biases", subject.head.bias_parameters},
                  {"code_bytes", subject.head.code_bytes}};
  if (evaluation.code_usage) {
    json["code_usage"] = {{"codes", evaluation.code_usage->codes},
                          {"used", evaluation.code_usage->used},
                          {"perplexity", evaluation.code_usage->perplexity}};
  }
  return json.dump(2) + "\n";
}

/// What is known of the perplexity's error.
std::string interval_text(const Evaluation& evaluation) {
  if (!evaluation.nll_ci95) return "one document, so no interval";
  const auto [low, high] = *evaluation.nll_ci95;
  return fmt::format("95 %: {:.3f} to {:.3f}, from the losses of {} documents", std::exp(low), std::exp(high),
                     evaluation.documents);
}

std::string evaluation_text(const Evaluation& evaluation, const EvaluationSubject& subject) {
  std::string text = fmt::format(
      "perplexity     {:.3f}   ({})\n"
      "nll            {:.5f} nats a token\n"
      "bits per byte  {}\n"
      "predicted      {} tokens, {}in samples of {} tokens\n"
      "output head    {} parameters ({:.2f} % of V x d), {} biases, {} bytes of codes\n",
      evaluation.perplexity, interval_text(evaluation), evaluation.nll,
      evaluation.bits_per_byte ? fmt::format("{:.5f}", *evaluation.bits_per_byte)
                               : "n/a (shards of ids do not tell the bytes of their text)",
      evaluation.tokens, evaluation.bytes ? fmt::format("{} bytes of text, ", *evaluation.bytes) : "",
      subject.config.data.seq_len, subject.head.matrix_parameters, 100.0 * fraction_of_dense(subject),
      subject.head.bias_parameters, subject.head.code_bytes);
  if (evaluation.code_usage) {
    text += fmt::format("code usage     {} of {} codes, perplexity {:.1f}\n", evaluation.code_usage->used,
                        evaluation.code_usage->codes, evaluation.code_usage->perplexity);
  }
  return text;
}

}  // namespace vqlm
