// Where an instruction of the program comes from, for messages.
#pragma once

#include <string>

namespace simt {

/// "core/cuda/packs.h:42, called at core/cuda/rope.cu:41" for a return address, behind the instruction, by the program's debug
/// information of inlined calls and addr2line; "PROGRAM+0x1234" where one of them is missing. Slow: for a program's last words.
std::string source_line(const void* return_address);

}  // namespace simt
