// Generation by drafts of heads for later tokens.
#include <algorithm>

#include "core/error.h"
#include "train/engine/stopwatch.h"
#include "train/tools/generate/generator.h"

namespace vqlm {

std::vector<std::int32_t> Generator::draft(Tensor h, std::int64_t count) {
  std::vector<std::int32_t> tokens;
  for (std::int64_t j = 0; j < count; ++j) {
    tokens.push_back(model_.head().most_probable(model_.future()->hidden(j, h), 1, 1.0).front().token);
  }
  return tokens;
}

Generation Generator::run_drafting(const std::vector<std::int32_t>& prompt, const OnToken& on_token) {
  VQLM_ASSERT(model_.batch().batch == 1 && model_.future() != nullptr && options_.sampling.temperature == 0);
  VQLM_ASSERT(model_.batch().seq_len > model_.future_heads());
  check({prompt});
  Generation result;
  Continuation& continuation = result.continuations.emplace_back();
  GenerationSpeed& speed = result.speed;
  speed.prompt_tokens = static_cast<std::int64_t>(prompt.size());
  if (options_.max_tokens <= 0) return result;

  double begin = wall_seconds();
  Tensor hidden = read_prompts({prompt});
  backend_.synchronize();
  speed.prompt_seconds = wall_seconds() - begin;

  const double first = wall_seconds();
  std::int64_t position = speed.prompt_tokens;  // of `next`
  std::int32_t next = sampler_.choose(hidden, 0, position);
  speed.head_seconds += wall_seconds() - first;
  ++speed.tokens;
  bool ended = take(next, position, 0, continuation, on_token);
  while (!ended) {
    begin = wall_seconds();
    // As many as can still be of use: a pass gives one token more than are guessed.
    const std::int64_t wanted = options_.max_tokens - static_cast<std::int64_t>(continuation.tokens.size()) - 1;
    const std::int64_t count = std::min({model_.future_heads(), wanted, model_.context() - position - 1});
    std::vector<std::int32_t> tokens = draft(hidden, count);
    tokens.insert(tokens.begin(), next);
    speed.head_seconds += wall_seconds() - begin;
    advance(tokens, 1 + count, position);
    backend_.synchronize();
    ++speed.passes;
    speed.drafted += count;

    begin = wall_seconds();
    for (std::int64_t i = 0; !ended; ++i) {
      hidden = model_.hidden().rows(i, 1);
      next = sampler_.choose(hidden, 0, ++position);
      ++speed.tokens;
      ended = take(next, position, 0, continuation, on_token);
      if (i == count || next != tokens[static_cast<std::size_t>(i + 1)]) break;
      ++speed.accepted;
    }
    speed.head_seconds += wall_seconds() - begin;
  }
  speed.seconds = wall_seconds() - first;
  return result;
}

}  // namespace vqlm
