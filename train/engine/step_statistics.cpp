#include "train/engine/step_statistics.h"

#include <array>
#include <vector>

#include "core/host_collectives.h"

namespace vqlm {

void StepStatistics::sum_over_ranks(Backend& backend, Communicator& group) {
  const std::array members = {&nll,          &penalty,    &seconds_data, &seconds_head,
                              &wish_to_stop, &time_is_up, &saved,        &peak_is_low};
  // None is left out.
  static_assert(sizeof(StepStatistics) == sizeof(double) * members.size() + 5 * sizeof(std::vector<double>));
  const auto rank = static_cast<std::size_t>(group.rank());
  // Zeros of all others: their sum brings the ranks' numbers together.
  data_by_rank.assign(static_cast<std::size_t>(group.size()), 0.0);
  head_by_rank = data_by_rank;
  data_by_rank[rank] = seconds_data;
  head_by_rank[rank] = seconds_head;
  std::vector<double> values;
  for (const double* member : members) values.push_back(*member);
  const std::array lists = {&by_source, &future_nll, &future_tokens, &data_by_rank, &head_by_rank};
  for (const std::vector<double>* list : lists) values.insert(values.end(), list->begin(), list->end());
  sum_over(backend, group, values);
  auto next = values.begin();
  for (double* member : members) *member = *next++;
  for (std::vector<double>* list : lists) {
    const auto end = next + static_cast<std::ptrdiff_t>(list->size());
    list->assign(next, end);
    next = end;
  }
}

}  // namespace vqlm
