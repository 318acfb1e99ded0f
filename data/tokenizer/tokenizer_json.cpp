#include "data/tokenizer/tokenizer_json.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>

#include "core/error.h"
#include "data/tokenizer/pattern_rewrite.h"
#include "data/tokenizer/tokenizer_json_reader.h"

namespace vqlm {

namespace {

void read_normalizer(const JsonValue& value, ByteLevelSpec& spec) {
  if (value.absent()) return;
  const std::string_view type = value["type"].text();
  if (type == "NFC") {
    spec.normalization = Normalization::nfc;
  } else if (type == "Sequence") {
    const JsonValue steps = value["normalizers"];
    std::size_t index = 0;
    for (const auto step : steps.array()) read_normalizer(element_of(steps, step, index++), spec);
  } else {
    value.refuse("NFC or null");
  }
}

/// Split: cuts at the matches of a regular expression, or of a text.
RewrittenPattern split_pattern_of(const JsonValue& value, const std::string& name) {
  if (value["behavior"].text() != "Isolated") value["behavior"].refuse("\"Isolated\"");
  const JsonValue pattern = value["pattern"];
  if (!pattern["Regex"].absent()) return rewritten_pattern(pattern["Regex"].text(), name);
  if (!pattern["String"].absent() && !pattern["String"].text().empty()) {
    return literal_pattern(pattern["String"].text());
  }
  pattern.refuse("a Regex or a String");
}

/// One pre-tokenizer; true for ByteLevel, which must be the last.
bool read_pre_tokenizer(const JsonValue& value, const std::string& name, ByteLevelSpec& spec) {
  const std::string_view type = value["type"].text();
  if (type == "ByteLevel") {
    WordCut& cut = spec.cuts.emplace_back();
    cut.prefix_space = value["add_prefix_space"].boolean_or(true);
    if (value["use_regex"].boolean_or(true)) cut.pattern = rewritten_pattern(gpt2_pattern, name);
    return true;
  }
  if (type == "Split") {
    spec.cuts.push_back({false, split_pattern_of(value, name)});
  } else if (type == "Digits") {
    const bool alone = value["individual_digits"].boolean_or(false);
    spec.cuts.push_back({false, digits_pattern(alone ? DigitRuns::one_by_one : DigitRuns::together)});
  } else {
    value.refuse("ByteLevel and, in front of it, Split and Digits");
  }
  return false;
}

void read_pre_tokenizers(const JsonValue& value, const std::string& name, ByteLevelSpec& spec) {
  if (value.absent()) value.refuse("ByteLevel and, in front of it, Split and Digits");
  bool bytes = false;
  if (value["type"].text() == "Sequence") {
    const JsonValue steps = value["pretokenizers"];
    std::size_t index = 0;
    for (const auto step : steps.array()) {
      const JsonValue pre_tokenizer = element_of(steps, step, index++);
      if (bytes) pre_tokenizer.refuse("a Sequence whose last step is ByteLevel");
      bytes = read_pre_tokenizer(pre_tokenizer, name, spec);
    }
  } else {
    bytes = read_pre_tokenizer(value, name, spec);
  }
  if (!bytes) value.refuse("a Sequence whose last step is ByteLevel");
}

void read_vocabulary(const JsonValue& value, ByteLevelSpec& spec) {
  std::vector<bool> seen;
  for (const auto member : value.object()) {
    const JsonValue entry{member.value, value.place + fmt::format("[\"{}\"]", member.key)};
    const std::int64_t id = entry.id();
    if (seen.size() <= static_cast<std::size_t>(id)) seen.resize(static_cast<std::size_t>(id) + 1);
    if (seen[static_cast<std::size_t>(id)]) entry.damaged(fmt::format("has the id {} of another token", id));
    seen[static_cast<std::size_t>(id)] = true;
    if (!spec.vocabulary.emplace(member.key, static_cast<std::int32_t>(id)).second) entry.damaged("is there twice");
  }
}

/// A merge: "left right", or since tokenizers 0.20 ["left", "right"].
std::pair<std::string_view, std::string_view> halves_of(const JsonValue& value) {
  if (value.element.is_array()) {
    const auto pair = value.array();
    if (pair.size() != 2) value.damaged("is no pair of tokens");
    return {element_of(value, pair.at(0), 0).text(), element_of(value, pair.at(1), 1).text()};
  }
  const std::string_view line = value.text();
  const std::size_t space = line.find(' ');
  if (space == std::string_view::npos || line.find(' ', space + 1) != std::string_view::npos) {
    value.damaged("is no pair of tokens with a space between them");
  }
  return {line.substr(0, space), line.substr(space + 1)};
}

void read_merges(const JsonValue& value, ByteLevelSpec& spec) {
  std::size_t index = 0;
  for (const auto element : value.array()) {
    const JsonValue merge = element_of(value, element, index++);
    if (element.is_string() && merge.text().starts_with("#version")) continue;
    const auto [left, right] = halves_of(merge);
    const auto id_of = [&](const std::string& token) {
      const auto found = spec.vocabulary.find(token);
      if (found == spec.vocabulary.end()) {
        merge.damaged(fmt::format("makes or takes \"{}\", which is not in model.vocab", token));
      }
      return found->second;
    };
    spec.merges.push_back(
        {id_of(std::string(left)), id_of(std::string(right)), id_of(std::string(left).append(right))});
  }
}

/// Bytes without a token would become the unknown token, or tokens such as <0x0A>; where all have one, neither happens.
void check_bytes(const JsonValue& model, const ByteLevelSpec& spec) {
  const int missing = BpeMerges(spec.vocabulary, {}, BpeMerges::WholeWords::by_merges).missing_bytes();
  if (missing == 0) return;
  const std::string known = fmt::format("null where bytes have no token of their own ({} here)", missing);
  if (!model["unk_token"].absent()) model["unk_token"].refuse(known);
  if (model["byte_fallback"].boolean_or(false)) model["byte_fallback"].refuse(known);
}

void read_model(const JsonValue& model, ByteLevelSpec& spec) {
  if (model.absent()) model.damaged("is missing");
  if (!model["type"].absent() && model["type"].text() != "BPE") model["type"].refuse("\"BPE\"");
  for (const char* affix : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (!model[affix].absent() && !model[affix].text().empty()) model[affix].refuse("\"\" or null");
  }
  const JsonValue dropout = model["dropout"];
  if (double share = 0;
      !dropout.absent() && (dropout.element.get_double().get(share) != simdjson::SUCCESS || share != 0)) {
    dropout.refuse("null: ids must not depend on chance");
  }
  if (model["ignore_merges"].boolean_or(false)) spec.whole = BpeMerges::WholeWords::at_once;
  read_vocabulary(model["vocab"], spec);
  read_merges(model["merges"], spec);
  check_bytes(model, spec);
}

/// tokenizers numbers added tokens itself: one that the vocabulary knows keeps its id, others follow the largest one.
void read_added_tokens(const JsonValue& value, ByteLevelSpec& spec) {
  if (value.absent()) return;
  const auto vocabulary_size = static_cast<std::int64_t>(spec.vocabulary.size());
  std::unordered_map<std::string, std::int32_t> ids;
  std::int64_t largest = -1;
  std::size_t index = 0;
  for (const auto element : value.array()) {
    const JsonValue entry = element_of(value, element, index++);
    AddedToken token{.content = std::string(entry["content"].text()),
                     .id = static_cast<std::int32_t>(entry["id"].id()),
                     .special = entry["special"].boolean_or(false),
                     .normalized = entry["normalized"].boolean_or(true),
                     .lstrip = entry["lstrip"].boolean_or(false),
                     .rstrip = entry["rstrip"].boolean_or(false)};
    if (token.content.empty()) entry.damaged("is an empty token");
    if (entry["single_word"].boolean_or(false)) entry["single_word"].refuse("false");
    std::int64_t expected = std::max(largest + 1, vocabulary_size);
    if (const auto known = spec.vocabulary.find(token.content); known != spec.vocabulary.end())
      expected = known->second;
    if (ids.contains(token.content)) entry.damaged(fmt::format("is \"{}\" a second time", token.content));
    if (token.id != expected) {
      entry.damaged(
          fmt::format("is \"{}\" with id {}, which tokenizers would number {}", token.content, token.id, expected));
    }
    ids.emplace(token.content, token.id);
    largest = std::max<std::int64_t>(largest, token.id);
    spec.added.push_back(std::move(token));
  }
}

/// The special token that a TemplateProcessing puts in front of a single text.
void read_post_processor(const JsonValue& value, ByteLevelSpec& spec) {
  if (value.absent()) return;
  const std::string_view type = value["type"].text();
  if (type == "Sequence") {
    const JsonValue steps = value["processors"];
    std::size_t index = 0;
    for (const auto step : steps.array()) read_post_processor(element_of(steps, step, index++), spec);
  } else if (type == "TemplateProcessing") {
    const JsonValue single = value["single"];
    const auto parts = single.array();
    if (parts.size() == 0) return;
    const JsonValue first = element_of(single, parts.at(0), 0)["SpecialToken"];
    if (first.absent()) return;
    const JsonValue ids = value["special_tokens"][first["id"].text()]["ids"];
    if (ids.array().size() == 1) {
      spec.begin_id = static_cast<std::int32_t>(element_of(ids, ids.array().at(0), 0).id());
    }
  } else if (type != "ByteLevel") {
    value["type"].refuse("ByteLevel and TemplateProcessing");
  }
}

}  // namespace

ByteLevelSpec read_tokenizer_json(std::string_view json, const std::string& name) {
  simdjson::dom::parser parser;
  JsonValue root{{}, name + ": "};
  if (const auto code = parser.parse(json.data(), json.size()).get(root.element); code != simdjson::SUCCESS) {
    throw Error(
        fmt::format("{}: is no JSON: {}; copy the file again from its model", name, simdjson::error_message(code)));
  }
  ByteLevelSpec spec;
  read_model(root["model"], spec);
  read_added_tokens(root["added_tokens"], spec);
  read_normalizer(root["normalizer"], spec);
  read_pre_tokenizers(root["pre_tokenizer"], name, spec);
  const JsonValue decoder = root["decoder"];
  if (decoder.absent()) decoder.refuse("ByteLevel");
  if (decoder["type"].text() != "ByteLevel") decoder["type"].refuse("\"ByteLevel\"");
  read_post_processor(root["post_processor"], spec);
  if (spec.vocabulary.empty()) root["model"]["vocab"].damaged("has no token");
  return spec;
}

}  // namespace vqlm
