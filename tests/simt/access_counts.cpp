#include "tests/simt/access_counts.h"

#include <algorithm>
#include <array>
#include <bit>
#include <map>
#include <string>
#include <tuple>
#include <utility>

#include "tests/simt/multiprocessor.h"
#include "tests/simt/runtime.h"
#include "tests/simt/source_line.h"

// Where the program's variables begin and end, by the linker: static shared memory is one of them.
extern "C" char __data_start[], _end[];

namespace simt {
namespace {

constexpr int lanes_of_warp = 32;

template <class Visit>
void for_each_lane(std::uint32_t lanes, Visit visit) {
  for (; lanes != 0; lanes &= lanes - 1) visit(static_cast<std::size_t>(std::countr_zero(lanes)));
}

struct Range {
  std::uintptr_t begin = 0, end = 0;
  bool has(std::uintptr_t address) const { return address >= begin && address < end; }
};

template <class T>
Range range_of(const T& object) {
  const auto begin = reinterpret_cast<std::uintptr_t>(&object);
  return {begin, begin + sizeof(T)};
}

using Place = std::tuple<const void*, const void*, int, Space>;  // kernel, return address, part

struct OpenRequest {
  std::uint32_t lanes = 0;
  std::uintptr_t addresses[lanes_of_warp];
};

struct PlaceLog {  // of one warp since it met
  std::uint32_t accesses[lanes_of_warp] = {};
  std::vector<OpenRequest> requests;  // by number; none of the lanes once counted
};

struct WarpLog {
  std::vector<PlaceLog> places;
  std::vector<std::size_t> touched;
};

class Counter {
 public:
  void begin_grid(const void* kernel, Range dynamic_shared) {
    kernel_ = kernel;
    dynamic_shared_ = dynamic_shared;
    last_ = {};
    global_.clear();
    Runtime& r = runtime();
    const Runtime::Lock lock(r.mutex);
    for (const auto& [begin, allocation] : r.allocations) global_.push_back({begin, begin + allocation.bytes});
  }

  void touch(const Thread& thread, const void* place, std::uintptr_t address, int part, int bytes, Access access) {
    Space space;
    if (is_shared(address)) {
      space = Space::shared;
    } else if (is_global(address)) {
      space = Space::global;
    } else {
      return;
    }
    const std::size_t index = index_of(place, part, space);
    counts_[index].bytes = bytes;
    counts_[index].access = access;
    WarpLog& warp = warps_[static_cast<std::size_t>(thread.warp)];
    if (warp.places.size() <= index) warp.places.resize(counts_.size());
    PlaceLog& log = warp.places[index];
    if (log.requests.empty()) warp.touched.push_back(index);
    const std::uint32_t number = log.accesses[thread.lane]++;
    if (number == log.requests.size()) log.requests.emplace_back();
    OpenRequest& request = log.requests[number];
    request.addresses[thread.lane] = address;
    request.lanes |= 1u << thread.lane;
    if (request.lanes == 0xffffffffu) count(index, request);
  }

  /// A thread that has not waited for the kernels in front of its own must leave global memory alone.
  void check_waited(const Thread& thread, const void* place, std::uintptr_t address, Access access) {
    if (thread.waited || !is_global(address)) return;
    constexpr const char* verbs[] = {"reads", "writes", "updates"};
    machine().fail(std::string(verbs[static_cast<int>(access)]) + " global memory before GridDependency::wait",
                   source_line(place));
  }

  void meet(int number) {
    WarpLog& warp = warps_[static_cast<std::size_t>(number)];
    for (const std::size_t index : warp.touched) {
      PlaceLog& log = warp.places[index];
      for (OpenRequest& request : log.requests) {
        if (request.lanes != 0) count(index, request);
      }
      log.requests.clear();
      std::fill(std::begin(log.accesses), std::end(log.accesses), 0);
    }
    warp.touched.clear();
  }

  std::vector<AccessCount> take() {
    for (WarpLog& warp : warps_) warp = {};
    places_.clear();
    known_.fill({});
    return std::exchange(counts_, {});
  }

 private:
  bool is_shared(std::uintptr_t address) const {
    if (dynamic_shared_.has(address)) return true;
    const Range variables{reinterpret_cast<std::uintptr_t>(__data_start), reinterpret_cast<std::uintptr_t>(_end)};
    if (!variables.has(address)) return false;
    return !range_of(threadIdx).has(address) && !range_of(blockIdx).has(address) && !range_of(blockDim).has(address) &&
           !range_of(gridDim).has(address);
  }

  bool is_global(std::uintptr_t address) {
    if (last_.has(address)) return true;
    const auto next =
        std::upper_bound(global_.begin(), global_.end(), address, [](auto a, const Range& b) { return a < b.begin; });
    if (next == global_.begin() || !std::prev(next)->has(address)) return false;
    last_ = *std::prev(next);
    return true;
  }

  std::size_t index_of(const void* place, int part, Space space) {
    const Place key{kernel_, place, part, space};
    auto& [known, index] =
        known_[(reinterpret_cast<std::uintptr_t>(place) * 0x9e3779b97f4a7c15u >> 52 ^ static_cast<unsigned>(part)) %
               known_.size()];
    if (known == key) return index;
    const auto [found, is_new] = places_.try_emplace(key, counts_.size());
    if (is_new) counts_.push_back({.kernel = kernel_, .place = place, .part = part, .space = space, .cost = {}});
    known = key;
    return index = found->second;
  }

  void count(std::size_t index, OpenRequest& open) {
    AccessCount& total = counts_[index];
    const Request request{open.addresses, open.lanes, total.bytes, total.access};
    const Cost cost = total.space == Space::global ? sectors(request) : wavefronts(request);
    ++total.requests;
    total.cost.actual += cost.actual;
    total.cost.ideal += cost.ideal;
    open.lanes = 0;
  }

  const void* kernel_ = nullptr;
  Range dynamic_shared_, last_;
  std::vector<Range> global_;  // by address
  std::map<Place, std::size_t> places_;
  std::array<std::pair<Place, std::size_t>, 4096> known_;  // some of them, found faster
  std::vector<AccessCount> counts_;
  std::array<WarpLog, max_threads / lanes_of_warp> warps_;
};

Counter& counter() {
  static Counter instance;
  return instance;
}

constexpr AccessObserver observer{[](const void* kernel, const unsigned char* shared, std::size_t shared_bytes) {
                                    const auto begin = reinterpret_cast<std::uintptr_t>(shared);
                                    counter().begin_grid(kernel, {begin, begin + shared_bytes});
                                  },
                                  [](int warp) { counter().meet(warp); }};
// Before any kernel runs; a program that has none that are counted does not link this file.
[[maybe_unused]] const AccessObserver* const installed = access_observer = &observer;

/// The units of memory that some lanes touch, in order: word or sector numbers.
struct Units {
  std::array<std::uintptr_t, lanes_of_warp * 5> at;  // 16 bytes anywhere lie in five words
  std::size_t count = 0;

  Units(const Request& request, std::uint32_t lanes, std::uintptr_t unit_bytes) {
    for_each_lane(lanes, [&](std::size_t lane) {
      const std::uintptr_t begin = request.addresses[lane], end = begin + static_cast<std::uintptr_t>(request.bytes);
      for (std::uintptr_t unit = begin / unit_bytes; unit * unit_bytes < end; ++unit) at[count++] = unit;
    });
  }
  void keep_one_of_each() {
    std::sort(at.begin(), at.begin() + static_cast<std::ptrdiff_t>(count));
    count =
        static_cast<std::size_t>(std::unique(at.begin(), at.begin() + static_cast<std::ptrdiff_t>(count)) - at.begin());
  }
};

/// Bytes asked for, each once.
std::uint64_t bytes_asked(const Request& request) {
  std::array<std::uintptr_t, lanes_of_warp> begins;
  std::size_t count = 0;
  for_each_lane(request.lanes, [&](std::size_t lane) { begins[count++] = request.addresses[lane]; });
  std::sort(begins.begin(), begins.begin() + static_cast<std::ptrdiff_t>(count));
  std::uint64_t bytes = 0;
  std::uintptr_t end = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const std::uintptr_t own_end = begins[i] + static_cast<std::uintptr_t>(request.bytes);
    bytes += own_end - std::clamp(end, begins[i], own_end);
    end = own_end;
  }
  return bytes;
}

}  // namespace

Cost sectors(const Request& request) {
  Units touched(request, request.lanes, sector_bytes);
  touched.keep_one_of_each();
  return {touched.count, (bytes_asked(request) + sector_bytes - 1) / sector_bytes};
}

Cost wavefronts(const Request& request) {
  const int parts = request.bytes <= 4 ? 1 : request.bytes / 4;  // 8 bytes: halves, 16: quarters
  const int lanes_of_part = lanes_of_warp / parts;
  Cost cost;
  for (int part = 0; part < parts; ++part) {
    const auto all = static_cast<std::uint32_t>(((std::uint64_t{1} << lanes_of_part) - 1) << (part * lanes_of_part));
    const std::uint32_t lanes = request.lanes & all;
    if (lanes == 0) continue;
    Units words(request, lanes, bank_bytes);
    if (request.access != Access::atomic) words.keep_one_of_each();
    std::uint64_t of_bank[banks] = {};
    for (std::size_t i = 0; i < words.count; ++i) ++of_bank[words.at[i] % banks];
    cost.actual += *std::max_element(std::begin(of_bank), std::end(of_bank));
    ++cost.ideal;
  }
  return cost;
}

std::vector<AccessCount> take_access_counts() {
  return counter().take();
}

void touch_memory(const void* place, const void* address, std::size_t bytes, Access access) {
  const Thread* const thread = machine().current;
  if (thread == nullptr) return;  // code of the host
  const auto begin = reinterpret_cast<std::uintptr_t>(address);
  counter().check_waited(*thread, place, begin, access);
  // As nvcc splits what is longer than 16 bytes: by its alignment, of which the address is a sign.
  const std::size_t step = std::min<std::size_t>(16, std::size_t{1} << std::countr_zero(begin | bytes));
  for (std::size_t part = 0; part < bytes; part += step) {
    counter().touch(*thread, place, begin + part, static_cast<int>(part), static_cast<int>(step), access);
  }
}

}  // namespace simt
