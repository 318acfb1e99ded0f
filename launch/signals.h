// Stopping politely: a batch system's warning becomes an answer that the trainer asks for between steps.
//
// There is no signal handler. oneDNN's AVX-512 sgemm points the stack register at its heap workspace while it multiplies
// long rows, so a handler's frame would be written over the heap before it (seen as "corrupted size vs. prev_size" in 2
// of 10 stopped runs). The signals stay blocked in every thread instead, and are taken when asked for.
#pragma once

#include <functional>

namespace vqlm {

/// Blocks SIGTERM, SIGUSR1 and SIGINT (Ctrl-C) in this thread and the threads that it will start. Before a library
/// starts threads of its own, which would otherwise be ended by them. Throws Error where the system refuses.
void block_stop_signals();

/// Lets them end the process again, also those that arrived meanwhile.
void unblock_stop_signals();

/// Blocks them and returns the question "did one arrive?", which stays answered with yes. After that a second Ctrl-C ends
/// the process as usual; the others stay without effect, for batch systems send several. Every other thread must have been
/// started with them blocked. From now on a file that grows beyond the process' limit is an error of the write (EFBIG),
/// not a signal.
std::function<bool()> catch_stop_signals();

}  // namespace vqlm
