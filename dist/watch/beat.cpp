#include "dist/watch/beat.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <string_view>
#include <type_traits>

namespace vqlm {
namespace {

constexpr std::uint32_t beat_magic = 0x76716231;    // "vqb1"
constexpr std::uint32_t answer_magic = 0x76716131;  // "vqa1"

template <std::size_t size>
using Text = std::array<char, size>;

struct BeatBytes {
  std::uint64_t job;
  std::int64_t step, collectives;
  double seconds, own_seconds, round_trip;
  std::uint32_t magic, number, lost, sent;
  std::int32_t rank;
  std::uint8_t leaves, waiting, device, address;
  Text<64> last, pause;
};

struct AnswerBytes {
  std::uint64_t job;
  std::uint32_t magic, number;
  std::uint8_t fails, leaves, address;
  Text<501> text;
};

// No padding whose bytes would be sent unset, and nothing that a datagram of the smallest usual size would not hold.
static_assert(std::has_unique_object_representations_v<AnswerBytes> && sizeof(AnswerBytes) <= 1200);
static_assert(sizeof(BeatBytes) == 3 * 8 + 3 * 8 + 5 * 4 + 4 + 2 * 64);

template <std::size_t size>
Text<size> bytes_of(const std::string& text) {
  Text<size> bytes{};
  std::memcpy(bytes.data(), text.data(), std::min(text.size(), size));
  return bytes;
}

template <std::size_t size>
std::string text_of(const Text<size>& bytes) {
  const std::string_view all(bytes.data(), size);
  return std::string(all.substr(0, all.find('\0')));
}

template <class Bytes>
std::vector<std::byte> datagram(const Bytes& bytes) {
  const auto all = std::as_bytes(std::span(&bytes, 1));
  return {all.begin(), all.end()};
}

template <class Bytes>
std::optional<Bytes> parse(std::uint64_t job, std::uint32_t magic, std::span<const std::byte> datagram) {
  Bytes bytes;
  if (datagram.size() != sizeof(bytes)) return std::nullopt;
  std::memcpy(&bytes, datagram.data(), sizeof(bytes));
  if (bytes.magic != magic || bytes.job != job) return std::nullopt;
  return bytes;
}

}  // namespace

std::vector<std::byte> datagram_of(std::uint64_t job, const Beat& beat) {
  return datagram(BeatBytes{.job = job,
                            .step = beat.seen.step,
                            .collectives = beat.seen.collectives,
                            .seconds = beat.seen.seconds,
                            .own_seconds = beat.seen.own_seconds,
                            .round_trip = beat.round_trip,
                            .magic = beat_magic,
                            .number = beat.number,
                            .lost = beat.lost,
                            .sent = beat.sent,
                            .rank = beat.rank,
                            .leaves = beat.leaves,
                            .waiting = beat.seen.waiting,
                            .device = beat.seen.device,
                            .address = beat.address,
                            .last = bytes_of<64>(beat.seen.last),
                            .pause = bytes_of<64>(beat.seen.pause)});
}

std::vector<std::byte> datagram_of(std::uint64_t job, const Answer& answer) {
  return datagram(AnswerBytes{.job = job,
                              .magic = answer_magic,
                              .number = answer.number,
                              .fails = answer.fails,
                              .leaves = answer.leaves,
                              .address = answer.address,
                              .text = bytes_of<501>(answer.text)});
}

std::optional<Beat> beat_of(std::uint64_t job, std::span<const std::byte> datagram) {
  const auto bytes = parse<BeatBytes>(job, beat_magic, datagram);
  if (!bytes) return std::nullopt;
  Beat beat{.rank = bytes->rank,
            .number = bytes->number,
            .leaves = bytes->leaves != 0,
            .address = bytes->address,
            .seen = {},
            .round_trip = bytes->round_trip,
            .lost = bytes->lost,
            .sent = bytes->sent};
  beat.seen = {.step = bytes->step,
               .collectives = bytes->collectives,
               .waiting = bytes->waiting != 0,
               .seconds = bytes->seconds,
               .last = text_of(bytes->last),
               .pause = text_of(bytes->pause),
               .own_seconds = bytes->own_seconds,
               .device = bytes->device != 0};
  return beat;
}

std::optional<Answer> answer_of(std::uint64_t job, std::span<const std::byte> datagram) {
  const auto bytes = parse<AnswerBytes>(job, answer_magic, datagram);
  if (!bytes) return std::nullopt;
  return Answer{.number = bytes->number,
                .address = bytes->address,
                .fails = bytes->fails != 0,
                .leaves = bytes->leaves != 0,
                .text = text_of(bytes->text)};
}

}  // namespace vqlm
