#include "train/tools/generate/generator.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>

#include "core/error.h"
#include "train/engine/stopwatch.h"

namespace vqlm {

const char* name_of(Stop stop) {
  switch (stop) {
    case Stop::end_of_text:
      return "end of text";
    case Stop::max_tokens:
      return "token limit";
    case Stop::context:
      return "context limit";
  }
  VQLM_ASSERT(false);
}

Generator::Generator(Backend& backend, Transformer& model, std::int64_t vocab_size, const Options& options)
    : backend_(backend),
      model_(model),
      vocab_size_(vocab_size),
      options_(options),
      sampler_(backend, model.head(), vocab_size, options.sampling) {
  VQLM_ASSERT(model.context() > 0);
  id_storage_ =
      backend.allocate(static_cast<std::size_t>(model.batch().rows()) * sizeof(std::int32_t), MemoryUse::workspace);
}

void Generator::check(const std::vector<std::vector<std::int32_t>>& prompts) const {
  VQLM_ASSERT(std::cmp_equal(prompts.size(), model_.batch().batch) && !prompts.front().empty());
  for (const std::vector<std::int32_t>& prompt : prompts) {
    VQLM_ASSERT(prompt.size() == prompts.front().size());
    for (const std::int32_t token : prompt) {
      if (token >= 0 && token < vocab_size_) continue;
      throw Error(fmt::format("token {} of the prompt is outside the model's vocabulary [0, {})", token, vocab_size_));
    }
  }
  if (std::cmp_greater_equal(prompts.front().size(), model_.context())) {
    throw Error(
        fmt::format("the prompt's {} tokens leave no room in a context of {}; shorten it, or give a larger --context",
                    prompts.front().size(), model_.context()));
  }
}

Tensor Generator::advance(std::span<const std::int32_t> ids, std::int64_t length, std::int64_t past) {
  const Tensor tokens = id_storage_.view({model_.batch().batch, length}, DType::i32);
  backend_.copy_from_host(tokens, ids.data());
  return model_.advance(tokens, past);
}

Tensor Generator::read_prompts(const std::vector<std::vector<std::int32_t>>& prompts) {
  const std::size_t total = prompts.front().size();
  std::vector<std::int32_t> ids;
  Tensor hidden;
  for (std::size_t begin = 0, count = 0; begin < total; begin += count) {
    count = std::min(static_cast<std::size_t>(model_.batch().seq_len), total - begin);
    ids.clear();
    for (const std::vector<std::int32_t>& prompt : prompts) {
      const auto first = prompt.begin() + static_cast<std::ptrdiff_t>(begin);
      ids.insert(ids.end(), first, first + static_cast<std::ptrdiff_t>(count));
    }
    hidden = advance(ids, static_cast<std::int64_t>(count), static_cast<std::int64_t>(begin));
  }
  return hidden;
}

bool Generator::ends_text(std::int32_t token) const {
  return std::find(options_.end_of_text.begin(), options_.end_of_text.end(), token) != options_.end_of_text.end();
}

bool Generator::take(std::int32_t token, std::int64_t position, std::size_t sequence, Continuation& continuation,
                     const OnToken& on_token) const {
  const bool end = ends_text(token);
  if (!end) {
    continuation.tokens.push_back(token);
    if (on_token) on_token(sequence, token);
  }
  const bool full = position + 1 == model_.context();
  const bool enough = std::cmp_equal(continuation.tokens.size(), options_.max_tokens);
  continuation.stop = end ? Stop::end_of_text : enough ? Stop::max_tokens : Stop::context;
  return end || enough || full;
}

Generation Generator::run(const std::vector<std::vector<std::int32_t>>& prompts, const OnToken& on_token) {
  check(prompts);
  Generation result;
  result.continuations.resize(prompts.size());
  GenerationSpeed& speed = result.speed;
  const auto length = static_cast<std::int64_t>(prompts.front().size());
  speed.prompt_tokens = length * static_cast<std::int64_t>(prompts.size());

  double begin = wall_seconds();
  Tensor hidden = read_prompts(prompts);
  backend_.synchronize();
  speed.prompt_seconds = wall_seconds() - begin;

  std::vector<std::int32_t> next(prompts.size(), 0);  // ended sequences go on with their last token, unseen
  std::vector<bool> ended(prompts.size(), false);
  std::size_t open = options_.max_tokens > 0 ? prompts.size() : 0;
  for (std::int64_t position = length; open > 0; ++position) {
    begin = wall_seconds();
    for (std::size_t b = 0; b < prompts.size(); ++b) {
      if (ended[b]) continue;
      next[b] = sampler_.choose(hidden.rows(static_cast<std::int64_t>(b), 1), static_cast<std::int64_t>(b), position);
      ++speed.tokens;
    }
    const double chosen = wall_seconds();
    speed.head_seconds += chosen - begin;
    speed.seconds += chosen - begin;

    for (std::size_t b = 0; b < prompts.size(); ++b) {
      if (ended[b]) continue;
      ended[b] = take(next[b], position, b, result.continuations[b], on_token);
      if (ended[b]) --open;
    }
    if (open == 0) break;
    begin = wall_seconds();
    hidden = advance(next, 1, position);
    backend_.synchronize();
    speed.seconds += wall_seconds() - begin;
  }
  return result;
}

}  // namespace vqlm
