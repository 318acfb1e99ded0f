#include "data/tokenizer/split_pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <spdlog/fmt/fmt.h>

#include <cstdint>
#include <cstring>

#include "core/error.h"

namespace vqlm {

namespace {

std::string reason_of(int code) {
  PCRE2_UCHAR message[256];
  pcre2_get_error_message(code, message, sizeof message);
  return reinterpret_cast<const char*>(message);
}

template <auto release>
struct Release {
  template <class T>
  void operator()(T* handle) const {
    release(handle);
  }
};

}  // namespace

struct MatchScratch::Impl {
  std::unique_ptr<pcre2_match_data, Release<pcre2_match_data_free>> data{pcre2_match_data_create(1, nullptr)};
  std::unique_ptr<pcre2_match_context, Release<pcre2_match_context_free>> context{pcre2_match_context_create(nullptr)};
};

MatchScratch::MatchScratch() : impl_(std::make_unique<Impl>()) {
  if (!impl_->data || !impl_->context) throw std::bad_alloc();
  // A run of white space is walked back step by step: more of them than the longest text has bytes (64 MiB), and few
  // enough that a pattern which tries everything fails within seconds.
  constexpr std::uint32_t most_steps = 100'000'000;
  pcre2_set_match_limit(impl_->context.get(), most_steps);
}
MatchScratch::~MatchScratch() = default;

namespace {

/// One compiled pattern.
struct Code {
  std::unique_ptr<pcre2_code, Release<pcre2_code_free>> code;
  bool has_machine_code = false;
};

Code compiled(const std::string& pattern, std::uint32_t options, std::uint32_t machine_code, const std::string& name) {
  std::unique_ptr<pcre2_compile_context, Release<pcre2_compile_context_free>> context(
      pcre2_compile_context_create(nullptr));
  if (!context) throw std::bad_alloc();
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);  // the default is the library's builder's choice
  int error = 0;
  PCRE2_SIZE where = 0;
  Code made;
  made.code.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), options, &error, &where,
                                context.get()));
  if (!made.code) {
    throw Error(
        fmt::format("{}: the regular expression \"{}\" is none: {} at byte {}; mend the file, or tokenize with "
                    "another program and give ids by --from-tokens",
                    name, pattern, reason_of(error), where));
  }
  made.has_machine_code = pcre2_jit_compile(made.code.get(), machine_code) == 0;
  return made;
}

std::uint32_t number_about(const Code& code, std::uint32_t what) {
  std::uint32_t number = 0;
  pcre2_pattern_info(code.code.get(), what, &number);
  return number;
}

/// Where the run of ASCII from `from` on ends.
std::size_t end_of_ascii(std::string_view text, std::size_t from) {
  constexpr std::uint64_t high_bits = 0x8080808080808080u;
  std::uint64_t eight = 0;
  for (; from + sizeof eight <= text.size(); from += sizeof eight) {
    std::memcpy(&eight, text.data() + from, sizeof eight);
    if ((eight & high_bits) != 0) break;
  }
  while (from < text.size() && static_cast<unsigned char>(text[from]) < 0x80) ++from;
  return from;
}

}  // namespace

struct SplitPattern::Impl {
  Code unicode;
  Code ascii;
  bool ascii_is_used = false;
};

SplitPattern::SplitPattern(SplitPattern&&) noexcept = default;
SplitPattern& SplitPattern::operator=(SplitPattern&&) noexcept = default;
SplitPattern::~SplitPattern() = default;

SplitPattern::SplitPattern(const RewrittenPattern& pattern, const std::string& name) : impl_(std::make_unique<Impl>()) {
  impl_->unicode = compiled(pattern.unicode, PCRE2_UTF | PCRE2_UCP, PCRE2_JIT_COMPLETE, name);
  if (number_about(impl_->unicode, PCRE2_INFO_MATCHEMPTY) != 0) {
    throw Error(
        fmt::format("{}: the regular expression \"{}\" matches the empty text, which is not supported; tokenize "
                    "with another program and give ids by --from-tokens",
                    name, pattern.unicode));
  }
  impl_->ascii = compiled(pattern.ascii, 0, PCRE2_JIT_PARTIAL_HARD, name);
  // A pattern that looks back might see what is not ASCII.
  impl_->ascii_is_used = impl_->ascii.has_machine_code && number_about(impl_->ascii, PCRE2_INFO_MAXLOOKBEHIND) == 0;
}

bool SplitPattern::next(std::string_view text, std::size_t from, std::size_t& ascii_end, MatchScratch& scratch,
                        Match& match) const {
  constexpr std::size_t worth_a_try = 8;  // bytes: shorter runs end before the word does
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  pcre2_match_data* data = scratch.impl_->data.get();
  pcre2_match_context* context = scratch.impl_->context.get();
  int found = PCRE2_ERROR_NOMATCH;
  if (impl_->ascii_is_used) {
    if (from >= ascii_end) ascii_end = end_of_ascii(text, from);
    if (ascii_end >= from + worth_a_try) {
      found = pcre2_jit_match(impl_->ascii.code.get(), subject, ascii_end, from, PCRE2_PARTIAL_HARD, data, context);
    }
  }
  if (found < 0) {
    const pcre2_code* code = impl_->unicode.code.get();
    found = PCRE2_ERROR_JIT_STACKLIMIT;
    if (impl_->unicode.has_machine_code) {
      found = pcre2_jit_match(code, subject, text.size(), from, PCRE2_NO_UTF_CHECK, data, context);
    }
    if (found == PCRE2_ERROR_JIT_STACKLIMIT) {  // the interpreter's stack is the heap
      found = pcre2_match(code, subject, text.size(), from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, data, context);
    }
  }
  if (found == PCRE2_ERROR_NOMATCH) return false;
  if (found < 0) {
    throw Error(fmt::format("the tokenizer's regular expression failed on a text of {} bytes: {}", text.size(),
                            reason_of(found)));
  }
  const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(data);
  match = {ends[0], ends[1]};
  return true;
}

}  // namespace vqlm
