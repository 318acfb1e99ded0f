// Text from a model: a prompt goes in, chunk by chunk, then one token a time comes out and goes in again, over a cache of
// keys and values.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "core/model/transformer.h"
#include "train/tools/generate/sampling.h"

namespace vqlm {

/// Why a sequence ended.
enum class Stop { end_of_text, max_tokens, context };

/// "end of text", "token limit", "context limit".
const char* name_of(Stop stop);

struct Continuation {
  std::vector<std::int32_t> tokens;  // without the one that ends the text
  Stop stop = Stop::max_tokens;
};

struct GenerationSpeed {
  std::int64_t prompt_tokens = 0;  // of all sequences
  std::int64_t tokens = 0;         // generated, those that end a text included
  double prompt_seconds = 0;
  double seconds = 0;       // of generated tokens
  double head_seconds = 0;  // of these, in the output head and the choice
  // Of run_drafting(): forward passes behind the prompt, tokens that were guessed for them, and guesses that were right.
  std::int64_t passes = 0, drafted = 0, accepted = 0;

  double prompt_tokens_per_second() const {
    return prompt_seconds > 0 ? static_cast<double>(prompt_tokens) / prompt_seconds : 0;
  }
  double tokens_per_second() const { return seconds > 0 ? static_cast<double>(tokens) / seconds : 0; }
  /// The token that each pass would give without drafts, and the drafts that were right.
  double tokens_per_pass() const {
    return passes > 0 ? 1 + static_cast<double>(accepted) / static_cast<double>(passes) : 0;
  }
  double head_share() const { return seconds > 0 ? head_seconds / seconds : 0; }
};

struct Generation {
  std::vector<Continuation> continuations;  // one a sequence
  GenerationSpeed speed;
};

class Generator {
 public:
  struct Options {
    SamplingOptions sampling;
    std::int64_t max_tokens = 256;          // of a continuation
    std::vector<std::int32_t> end_of_text;  // tokens that end it
  };

  /// A model for generation; it and the back end must outlive the generator. Throws UsageError for sampling options.
  Generator(Backend& backend, Transformer& model, std::int64_t vocab_size, const Options& options);

  /// Called with every token of a continuation as soon as it is chosen.
  using OnToken = std::function<void(std::size_t sequence, std::int32_t token)>;
  /// Continues B prompts (as many as the model has sequences) of equal length, at least one token. Sequence b draws from
  /// stream b, so it gets the tokens that it would get alone, up to the rounding of larger products. A continuation ends
  /// at an end-of-text token, after max_tokens, or where prompt and continuation fill the model's context; nothing is
  /// forgotten to make room. Throws Error where a prompt leaves no room, or holds an id outside the vocabulary.
  Generation run(const std::vector<std::vector<std::int32_t>>& prompts, const OnToken& on_token = nullptr);

  /// Continues one prompt with the most probable tokens, by heads for later tokens (Stern et al., arXiv 1811.03115; Gloeckle et
  /// al., arXiv 2404.19737): these guess the tokens behind the next one, one forward pass takes that and the guesses in, and
  /// those that are the output head's own choice after what stands before them are the text. So each token is the most
  /// probable one, as run() gives it at temperature 0 (of nearly equal ones perhaps the other: sums of a pass of several tokens
  /// are in another order). Needs a model of one sequence with such heads, which takes 1 + F tokens at a time, and temperature 0.
  Generation run_drafting(const std::vector<std::int32_t>& prompt, const OnToken& on_token = nullptr);

 private:
  void check(const std::vector<std::vector<std::int32_t>>& prompts) const;
  /// Takes the prompts in; the hidden states (B, d) of their last tokens.
  Tensor read_prompts(const std::vector<std::vector<std::int32_t>>& prompts);
  /// Takes `length` tokens of each sequence in, `ids` (B, length).
  Tensor advance(std::span<const std::int32_t> ids, std::int64_t length, std::int64_t past);
  bool ends_text(std::int32_t token) const;
  /// Ends the continuation with the token chosen for `position`, or adds it. Returns whether it has ended.
  bool take(std::int32_t token, std::int64_t position, std::size_t sequence, Continuation& continuation,
            const OnToken& on_token) const;
  /// What heads for later tokens guess behind the hidden state h (1, d), `count` tokens.
  std::vector<std::int32_t> draft(Tensor h, std::int64_t count);

  Backend& backend_;
  Transformer& model_;
  std::int64_t vocab_size_;
  Options options_;
  TokenSampler sampler_;
  Buffer id_storage_;
};

}  // namespace vqlm
