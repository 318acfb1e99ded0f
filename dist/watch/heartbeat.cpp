#include "dist/watch/heartbeat.h"

#include <signal.h>
#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <deque>
#include <random>
#include <sstream>
#include <utility>

#include "core/error.h"
#include "core/log.h"
#include "dist/watch/network_interfaces.h"
#include "dist/watch/seconds.h"
#include "dist/watch/slow_ranks.h"

namespace vqlm {
namespace {

using std::chrono::duration;
using std::chrono::milliseconds;

constexpr double longest_interval = 1;      // seconds between beats
constexpr milliseconds turn{100};           // of the loop, where nothing comes
constexpr std::chrono::seconds own_gap{2};  // a turn that takes longer: this process did not run
constexpr int farewells = 3;                // one may be lost
constexpr std::size_t remembered_beats = 64;
constexpr int answers_to_judge = 8;  // one may have waited for a core
// A link to rank 0 that falls silent is looked for at the other addresses long before the job is given up.
constexpr double look_elsewhere = 1.0 / 3;
// Rank 0's word ends the job; where it cannot reach this rank's launcher, the rank ends by itself.
constexpr std::chrono::seconds time_for_rank_0{10};
constexpr std::chrono::seconds time_to_abort{10};
constexpr std::uint32_t loopback = 0x7f000001;

/// Between beats: many of them within either limit.
duration<double> interval(const HeartbeatLimits& limits) {
  const double shortest = 0.02;
  double seconds = longest_interval;
  for (const double limit : {limits.heartbeat_seconds, limits.timeout_seconds}) {
    if (limit > 0) seconds = std::min(seconds, limit / 10);
  }
  return duration<double>(std::max(seconds, shortest));
}

/// What every rank tells all others at the start: its host; rank 0 also how it is reached.
std::string introduction(const Heartbeat::Options& options, std::uint16_t port) {
  std::string text = options.host + "\n";
  if (options.rank > 0) return text;
  std::random_device random;
  text += fmt::format("{} {} {}\n", random(), random(), port);
  for (const NetworkInterface& one : interfaces_for(options.interface, network_interfaces()))
    text += fmt::format("{}\n", one.address);
  return text;
}

}  // namespace

class Heartbeat::Monitor {
 public:
  Monitor(const std::vector<std::string>& hosts, Clock::time_point now) : table(hosts, now), slow(names(table), now) {}

  void hear(const Beat& beat, Clock::time_point now) {
    table.beat(beat, now);
    slow.beat(beat);
  }

  HeartbeatTable table;
  SlowRanks slow;
  std::vector<SocketAddress> members;  // that have been heard, for the farewell

 private:
  static std::vector<std::string> names(const HeartbeatTable& table) {
    std::vector<std::string> all;
    for (int rank = 0; rank < table.ranks(); ++rank) all.push_back(table.name_of(rank));
    return all;
  }
};

struct Heartbeat::Link {
  struct Sent {
    std::uint32_t number;
    Clock::time_point at;
    double round_trip = -1;  // no answer yet
  };
  std::uint32_t number = 0;
  std::deque<Sent> sent;
  std::optional<std::uint8_t> address;  // that answers
  Clock::time_point last_answer, next_beat;
  bool answered = false, left = false;
  std::string failure;  // rank 0's
  Clock::time_point failed_at;
};

Heartbeat::Heartbeat(const GatherTexts& gather, std::shared_ptr<RankActivity> activity, Options options)
    : options_(std::move(options)), activity_(std::move(activity)), limits_(options_.limits) {
  VQLM_ASSERT(activity_ != nullptr && options_.on_failure);
  const auto texts = gather(introduction(options_, socket_.port()));
  for (const std::string& text : texts) hosts_.push_back(text.substr(0, text.find('\n')));
  std::istringstream of_rank_0(texts.front().substr(hosts_.front().size() + 1));
  std::uint64_t high = 0, low = 0;
  std::uint16_t port = 0;
  of_rank_0 >> high >> low >> port;
  job_ = high << 32 | low;
  for (std::uint32_t address = 0; of_rank_0 >> address;) addresses_.push_back({address, port});
  constexpr std::size_t most_addresses = 255;  // a beat says which in a byte
  addresses_.resize(std::min(addresses_.size(), most_addresses - 1));
  addresses_.push_back({loopback, port});  // of a host without a network, too
  sigset_t all, before;
  sigfillset(&all);
  if (::pthread_sigmask(SIG_BLOCK, &all, &before) != 0) throw Error("heartbeat: pthread_sigmask failed");
  thread_ = std::thread([this] { run(); });
  if (::pthread_sigmask(SIG_SETMASK, &before, nullptr) != 0) log::error("heartbeat: pthread_sigmask failed");
}

Heartbeat::~Heartbeat() {
  stopping_ = true;
  thread_.join();
}

void Heartbeat::set_limits(const HeartbeatLimits& limits) {
  const std::lock_guard lock(mutex_);
  limits_ = limits;
  limits_are_new_ = true;
}

bool Heartbeat::take_new_limits() {
  const std::lock_guard lock(mutex_);
  return std::exchange(limits_are_new_, false);
}

HeartbeatLimits Heartbeat::limits() const {
  const std::lock_guard lock(mutex_);
  return limits_;
}

std::string Heartbeat::who_is_behind() const {
  const std::lock_guard lock(mutex_);
  return who_is_behind_;
}

void Heartbeat::set_who_is_behind(std::string words) {
  const std::lock_guard lock(mutex_);
  who_is_behind_ = std::move(words);
}

/// How long this process did not run before `now`, where that was so: stopped, or without a core.
HeartbeatTable::Clock::duration Heartbeat::own_sleep(Clock::time_point now) {
  const Clock::duration turn_took = now - std::exchange(last_turn_, now);
  if (turn_took <= own_gap) return Clock::duration::zero();
  activity_->forgive(turn_took);
  return turn_took;
}

void Heartbeat::run() {
  last_turn_ = Clock::now();
  Monitor monitor(hosts_, last_turn_);
  Link link{
      .sent = {}, .address = {}, .last_answer = last_turn_, .next_beat = last_turn_, .failure = {}, .failed_at = {}};
  while (!stopping_) {
    if (options_.rank == 0) {
      serve(monitor);
    } else {
      converse(link);
    }
  }
  for (int i = 0; i < farewells; ++i) {
    if (options_.rank > 0) {
      beat(link, true, Clock::now());
    } else {
      for (const SocketAddress& member : monitor.members)
        socket_.send(member, datagram_of(job_, Answer{.leaves = true, .text = {}}));
    }
  }
}

/// Rank 0: answers every beat that has come, and looks at what all of them say.
void Heartbeat::serve(Monitor& monitor) {
  monitor.hear({.rank = 0, .seen = activity_->seen()}, Clock::now());
  milliseconds wait = turn;
  while (const auto datagram = socket_.receive(wait)) {
    wait = milliseconds(0);
    const auto beat = beat_of(job_, datagram->bytes);
    if (!beat) continue;
    monitor.hear(*beat, Clock::now());
    socket_.send(datagram->from,
                 datagram_of(job_, Answer{.number = beat->number, .address = beat->address, .text = who_is_behind()}));
    if (std::ranges::find(monitor.members, datagram->from) == monitor.members.end())
      monitor.members.push_back(datagram->from);
  }
  const Clock::time_point judged = Clock::now();
  monitor.table.forgive(own_sleep(judged));
  if (take_new_limits()) monitor.table.begin_anew(judged);
  const HeartbeatVerdict verdict = monitor.table.judge(limits(), judged);
  for (const std::string& warning : verdict.warnings) log::warn("watchdog: {}", warning);
  for (const std::string& warning : monitor.slow.judge(judged)) log::warn("watchdog: {}", warning);
  set_who_is_behind(monitor.table.who_is_behind(judged));
  if (verdict.failure.empty()) return;
  for (const SocketAddress& member : monitor.members) {
    socket_.send(member, datagram_of(job_, Answer{.fails = true, .text = verdict.failure}));
  }
  fail(verdict.failure);
}

/// The others: a beat where one is due, and what rank 0 has to say.
void Heartbeat::converse(Link& link) {
  if (take_new_limits()) link.last_answer = link.next_beat = Clock::now();
  if (Clock::now() >= link.next_beat) beat(link, false, Clock::now());
  const auto wait = std::min(turn, std::chrono::duration_cast<milliseconds>(interval(limits())));
  const auto datagram = socket_.receive(wait);
  const Clock::time_point now = Clock::now();
  link.last_answer += own_sleep(now);
  if (datagram) {
    if (const auto answer = answer_of(job_, datagram->bytes)) hear(link, *answer, now);
  }
  judge_rank_0(link, now);
}

/// The others: to the address that answers, or to all of rank 0's while none does.
void Heartbeat::beat(Link& link, bool leaves, Clock::time_point now) {
  Beat beat{.rank = options_.rank, .number = ++link.number, .leaves = leaves, .seen = activity_->seen()};
  double quickest = 0;
  int answers = 0;
  for (const Link::Sent& sent : link.sent) {
    const bool due = seconds_between(sent.at, now) > 2 * longest_interval;  // an answer may still come to a later one
    if (sent.round_trip < 0 && !due) continue;
    ++beat.sent;
    if (sent.round_trip < 0) ++beat.lost;
    if (sent.round_trip >= 0) ++answers;
    if (sent.round_trip >= 0 && (quickest == 0 || sent.round_trip < quickest)) quickest = sent.round_trip;
  }
  if (answers >= answers_to_judge) beat.round_trip = quickest;
  if (link.sent.size() == remembered_beats) link.sent.pop_front();
  if (link.answered) link.sent.push_back({beat.number, now});
  for (std::size_t i = 0; i < addresses_.size(); ++i) {
    if (link.address && *link.address != i) continue;
    beat.address = static_cast<std::uint8_t>(i);
    socket_.send(addresses_[i], datagram_of(job_, beat));
  }
  link.next_beat = now + std::chrono::duration_cast<Clock::duration>(interval(limits()));
}

void Heartbeat::hear(Link& link, const Answer& answer, Clock::time_point now) {
  link.last_answer = now;
  link.answered = true;
  if (answer.leaves) {
    link.left = true;
  } else if (answer.fails) {
    if (link.failure.empty()) link.failed_at = now;
    link.failure = answer.text;
  } else {
    link.address = answer.address;
    const auto sent = std::ranges::find(link.sent, answer.number, &Link::Sent::number);
    if (sent != link.sent.end() && sent->round_trip < 0) sent->round_trip = seconds_between(sent->at, now);
    set_who_is_behind(answer.text);
  }
}

void Heartbeat::judge_rank_0(Link& link, Clock::time_point now) {
  if (!link.failure.empty() && now - link.failed_at > time_for_rank_0) fail(link.failure);
  const double limit = limits().heartbeat_seconds;
  const double silence = seconds_between(link.last_answer, now);
  if (limit <= 0 || !link.answered || link.left) return;
  if (silence > look_elsewhere * limit) link.address.reset();
  // No word before the end: where the host is cut off, Open MPI's daemon would try to send it for ever, and not see by its
  // keep-alives that the job is over.
  // Staggered, so that one voice says it.
  if (silence <= limit + 0.025 * std::min(options_.rank, 40)) return;
  fail(fmt::format(
      "rank 0 on {}: no sign of life for {:.0f} s: its process is stopped, swaps or is gone, or its host or network "
      "is down, or this host's ({}); parallel.heartbeat_seconds = {:g}",
      hosts_.front(), silence, hosts_[static_cast<std::size_t>(options_.rank)], limit));
}

void Heartbeat::fail(const std::string& message) {
  // The log may hang with a file system, and MPI's abort waits for a peer that is gone.
  const auto returned = std::make_shared<std::atomic<bool>>(false);
  std::thread([returned, code = options_.exit_code] {
    std::this_thread::sleep_for(time_to_abort);
    if (!*returned) std::_Exit(code);
  }).detach();
  log::error("watchdog: {}", message);
  spdlog::default_logger_raw()->flush();
  options_.on_failure(message);
  *returned = true;  // in a test alone
  stopping_ = true;
}

}  // namespace vqlm
