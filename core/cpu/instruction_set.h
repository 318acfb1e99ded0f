// Which of the compiled instruction sets the vectorised ops run with on this machine.
#pragma once

namespace vqlm::cpu {

/// Highway's name: "SSE2", "AVX2", "AVX3" (AVX-512).
const char* instruction_set();

}  // namespace vqlm::cpu
