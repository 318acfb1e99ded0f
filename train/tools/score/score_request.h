// What `vqlm score` is asked: JSON lines, each a continuation after its context, or a whole text.
#pragma once

#include <cstdint>
#include <functional>
#include <istream>
#include <string>
#include <vector>

namespace vqlm {

/// A sequence of which the tokens from `first` on are scored, each after all that stand before it. 1 <= first < size.
struct ScoredSequence {
  std::vector<std::int32_t> tokens;
  std::size_t first = 1;

  std::size_t scored() const { return tokens.size() - first; }
};

/// A line: one sequence, or the windows of a text that is longer than the model's samples.
struct ScoreRequest {
  std::vector<ScoredSequence> sequences;
};

/// How lines become tokens.
struct ScoreReading {
  std::int64_t vocab_size = 0;
  std::int64_t most = 0;        // tokens of a sample: a sequence has at most one more
  std::int32_t beginning = 0;   // what an empty context and a whole text stand behind
  bool begin_contexts = false;  // it stands before every context
  /// Ids of a text; null where the model has no tokenizer: then lines hold ids.
  std::function<std::vector<std::int32_t>(const std::string&)> encode;
};

/// Reads {"context": ..., "continuation": ...} (texts), {"context_tokens": [...], "continuation_tokens": [...]}, {"text": ...}
/// or {"tokens": [...]}; other keys are not looked at, empty lines are no requests.
///
/// A text's continuation are the tokens of context and continuation together behind as many as the context alone has; white
/// space at the context's end counts to the continuation. A context that does not fit loses its beginning. A whole text is
/// cut into windows of `most` tokens, in the last of which as many tokens as fit stand before those that are scored. All
/// three are lm-evaluation-harness's conventions, so that its numbers come out.
///
/// Throws Error naming `name`, the line and what is wrong with it: no JSON object, keys that do not go together, ids outside
/// the vocabulary, an empty continuation, one longer than `most`.
std::vector<ScoreRequest> read_score_requests(std::istream& in, const std::string& name, const ScoreReading& reading);

}  // namespace vqlm
