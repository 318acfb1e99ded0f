// Counts what a warp's accesses cost a GPU's memory: 32-byte sectors of global memory, wavefronts of shared memory, against
// what they had to cost. For kernels of vqlm_simt_library(... COUNTED): there the compiler instruments every load and store
// (access_callbacks.cpp).
//
// A request is what the 32 lanes of a warp do in one instruction. Lanes are fibers that run one after the other, so requests
// are put together afterwards: between two places where the whole warp meets, the k-th access of each lane at one place of
// the program is one request.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "tests/simt/touch_memory.h"

namespace simt {

constexpr std::uintptr_t sector_bytes = 32, bank_bytes = 4, banks = 32;

enum class Space : std::uint8_t { global, shared };

/// The lanes that take part in one instruction, `bytes` each (1, 2, 4, 8 or 16).
struct Request {
  std::span<const std::uintptr_t> addresses;  // by lane
  std::uint32_t lanes = 0;                    // bit l: lane l takes part
  int bytes = 0;
  Access access = Access::load;
};

struct Cost {
  std::uint64_t actual = 0, ideal = 0;
};

/// Sectors that the lanes touch, against the bytes asked for (each once) in whole sectors.
Cost sectors(const Request& request);

/// Wavefronts: 32 banks of 4 bytes give a word each. Accesses of 8 bytes take the lanes in halves, of 16 in quarters, one
/// register of the warp a wavefront (forums.developer.nvidia.com/t/77228, also for what this leaves out: neighbours that read
/// the same address may share). In each part the bank with most different words decides; one wavefront is ideal, since no part
/// asks for more than 128 bytes. A word that several lanes read or write counts once, but for atomic functions each lane's.
Cost wavefronts(const Request& request);

/// All requests of one place of a kernel. An access of more than 16 bytes is several instructions, a place each: `part` is the
/// byte where it begins.
struct AccessCount {
  const void* kernel = nullptr;
  const void* place = nullptr;  // a return address, behind the access
  int part = 0;
  int bytes = 0;
  Space space = Space::global;
  Access access = Access::load;
  std::uint64_t requests = 0;
  Cost cost;  // sums over the requests
};

/// What was counted since the last call.
std::vector<AccessCount> take_access_counts();

}  // namespace simt
