#include "tests/simt/source_line.h"

#include <dlfcn.h>

#include <array>
#include <cstdint>
#include <cstdio>

namespace simt {

std::string source_line(const void* return_address) {
  Dl_info info;
  if (dladdr(return_address, &info) == 0) return "unknown place";
  // One byte before it lies in the instruction.
  const auto offset =
      reinterpret_cast<std::uintptr_t>(return_address) - reinterpret_cast<std::uintptr_t>(info.dli_fbase) - 1;
  std::array<char, 32> hexadecimal{};
  std::snprintf(hexadecimal.data(), hexadecimal.size(), "%#zx", static_cast<std::size_t>(offset));
  const std::string file = info.dli_fname;
  if (file.find('\'') != std::string::npos) return file;  // no shell could be given that name
  const std::string command = "addr2line -i -e '" + file + "' " + hexadecimal.data() + " 2>/dev/null";
  std::string lines, line;
  if (std::FILE* const said = popen(command.c_str(), "r")) {
    for (int c = std::fgetc(said); c != EOF; c = std::fgetc(said)) {
      if (c != '\n') {
        line += static_cast<char>(c);
        continue;
      }
      if (!line.starts_with('?')) {
        lines += (lines.empty() ? "" : ", called at ") + line.substr(0, line.find(" (discriminator"));
      }
      line.clear();
    }
    pclose(said);
  }
  return lines.empty() ? file + "+" + hexadecimal.data() : lines;
}

}  // namespace simt
