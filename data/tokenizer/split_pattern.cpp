#include "data/tokenizer/split_pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <spdlog/fmt/fmt.h>

#include <cstdint>
#include <limits>

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
  // A run of spaces is walked back one by one; the text's length is limit enough.
  pcre2_set_match_limit(impl_->context.get(), std::numeric_limits<std::uint32_t>::max());
}
MatchScratch::~MatchScratch() = default;

struct SplitPattern::Impl {
  std::unique_ptr<pcre2_code, Release<pcre2_code_free>> code;
  bool compiled_to_machine_code = false;
};

SplitPattern::SplitPattern(SplitPattern&&) noexcept = default;
SplitPattern& SplitPattern::operator=(SplitPattern&&) noexcept = default;
SplitPattern::~SplitPattern() = default;

SplitPattern::SplitPattern(const std::string& pattern, const std::string& name) : impl_(std::make_unique<Impl>()) {
  std::unique_ptr<pcre2_compile_context, Release<pcre2_compile_context_free>> context(
      pcre2_compile_context_create(nullptr));
  if (!context) throw std::bad_alloc();
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);  // the default is the library's builder's choice
  int error = 0;
  PCRE2_SIZE where = 0;
  impl_->code.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), PCRE2_UTF | PCRE2_UCP,
                                  &error, &where, context.get()));
  if (!impl_->code) {
    throw Error(
        fmt::format("{}: the regular expression \"{}\" is none: {} at byte {}; mend the file, or tokenize with "
                    "another program and give ids by --from-tokens",
                    name, pattern, reason_of(error), where));
  }
  std::uint32_t matches_nothing = 0;
  pcre2_pattern_info(impl_->code.get(), PCRE2_INFO_MATCHEMPTY, &matches_nothing);
  if (matches_nothing != 0) {
    throw Error(
        fmt::format("{}: the regular expression \"{}\" matches the empty text, which is not supported; tokenize "
                    "with another program and give ids by --from-tokens",
                    name, pattern));
  }
  impl_->compiled_to_machine_code = pcre2_jit_compile(impl_->code.get(), PCRE2_JIT_COMPLETE) == 0;
}

bool SplitPattern::find(std::string_view text, std::size_t from, MatchScratch& scratch, Match& match) const {
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  pcre2_match_data* data = scratch.impl_->data.get();
  pcre2_match_context* context = scratch.impl_->context.get();
  const auto* code = impl_->code.get();
  int found = PCRE2_ERROR_JIT_STACKLIMIT;
  if (impl_->compiled_to_machine_code) {
    found = pcre2_jit_match(code, subject, text.size(), from, PCRE2_NO_UTF_CHECK, data, context);
  }
  if (found == PCRE2_ERROR_JIT_STACKLIMIT) {  // the interpreter's stack is the heap
    found = pcre2_match(code, subject, text.size(), from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, data, context);
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
