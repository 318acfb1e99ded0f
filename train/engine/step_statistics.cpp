#include "train/engine/step_statistics.h"

#include <array>
#include <vector>

#include "core/host_collectives.h"

namespace vqlm {

void StepStatistics::sum_over_ranks(Backend& backend, Communicator& group) {
  const std::array members = {&nll,          &penalty,    &seconds_data, &seconds_head,
                              &wish_to_stop, &time_is_up, &saved,        &peak_is_low};
  // None is left out.
  static_assert(sizeof(StepStatistics) == sizeof(double) * members.size() + sizeof(std::vector<double>));
  std::vector<double> values = by_source;
  for (const double* member : members) values.push_back(*member);
  sum_over(backend, group, values);
  by_source.assign(values.begin(), values.end() - static_cast<std::ptrdiff_t>(members.size()));
  for (std::size_t i = 0; i < members.size(); ++i) *members[i] = values[by_source.size() + i];
}

}  // namespace vqlm
