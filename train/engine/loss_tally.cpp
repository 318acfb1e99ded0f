#include "train/engine/loss_tally.h"

#include <cmath>
#include <limits>

#include "core/host_collectives.h"

namespace vqlm {
namespace {

constexpr double steps_per_nat = 268435456.0;  // 2^28
// A loss beyond this is a broken model's; whole numbers of 64 bits hold 2^15 such losses.
constexpr float largest_loss = 1048576.0f;  // 2^20 nats

bool is_sane(float loss) {
  return std::abs(loss) <= largest_loss;  // false for NaN
}

std::int64_t in_steps(float loss) {
  return std::llround(static_cast<double>(loss) * steps_per_nat);
}

}  // namespace

LossTally::LossTally(std::size_t classes, LossParts parts) : classes_(classes), parts_(parts) {}

void LossTally::add(std::size_t index, float nll, float cluster_nll) {
  Sums& sums = classes_[index];
  sums.tokens += 1;
  const bool parts = parts_ == LossParts::cluster_and_member;
  if (!is_sane(nll) || (parts && !is_sane(cluster_nll))) {
    sums.wild += 1;
    return;
  }
  sums.nll += in_steps(nll);
  if (parts) sums.cluster += in_steps(cluster_nll);
}

void LossTally::sum_over_ranks(Backend& backend, Communicator& group) {
  std::vector<std::uint64_t> own;
  for (const Sums& sums : classes_) {
    for (const std::int64_t number : {sums.tokens, sums.nll, sums.cluster, sums.wild})
      own.push_back(static_cast<std::uint64_t>(number));
  }
  const std::vector<std::uint64_t> all = gather_from_all(backend, group, own);
  classes_.assign(classes_.size(), Sums{});
  for (std::size_t i = 0; i < all.size(); i += 4) {
    Sums& sums = classes_[i / 4 % classes_.size()];
    sums.tokens += static_cast<std::int64_t>(all[i]);
    sums.nll += static_cast<std::int64_t>(all[i + 1]);
    sums.cluster += static_cast<std::int64_t>(all[i + 2]);
    sums.wild += static_cast<std::int64_t>(all[i + 3]);
  }
}

LossMeans LossTally::means(std::size_t index) const {
  return means_of(classes_[index]);
}

LossMeans LossTally::total() const {
  Sums all;
  for (const Sums& sums : classes_) {
    all.tokens += sums.tokens;
    all.nll += sums.nll;
    all.cluster += sums.cluster;
    all.wild += sums.wild;
  }
  return means_of(all);
}

LossMeans LossTally::means_of(const Sums& sums) const {
  const double not_known = std::numeric_limits<double>::quiet_NaN();
  const auto mean = [&](std::int64_t steps) {
    if (sums.tokens == 0 || sums.wild > 0) return not_known;
    return static_cast<double>(steps) / steps_per_nat / static_cast<double>(sums.tokens);
  };
  LossMeans means{.tokens = sums.tokens, .nll = mean(sums.nll), .cluster_nll = {}, .member_nll = {}};
  if (parts_ == LossParts::cluster_and_member) {
    means.cluster_nll = mean(sums.cluster);
    means.member_nll = mean(sums.nll - sums.cluster);
  }
  return means;
}

}  // namespace vqlm
