// The datagrams of the heartbeat: a beat from every rank to rank 0, and its answer. Fixed size, in the byte order of the
// machine: the hosts of a job are of one kind.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "dist/watch/rank_activity.h"

namespace vqlm {

struct Beat {
  std::int32_t rank = 0;
  std::uint32_t number = 0;  // of this rank, from 1
  bool leaves = false;       // the last one: the rank is done
  std::uint8_t address = 0;  // which of rank 0's addresses it was sent to
  RankActivity::Seen seen;
  double round_trip = 0;   // seconds of the quickest of the last answers; 0: of too few yet
  std::uint32_t lost = 0;  // of the last `sent` beats, those without an answer
  std::uint32_t sent = 0;
};

struct Answer {
  std::uint32_t number = 0;  // of the beat that it answers
  std::uint8_t address = 0;  // of that beat
  bool fails = false;        // the job is being ended: `text` says why; else `text` says which rank is late, or nothing
  bool leaves = false;       // rank 0 is done and answers no more
  std::string text;
};

/// `job` keeps datagrams of other jobs out: a number that the ranks of one job know.
std::vector<std::byte> datagram_of(std::uint64_t job, const Beat& beat);
std::vector<std::byte> datagram_of(std::uint64_t job, const Answer& answer);
/// Nothing where it is no beat (no answer) of this job. Texts are cut to what fits.
std::optional<Beat> beat_of(std::uint64_t job, std::span<const std::byte> datagram);
std::optional<Answer> answer_of(std::uint64_t job, std::span<const std::byte> datagram);

}  // namespace vqlm
