#include "train/tools/plan/plan_search.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <iterator>
#include <tuple>
#include <utility>

#include "core/error.h"
#include "train/config/enum_words.h"

namespace vqlm {
namespace {

std::vector<std::int64_t> divisors(std::int64_t number) {
  std::vector<std::int64_t> small, large;
  for (std::int64_t d = 1; d * d <= number; ++d) {
    if (number % d != 0) continue;
    small.push_back(d);
    if (d != number / d) large.push_back(number / d);
  }
  small.insert(small.end(), large.rbegin(), large.rend());
  return small;
}

/// The grid's configurations, not yet checked. Where the batch does not divide there is one, to be refused.
std::vector<Config> choices_of(const Config& config, int data, int tensor) {
  const std::int64_t batch = config.train.global_batch;
  std::vector<Config> choices;
  Config choice = config;
  choice.parallel.data = data;
  choice.parallel.tensor = tensor;
  for (const std::int64_t micro_batch : divisors(batch % data == 0 ? batch / data : 1)) {
    choice.train.micro_batch = micro_batch;
    for (const std::string_view word : words<Recompute>) {
      choice.train.recompute = value_of<Recompute>(word).value();
      choices.push_back(choice);
    }
  }
  return choices;
}

PlannedChoice planned(const Config& config, const StepPlan& plan, std::size_t available) {
  return {.data = config.parallel.data,
          .tensor = config.parallel.tensor,
          .micro_batch = config.train.micro_batch,
          .recompute = config.train.recompute,
          .memory = plan.memory,
          .seconds = plan.seconds,
          .tokens_per_second = plan.tokens_per_second(),
          .mfu = plan.mfu(),
          .product_seconds = plan.product_seconds,
          .memory_seconds = plan.memory_seconds,
          .waiting_seconds = plan.waiting_seconds(),
          .launch_seconds = plan.launch_seconds,
          .fits = plan.memory.total() <= available};
}

void search_grid(const Config& config, const PlanSearch& search, int tensor, SearchResult& result) {
  const int data = search.gpus / tensor;
  PlanOptions options;
  options.activation = DType::bf16;
  options.rates = rates_of(search.cluster, data, tensor);
  options.map = search.map;
  std::vector<PlannedChoice> fitting, too_large;
  for (Config& choice : choices_of(config, data, tensor)) {
    try {
      resolve(choice, choice.model.vocab_size, search.gpus);
    } catch (const UsageError& refusal) {
      ++result.refused[refusal.what()];
      continue;
    }
    const StepPlan plan = plan_step(choice, options);
    result.parameters = plan.parameters;
    PlannedChoice found = planned(choice, plan, search.available);
    (found.fits ? fitting : too_large).push_back(std::move(found));
  }
  const auto fastest = std::ranges::min_element(fitting, {}, &PlannedChoice::seconds);
  if (fastest != fitting.end()) {
    fastest->limited_by_memory =
        std::ranges::any_of(too_large, [&](const PlannedChoice& other) { return other.seconds < fastest->seconds; });
  }
  std::ranges::move(fitting, std::back_inserter(result.fitting));
  std::ranges::move(too_large, std::back_inserter(result.too_large));
}

}  // namespace

std::string_view name_of(Bound bound) {
  switch (bound) {
    case Bound::compute:
      return "compute";
    case Bound::memory_bandwidth:
      return "memory bandwidth";
    case Bound::communication:
      return "communication";
    case Bound::launches:
      return "launches";
  }
  VQLM_ASSERT(false);
}

Bound PlannedChoice::bound() const {
  return std::max({std::pair(product_seconds, Bound::compute), std::pair(memory_seconds, Bound::memory_bandwidth),
                   std::pair(waiting_seconds, Bound::communication), std::pair(launch_seconds, Bound::launches)})
      .second;
}

std::string choice_text(const PlannedChoice& choice) {
  return fmt::format("{}x{}, train.micro_batch = {}, train.recompute = {}", choice.data, choice.tensor,
                     choice.micro_batch, word_of(choice.recompute));
}

int SearchResult::choices() const {
  int count = static_cast<int>(fitting.size() + too_large.size());
  for (const auto& [reason, number] : refused) count += number;
  return count;
}

const PlannedChoice* SearchResult::faster_without_limit() const {
  const auto fastest = std::ranges::min_element(too_large, {}, &PlannedChoice::seconds);
  if (fastest == too_large.end() || (!fitting.empty() && fastest->seconds >= fitting.front().seconds)) return nullptr;
  return &*fastest;
}

SearchResult search_plans(const Config& config, const PlanSearch& search) {
  VQLM_ASSERT(search.gpus >= 1);
  SearchResult result;
  result.tokens = static_cast<double>(config.train.global_batch * config.data.seq_len);
  for (const std::int64_t tensor : divisors(search.gpus)) {
    search_grid(config, search, static_cast<int>(tensor), result);
  }
  const auto by_time = [](const PlannedChoice& c) { return std::tuple(c.seconds, c.memory.total()); };
  const auto by_memory = [](const PlannedChoice& c) { return std::tuple(c.memory.total(), c.seconds); };
  std::ranges::stable_sort(result.fitting, {}, by_time);
  std::ranges::stable_sort(result.too_large, {}, by_memory);
  return result;
}

}  // namespace vqlm
