#include "train/tools/score/score_request.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/error.h"

namespace vqlm {
namespace {

using Json = nlohmann::json;
using Tokens = std::vector<std::int32_t>;

/// One line, with the words for what is wrong in it.
class Line {
 public:
  Line(const std::string& text, std::string place, const ScoreReading& reading)
      : json_(Json::parse(text, nullptr, false)), place_(std::move(place)), reading_(reading) {
    if (!json_.is_object()) refuse("is no JSON object");
  }

  bool has(const char* key) const { return json_.contains(key); }

  std::string text(const char* key) const {
    if (!reading_.encode)
      refuse(fmt::format("\"{}\" is text, and the model has no tokenizer to read it with: give token ids", key));
    const auto found = json_.find(key);
    if (found == json_.end() || !found->is_string()) refuse(fmt::format("\"{}\" must be a string", key));
    return found->get<std::string>();
  }

  Tokens tokens(const char* key) const {
    const auto found = json_.find(key);
    if (found == json_.end() || !found->is_array()) refuse(fmt::format("\"{}\" must be an array of token ids", key));
    Tokens ids;
    for (const Json& id : *found) {
      if (!id.is_number_integer() || id < 0 || id >= reading_.vocab_size)
        refuse(fmt::format("\"{}\": {} is no token id below {}", key, id.dump(), reading_.vocab_size));
      ids.push_back(id.get<std::int32_t>());
    }
    return ids;
  }

  [[noreturn]] void refuse(const std::string& what) const { throw Error(fmt::format("{}: {}", place_, what)); }

 private:
  Json json_;
  std::string place_;
  const ScoreReading& reading_;
};

struct Pair {
  Tokens context, continuation;
};

/// The length without white space at the end, as Python's str.rstrip() knows it.
std::size_t without_white_space(std::string_view text) {
  constexpr std::string_view ascii = " \t\n\v\f\r\x1c\x1d\x1e\x1f";
  constexpr std::string_view others[] = {"\u0085", "\u00A0", "\u1680", "\u2000", "\u2001", "\u2002", "\u2003",
                                         "\u2004", "\u2005", "\u2006", "\u2007", "\u2008", "\u2009", "\u200A",
                                         "\u2028", "\u2029", "\u202F", "\u205F", "\u3000"};
  for (bool found = true; found && !text.empty();) {
    found = ascii.find(text.back()) != std::string_view::npos;
    if (found) text.remove_suffix(1);
    for (const std::string_view space : others) {
      if (!text.ends_with(space)) continue;
      text.remove_suffix(space.size());
      found = true;
    }
  }
  return text.size();
}

Pair encoded_pair(const Line& line, const ScoreReading& reading) {
  std::string context = line.text("context"), continuation = line.text("continuation");
  const std::size_t end = without_white_space(context);
  continuation = context.substr(end) + continuation;
  context.resize(end);
  if (context.empty()) return {{}, reading.encode(continuation)};
  Pair pair{reading.encode(context), reading.encode(context + continuation)};
  if (pair.continuation.size() < pair.context.size())
    line.refuse("context and continuation have fewer tokens than the context");
  pair.continuation.erase(pair.continuation.begin(),
                          pair.continuation.begin() + static_cast<std::ptrdiff_t>(pair.context.size()));
  return pair;
}

ScoreRequest continuation_after(Pair pair, const Line& line, const ScoreReading& reading) {
  const auto most = static_cast<std::size_t>(reading.most);
  if (pair.continuation.empty()) line.refuse("the continuation has no tokens");
  if (pair.continuation.size() > most)
    line.refuse(fmt::format("a continuation of {} tokens, but the model's samples have {}; --context N allows more",
                            pair.continuation.size(), most));
  if (pair.context.empty() || reading.begin_contexts) pair.context.insert(pair.context.begin(), reading.beginning);
  const std::size_t kept = std::min(pair.context.size(), most + 1 - pair.continuation.size());
  ScoredSequence sequence{{pair.context.end() - static_cast<std::ptrdiff_t>(kept), pair.context.end()}, kept};
  sequence.tokens.insert(sequence.tokens.end(), pair.continuation.begin(), pair.continuation.end());
  return {{std::move(sequence)}};
}

ScoreRequest whole_text(Tokens tokens, const Line& line, const ScoreReading& reading) {
  if (tokens.empty()) line.refuse("a text without tokens");
  tokens.insert(tokens.begin(), reading.beginning);
  const auto most = static_cast<std::size_t>(reading.most);
  ScoreRequest request;
  for (std::size_t next = 1; next < tokens.size();) {
    const std::size_t end = std::min(next + most, tokens.size());
    const std::size_t begin = end > most + 1 ? end - most - 1 : 0;
    request.sequences.push_back(
        {{tokens.begin() + static_cast<std::ptrdiff_t>(begin), tokens.begin() + static_cast<std::ptrdiff_t>(end)},
         next - begin});
    next = end;
  }
  return request;
}

ScoreRequest request_of(const Line& line, const ScoreReading& reading) {
  const bool texts = line.has("context") || line.has("continuation");
  const bool ids = line.has("context_tokens") || line.has("continuation_tokens");
  if (texts + ids + line.has("text") + line.has("tokens") != 1)
    line.refuse(
        "must have \"context\" and \"continuation\", or \"text\", or the same with ids (\"context_tokens\" and "
        "\"continuation_tokens\", \"tokens\")");
  if (texts) return continuation_after(encoded_pair(line, reading), line, reading);
  if (ids)
    return continuation_after({line.tokens("context_tokens"), line.tokens("continuation_tokens")}, line, reading);
  return whole_text(line.has("tokens") ? line.tokens("tokens") : reading.encode(line.text("text")), line, reading);
}

}  // namespace

std::vector<ScoreRequest> read_score_requests(std::istream& in, const std::string& name, const ScoreReading& reading) {
  std::vector<ScoreRequest> requests;
  std::size_t number = 0;
  for (std::string text; std::getline(in, text);) {
    ++number;
    if (text.find_first_not_of(" \t\r") == std::string::npos) continue;
    requests.push_back(request_of(Line(text, fmt::format("{}:{}", name, number), reading), reading));
  }
  return requests;
}

}  // namespace vqlm
