// Stopping politely: a batch system's warning becomes a flag that the trainer asks for between steps.
#pragma once

#include <functional>

namespace vqlm {

/// From now on SIGTERM, SIGUSR1 and the first SIGINT (Ctrl-C) set a flag in place of ending the process; a second SIGINT
/// ends it as usual. Returns the question "was one received?". Throws Error where the system refuses.
std::function<bool()> catch_stop_signals();

/// Those signals end the process again.
void restore_stop_signals() noexcept;

}  // namespace vqlm
