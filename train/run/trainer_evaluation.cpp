// A run's evaluations on its held-out shards.
#include <cmath>
#include <optional>

#include "core/host_collectives.h"
#include "core/log.h"
#include "train/run/trainer.h"

namespace vqlm {
namespace {

/// The sets' evaluations as one: means over all their tokens.
HeldoutMetrics heldout_metrics(const std::vector<std::pair<std::string, Evaluation>>& results) {
  HeldoutMetrics all;
  double nll = 0, bytes = 0, cluster = 0, member = 0;
  bool bytes_known = true;
  for (const auto& [name, result] : results) {
    nll += result.nll * static_cast<double>(result.tokens);
    all.heldout_tokens += result.tokens;
    all.seconds += result.seconds;
    bytes_known = bytes_known && result.bytes.value_or(0) > 0;
    bytes += static_cast<double>(result.bytes.value_or(0));
    if (result.cluster_nll) cluster += *result.cluster_nll * static_cast<double>(result.tokens);
    if (result.member_nll) member += *result.member_nll * static_cast<double>(result.tokens);
    if (!name.empty()) all.sets.push_back({name, result.nll, result.tokens});
  }
  const Evaluation& first = results.front().second;
  for (std::size_t j = 0; j < first.future.size(); ++j) {
    double sum = 0, tokens = 0;
    for (const auto& [name, result] : results) {
      const FutureEvaluation& head = result.future[j];
      if (head.tokens > 0) sum += head.nll * static_cast<double>(head.tokens);
      tokens += static_cast<double>(head.tokens);
    }
    all.future_losses.push_back(sum / tokens);
  }
  all.loss = results.size() == 1 ? first.nll : nll / static_cast<double>(all.heldout_tokens);
  if (first.cluster_nll) all.cluster_loss = cluster / static_cast<double>(all.heldout_tokens);
  if (first.member_nll) all.member_loss = member / static_cast<double>(all.heldout_tokens);
  all.bits_per_byte = first.bits_per_byte;
  if (results.size() > 1) all.bits_per_byte = bytes_known ? std::optional(nll / std::log(2.0) / bytes) : std::nullopt;
  return all;
}

}  // namespace

void Trainer::evaluate(Metrics* metrics) {
  engine_.gather_parameters();
  std::vector<std::pair<std::string, Evaluation>> results;
  for (NamedEvaluator& set : evaluators_) results.emplace_back(set.name, set.evaluator.run());
  HeldoutMetrics heldout = heldout_metrics(results);
  evaluation_seconds_ = heldout.seconds;
  if (metrics == nullptr) return;
  heldout.step = state_.step;
  heldout.tokens = state_.tokens;
  metrics->add(heldout);
  if (losses_->has_sources()) log::info("read so far: {}", losses_->epochs(static_cast<std::uint64_t>(state_.samples)));
}

bool Trainer::evaluation_is_due() const {
  return !evaluators_.empty() && (state_.step == config_.train.steps || is_due(config_.train.eval_every, state_.step));
}

void Trainer::make_up_evaluation(Metrics* metrics) {
  if (state_.step == 0 || !evaluation_is_due()) return;
  const bool missing = metrics != nullptr && metrics->lacks_evaluation(state_.step);  // on the rank that writes them
  if (max_over(backend_, grid_.world(), missing ? 1 : 0) == 0) return;
  log::info("the run was left before the evaluation of step {}: evaluating now", state_.step);
  evaluate(metrics);
}

}  // namespace vqlm
