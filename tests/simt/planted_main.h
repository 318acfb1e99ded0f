// The main function's work in a program of planted faults: it runs the one that its argument names.
#pragma once

#include <cstddef>
#include <cstdio>
#include <cstring>

namespace simt {

/// names: of the faults, in the order of their numbers. Returns what run(number) does; 2 for a name that is none.
template <std::size_t count, class Run>
int run_planted(int argc, char** argv, const char* const (&names)[count], const Run& run) {
  for (std::size_t i = 0; i < count; ++i) {
    if (argc == 2 && std::strcmp(argv[1], names[i]) == 0) return run(i);
  }
  std::fprintf(stderr, "usage: %s NAME\n", argv[0]);
  return 2;
}

}  // namespace simt
