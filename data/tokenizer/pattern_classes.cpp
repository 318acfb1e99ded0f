#include "data/tokenizer/pattern_classes.h"

#include <spdlog/fmt/fmt.h>

#include <utility>

namespace vqlm {

std::string_view ascii_items(std::string_view property) {
  constexpr std::pair<std::string_view, std::string_view> members[] = {{"L", "A-Za-z"},
                                                                       {"Lu", "A-Z"},
                                                                       {"Ll", "a-z"},
                                                                       {"N", "0-9"},
                                                                       {"Nd", "0-9"},
                                                                       {"Z", "\\x20"},
                                                                       {"P", R"(!-#%-*,-\/:;?@\[-\]_{})"},
                                                                       {"S", R"($+<->\^`|~)"}};
  for (const auto& [name, items] : members) {
    if (name == property) return items;
  }
  return "\\x{80}";
}

std::string class_items(std::span<const CodePoints> ranges) {
  std::string items;
  for (const CodePoints& range : ranges) {
    items += fmt::format("\\x{{{:X}}}", range.first);
    if (range.last > range.first) items += fmt::format("-\\x{{{:X}}}", range.last);
  }
  return items;
}

std::vector<CodePoints> complement(std::span<const CodePoints> ranges) {
  std::vector<CodePoints> gaps;
  std::uint32_t next = 0;
  for (const CodePoints& range : ranges) {
    if (range.first > next) gaps.push_back({next, range.first - 1});
    next = range.last + 1;
  }
  gaps.push_back({next, last_code_point});
  return gaps;
}

}  // namespace vqlm
