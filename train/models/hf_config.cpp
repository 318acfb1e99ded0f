#include "train/models/hf_config.h"

#include <spdlog/fmt/fmt.h>

#include <limits>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/model/head/code_map.h"
#include "train/config/enum_words.h"
#include "train/models/hf_body.h"
#include "train/models/hf_section.h"

namespace vqlm {

namespace {

using Json = nlohmann::json;

/// The word of `name` as an enum's value; `otherwise` where the folder does not say.
template <class Enum>
Enum choice_of(const HfSection& config, const char* name, Enum otherwise) {
  const auto value = value_of<Enum>(config.text(name, std::string(word_of(otherwise))));
  if (!value) config.refuse(name, fmt::format("is not supported: only {} are", fmt::join(words<Enum>, ", ")));
  return *value;
}

decltype(VqHeadConfig::members) parse_members(const HfSection& config, const ModelConfig& model) {
  const auto vectors = choice_of(config, "vq_members", MemberVectors::codes);
  if (vectors == MemberVectors::embedding) {
    // Earlier versions could use some of the columns, times a factor.
    if (config.has("vq_member_rank") && config.integer("vq_member_rank") != model.d_model)
      config.refuse("vq_member_rank", fmt::format("is not supported: only hidden_size = {} is", model.d_model));
    if (config.number("vq_member_scale", 1) != 1) config.refuse("vq_member_scale", "is not supported: only 1 is");
    return EmbeddingMembersConfig{.mean = config.flag("vq_member_mean", false)};
  }
  // 0 is the published method and has no codes; transformers writes it where we leave it out.
  const std::int64_t groups = config.integer("vq_groups", 0, 0);
  if (vectors == MemberVectors::none || groups == 0) return NoMembersConfig{};
  if (model.d_model % groups != 0)
    config.refuse("vq_groups", fmt::format("does not divide hidden_size = {}", model.d_model));
  return CodeMembersConfig{.groups = static_cast<int>(groups), .codes = static_cast<int>(config.integer("vq_codes"))};
}

decltype(VqHeadConfig::learning) parse_learning(const HfSection& config) {
  switch (choice_of(config, "vq_learning", CodebookLearning::gradient)) {
    case CodebookLearning::gradient:
      break;
    case CodebookLearning::commitment: {
      const CommitmentLearningConfig usual;
      return CommitmentLearningConfig{config.number("vq_commitment", usual.commitment)};
    }
    case CodebookLearning::ema: {
      const EmaLearningConfig usual;
      return EmaLearningConfig{config.number("vq_commitment", usual.commitment),
                               config.number("vq_ema_decay", usual.ema_decay)};
    }
  }
  return GradientLearningConfig{};
}

/// "head_cutoffs": [2048, 8192].
HeadConfig parse_adaptive(const HfSection& config, const ModelConfig& model, bool bias) {
  AdaptiveHeadConfig head{.bias = bias, .tail_ratio = static_cast<int>(config.integer("head_tail_ratio"))};
  if (head.tail_ratio < 1 || head.tail_ratio > 65536) config.refuse("head_tail_ratio", "must be from 1 to 65536");
  std::int64_t begin = 0;
  for (const Json& cutoff : config.list("head_cutoffs")) {
    if (!cutoff.is_number_unsigned() || cutoff <= begin || cutoff >= model.vocab_size)
      config.refuse("head_cutoffs", fmt::format("must rise from 1 to at most {}", model.vocab_size - 1));
    head.cutoffs.push_back(begin = cutoff.get<std::int64_t>());
  }
  if (head.cutoffs.empty()) config.refuse("head_cutoffs", "must hold a number");
  return head;
}

HeadConfig parse_native_head(const HfSection& config, const ModelConfig& model) {
  const bool bias = config.flag("head_bias", false);
  const auto kind = value_of<HeadKind>(config.text("head_kind"));
  if (!kind) config.refuse("head_kind", fmt::format("is not supported: only {} are", fmt::join(words<HeadKind>, ", ")));
  if (kind == HeadKind::dense) return DenseHeadConfig{.bias = bias, .softcap = config.number("head_softcap", 0)};
  if (model.tie_embeddings)
    config.refuse("tie_word_embeddings", "is not possible: this head has no matrix of the table's shape to tie");
  if (kind == HeadKind::low_rank) {
    const std::int64_t rank = config.integer("head_rank");
    if (rank > model.d_model) config.refuse("head_rank", fmt::format("is above hidden_size = {}", model.d_model));
    return LowRankHeadConfig{.bias = bias, .rank = rank};
  }
  if (kind == HeadKind::adaptive) return parse_adaptive(config, model, bias);
  VqHeadConfig head{.bias = bias,
                    .clusters = config.integer("vq_clusters"),
                    .members = parse_members(config, model),
                    .input_codes = false,  // the form has none: FoldedInputCodes
                    .learning = parse_learning(config)};
  try {
    check_code_map_sizes(model.vocab_size, head.clusters, head.groups(), head.codes());
  } catch (const Error& error) {
    config.refuse("vq_clusters", fmt::format("is not possible: {}", error.what()));
  }
  head.map = config.text("vq_map", head.map);
  return head;
}

/// "ngram_tables": [[order, rows], ...].
std::vector<NgramTable> parse_ngram_tables(const HfSection& config) {
  constexpr const char* key = "ngram_tables";
  if (!config.has(key)) return {};
  std::vector<NgramTable> tables;
  for (const Json& pair : config.list(key)) {
    const bool numbers =
        pair.is_array() && pair.size() == 2 && pair[0].is_number_unsigned() && pair[1].is_number_unsigned();
    if (!numbers || pair[0] < 2 || pair[0] > 8 || pair[1] < 1 || pair[1] > std::numeric_limits<std::int32_t>::max())
      config.refuse(key, "must be a list of [order, rows], order from 2 to 8");
    tables.push_back({.order = pair[0].get<int>(), .rows = pair[1].get<std::int64_t>()});
  }
  return tables;
}

void append_native(nlohmann::ordered_json& json, const HfConfig& config) {
  json["auto_map"] = {{"AutoConfig", "configuration_vqlm.VqlmConfig"},
                      {"AutoModelForCausalLM", "modeling_vqlm.VqlmForCausalLM"}};
  if (config.family != "llama") json["vqlm_body"] = config.family;
  if (!config.model.ngram_tables.empty()) {
    json["ngram_tables"] = nlohmann::ordered_json::array();
    for (const NgramTable& table : config.model.ngram_tables) json["ngram_tables"].push_back({table.order, table.rows});
    json["use_cache"] = false;  // a token's rows need the tokens before it, which a cache does not keep
  }
  json["head_kind"] = word_of(kind_of(config.head));
  json["head_bias"] = has_bias(config.head);
  if (const float cap = softcap_of(config.head); cap > 0) json["head_softcap"] = hf_number(cap);
  if (const LowRankHeadConfig* const low_rank = low_rank_of(config.head)) json["head_rank"] = low_rank->rank;
  if (const AdaptiveHeadConfig* const adaptive = adaptive_of(config.head)) {
    json["head_cutoffs"] = adaptive->cutoffs;
    json["head_tail_ratio"] = adaptive->tail_ratio;
    json["vq_map_provenance"] = config.map_provenance;
  }
  const VqHeadConfig* const head = vq_of(config.head);
  if (head == nullptr) return;
  VQLM_ASSERT(!head->input_codes);  // the form has none: FoldedInputCodes
  json["vq_clusters"] = head->clusters;
  if (head->by_embedding()) {
    json["vq_members"] = word_of(MemberVectors::embedding);
    json["vq_member_mean"] = head->member_mean();
  }
  if (head->groups() > 0) {
    json["vq_groups"] = head->groups();
    json["vq_codes"] = head->codes();
  }
  json["vq_map"] = head->map;
  json["vq_map_provenance"] = config.map_provenance;
  json["vq_learning"] = word_of(static_cast<CodebookLearning>(head->learning.index()));
  if (!std::holds_alternative<GradientLearningConfig>(head->learning))
    json["vq_commitment"] = hf_number(head->commitment());
  if (const auto* ema = std::get_if<EmaLearningConfig>(&head->learning))
    json["vq_ema_decay"] = hf_number(ema->ema_decay);
}

}  // namespace

HfConfig parse_hf_config(const std::string& text, const std::string& file) {
  const Json json = Json::parse(text, nullptr, false);
  if (!json.is_object()) throw Error(fmt::format("{}: is no JSON object; the file is damaged", file));
  const HfSection section(json, file, "");
  const std::string model_type = section.text("model_type");
  HfConfig config;
  config.native = model_type == "vqlm";
  config.family = config.native ? section.text("vqlm_body", "llama") : model_type;
  config.model = parse_hf_body(section, config.family, config.native ? "vqlm_body" : "model_type");
  config.head = DenseHeadConfig{.bias = false, .softcap = section.number("final_logit_softcapping", 0)};
  if (config.native) {
    config.model.ngram_tables = parse_ngram_tables(section);
    if (softcap_of(config.head) > 0)
      section.refuse("final_logit_softcapping", "is not possible beside a head of ours: head_softcap is its cap");
    config.head = parse_native_head(section, config.model);
    config.map_provenance = section.text("vq_map_provenance", "");
  }
  config.max_positions = section.integer("max_position_embeddings", 2048);
  const bool named = json.contains("architectures") && json["architectures"].is_array() &&
                     !json["architectures"].empty() && json["architectures"][0].is_string();
  config.architecture = named ? json["architectures"][0].get<std::string>() : model_type;
  return config;
}

std::string hf_config_json(const HfConfig& config, const std::string& dtype, const HfSpecialTokens& tokens) {
  const HfFamily& family = hf_family(config.family);
  nlohmann::ordered_json json = {
      {"architectures", {config.native ? "VqlmForCausalLM" : std::string(family.architecture)}},
      {"model_type", config.native ? "vqlm" : config.family},
  };
  append_hf_body(json, config.model, family, config.max_positions);
  if (const float cap = softcap_of(config.head); cap > 0 && !config.native)
    json["final_logit_softcapping"] = hf_number(cap);  // a class that has it: HfFolder::choose_form
  json["torch_dtype"] = dtype;
  json["use_cache"] = true;
  json["bos_token_id"] = nullptr;
  json["eos_token_id"] = nullptr;
  if (tokens.bos) json["bos_token_id"] = *tokens.bos;
  if (tokens.eos) json["eos_token_id"] = *tokens.eos;
  if (config.native) append_native(json, config);
  return json.dump(2) + "\n";
}

}  // namespace vqlm
