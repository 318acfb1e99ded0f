#include "dist/watch/rank_activity.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "dist/watch/seconds.h"

namespace vqlm {
namespace {

double seconds_since(RankActivity::Clock::time_point then) {
  return seconds_between(then, RankActivity::Clock::now());
}

}  // namespace

/// With the mutex.
void RankActivity::begin(std::string_view collective, const std::string& group) {
  own_seconds_ += seconds_since(changed_);
  changed_ = Clock::now();
  collective_ = collective;
  group_ = group;
  ++now_.collectives;
}

RankActivity::Inside RankActivity::enter(std::string_view collective, const std::string& group) {
  const std::lock_guard lock(mutex_);
  begin(collective, group);
  now_.waiting = true;
  return Inside(this);
}

void RankActivity::leave() {
  const std::lock_guard lock(mutex_);
  changed_ = Clock::now();
  now_.waiting = false;
}

void RankActivity::enqueued(std::string_view collective, const std::string& group) {
  const std::lock_guard lock(mutex_);
  begin(collective, group);
  now_.device = true;
}

void RankActivity::begin_step(std::int64_t step) {
  const std::lock_guard lock(mutex_);
  now_.step = step;
  now_.own_seconds = own_seconds_ + (now_.waiting ? 0 : seconds_since(changed_));
}

std::shared_ptr<void> RankActivity::pause(std::string why) {
  const std::lock_guard lock(mutex_);
  pauses_.push_back(std::move(why));
  const auto pause = std::prev(pauses_.end());
  return std::shared_ptr<void>(nullptr, [this, pause](std::nullptr_t) {
    const std::lock_guard ending(mutex_);
    pauses_.erase(pause);
  });
}

void RankActivity::forgive(Clock::duration gap) {
  const std::lock_guard lock(mutex_);
  changed_ = std::min(changed_ + gap, Clock::now());
}

RankActivity::Seen RankActivity::seen() const {
  const std::lock_guard lock(mutex_);
  Seen seen = now_;
  seen.seconds = seconds_since(changed_);
  if (!collective_.empty()) seen.last = std::string(collective_) + " of group '" + group_ + "'";
  if (!pauses_.empty()) seen.pause = pauses_.front();
  return seen;
}

}  // namespace vqlm
