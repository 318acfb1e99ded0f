// Runs the cases and writes what their accesses cost, a line a place, for tests/cuda/accesses_test.py.
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <cstdio>
#include <cstring>

#include "tests/simt/access_counts.h"

namespace {

/// Addresses in the program's file, as debug information has them.
std::uintptr_t in_file(const void* address) {
  Dl_info info;
  if (dladdr(address, &info) == 0) return 0;
  return reinterpret_cast<std::uintptr_t>(address) - reinterpret_cast<std::uintptr_t>(info.dli_fbase);
}

bool write(const char* path) {
  std::FILE* const file = std::fopen(path, "w");
  if (file == nullptr) return false;
  constexpr const char* spaces[] = {"global", "shared"};
  constexpr const char* accesses[] = {"load", "store", "atomic"};
  for (const simt::AccessCount& count : simt::take_access_counts()) {
    // The place is a return address: one byte before it lies in the call.
    std::fprintf(file, "%#zx %#zx %d %d %s %s %llu %llu %llu\n", in_file(count.kernel), in_file(count.place) - 1,
                 count.part, count.bytes, spaces[static_cast<int>(count.space)],
                 accesses[static_cast<int>(count.access)], static_cast<unsigned long long>(count.requests),
                 static_cast<unsigned long long>(count.cost.actual), static_cast<unsigned long long>(count.cost.ideal));
  }
  return std::fclose(file) == 0;
}

}  // namespace

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  if (argc != 2) {
    std::fprintf(stderr, "usage: %s FILE\n", argv[0]);
    return 2;
  }
  const int failed = RUN_ALL_TESTS();
  return failed != 0 || !write(argv[1]) ? 1 : 0;
}
