#include "data/prepare/prepare_manifest.h"

#include <spdlog/fmt/fmt.h>
#include <xxhash.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "data/files/atomic_file.h"
#include "data/files/json_number.h"

namespace vqlm {

namespace {

using nlohmann::json;

constexpr const char* manifest_format = "vqlm-prepare";
constexpr int manifest_version = 1;
constexpr const char* left_out = "automatic";  // --documents
/// Absent from files written before November 2026. A record number that damage turned into another would shift the text of
/// the next shard, and nothing else would notice.
constexpr const char* hash_name = "xxh3";

std::string text_of(const json& manifest) {
  // Paths are bytes, JSON is UTF-8: replace what is not.
  return manifest.dump(1, ' ', false, json::error_handler_t::replace);
}

/// XXH3-64 in hex of everything but the hash itself.
std::string hash_of(json manifest) {
  manifest.erase(hash_name);
  const std::string text = text_of(manifest);
  return fmt::format("{:016x}", XXH3_64bits(text.data(), text.size()));
}

json to_json(const Part& part, bool text) {
  json out = {{"records", {part.first_record, part.end_record}}, {"bad_records", part.bad}};
  for (const Split split : all_splits) {
    if (part.shards[split].empty()) continue;
    const SplitCounts& counts = part.counts[split];
    out[name_of(split)] = {{"shard", part.shards[split]}, {"documents", counts.documents}, {"tokens", counts.tokens}};
    if (text) out[name_of(split)]["text_bytes"] = counts.text_bytes;
  }
  return out;
}

Part part_from(const json& in, bool text) {
  Part part;
  part.first_record = whole_number<std::uint64_t>(in.at("records").at(0));
  part.end_record = whole_number<std::uint64_t>(in.at("records").at(1));
  const json& bad = in.at("bad_records");  // shorter where an earlier version knew fewer reasons
  for (std::size_t i = 0; i < std::min(part.bad.size(), bad.size()); ++i) {
    part.bad[i] = whole_number<std::size_t>(bad.at(i));
  }
  for (const Split split : all_splits) {
    if (!in.contains(name_of(split))) continue;
    const json& shard = in.at(name_of(split));
    part.shards[split] = shard.at("shard");
    part.counts[split] = {whole_number<std::uint64_t>(shard.at("documents")),
                          whole_number<std::uint64_t>(shard.at("tokens")),
                          text ? whole_number<std::uint64_t>(shard.at("text_bytes")) : 0};
  }
  return part;
}

json to_json(const PreparedSource& source, bool text) {
  json parts = json::array();
  for (const Part& part : source.parts) parts.push_back(to_json(part, text));
  return {{"path", source.file.path},       {"bytes", source.file.bytes},  {"sha256", source.file.sha256},
          {"split", name_of(source.split)}, {"complete", source.complete}, {"parts", std::move(parts)}};
}

PreparedSource source_from(const json& in, bool text) {
  PreparedSource source;
  source.file = {in.at("path"), whole_number<std::uint64_t>(in.at("bytes")), in.at("sha256")};
  source.split = in.at("split") == name_of(Split::heldout) ? Split::heldout : Split::train;
  source.complete = in.at("complete");
  for (const json& part : in.at("parts")) source.parts.push_back(part_from(part, text));
  return source;
}

std::string path_in(const std::string& folder) {
  return (std::filesystem::path(folder) / PrepareManifest::file_name).string();
}

}  // namespace

std::string path_in_manifest(const std::string& path) {
  return json::parse(text_of(path)).get<std::string>();
}

SplitCounts& SplitCounts::operator+=(const SplitCounts& other) {
  documents += other.documents;
  tokens += other.tokens;
  text_bytes += other.text_bytes;
  return *this;
}

std::optional<PrepareManifest> PrepareManifest::load(const std::string& folder) {
  const std::string path = path_in(folder);
  const auto damaged = [&](const std::exception& why) {
    return Error(fmt::format("{}: is damaged ({}); choose another --out, or --force to make the shards afresh", path,
                             why.what()));
  };
  if (!std::filesystem::exists(path)) return std::nullopt;
  try {
    const json in = json::parse(read_file(path));
    if (in.at("format") != manifest_format || in.at("version") != manifest_version) {
      throw Error(
          fmt::format("{}: was written by another version of vqlm; choose another --out, or --force to "
                      "make the shards afresh",
                      path));
    }
    if (in.contains(hash_name) && in.at(hash_name) != hash_of(in)) {
      throw damaged(Error("it does not match its own hash"));
    }
    PrepareManifest manifest;
    const json& options = in.at("options");
    manifest.options = {options.at("tokenizer_sha256"),
                        options.at("text_field"),
                        options.at("heldout"),
                        whole_number<std::uint64_t>(options.at("seed")),
                        whole_number<std::uint64_t>(options.at("shard_tokens")),
                        {},
                        {},
                        {}};
    if (options.contains("eos_id")) manifest.options.eos_id = whole_number<std::int64_t>(options.at("eos_id"));
    // Shards of earlier versions were made without a choice.
    if (const std::string cut = options.value("documents", left_out); cut != left_out) manifest.options.documents = cut;
    if (options.contains("ids")) {
      const json& ids = options.at("ids");
      manifest.options.ids = {whole_number<std::int64_t>(ids.at("vocab_size")),
                              whole_number<std::int64_t>(ids.at("eos_id"))};
    }
    for (const json& source : in.at("sources")) {
      manifest.sources.push_back(source_from(source, !manifest.options.ids));
    }
    return manifest;
  } catch (const json::exception& error) {
    throw damaged(error);
  } catch (const NotWholeNumber& error) {
    throw damaged(error);
  }
}

void PrepareManifest::save(const std::string& folder) const {
  json list = json::array();
  for (const PreparedSource& source : sources) list.push_back(to_json(source, !options.ids));
  json out = {{"format", manifest_format},
              {"version", manifest_version},
              {"options",
               {{"tokenizer_sha256", options.tokenizer_sha256},
                {"text_field", options.text_field},
                {"heldout", options.heldout},
                {"seed", options.seed},
                {"shard_tokens", options.shard_tokens}}},
              {"sources", std::move(list)}};
  if (options.eos_id) out["options"]["eos_id"] = *options.eos_id;
  if (!options.ids) out["options"]["documents"] = options.documents.empty() ? left_out : options.documents;
  if (options.ids) {
    out["options"]["ids"] = {{"vocab_size", options.ids->vocab_size}, {"eos_id", options.ids->eos_id}};
  }
  out[hash_name] = hash_of(out);
  write_file_atomically(path_in(folder), text_of(out) + "\n");
}

std::string difference(const ShardOptions& before, const ShardOptions& now) {
  if (before.ids.has_value() != now.ids.has_value()) {
    return before.ids ? "--from-tokens, here --input" : "--input, here --from-tokens";
  }
  if (before.ids && before.ids->vocab_size != now.ids->vocab_size) {
    return fmt::format("--vocab-size {}, here {}", before.ids->vocab_size, now.ids->vocab_size);
  }
  if (before.ids && before.ids->eos_id != now.ids->eos_id) {
    return fmt::format("--eos {}, here {} (-1 is none)", before.ids->eos_id, now.ids->eos_id);
  }
  if (before.tokenizer_sha256 != now.tokenizer_sha256) {
    return fmt::format(
        "the tokenizer with sha256 {:.12}, here {:.12} (its file, tokenizer.model or tokenizer.json, is another, or damaged)",
        before.tokenizer_sha256, now.tokenizer_sha256);
  }
  if (before.eos_id != now.eos_id) {
    const auto shown = [](const std::optional<std::int64_t>& id) { return id ? std::to_string(*id) : "left out"; };
    return fmt::format("--eos {}, here {}", shown(before.eos_id), shown(now.eos_id));
  }
  if (before.text_field != now.text_field) {
    return fmt::format("--text-field {}, here {}", before.text_field, now.text_field);
  }
  if (before.documents != now.documents) {
    const auto shown = [](const std::string& documents) { return documents.empty() ? "left out" : documents; };
    return fmt::format("--documents {}, here {}", shown(before.documents), shown(now.documents));
  }
  if (before.heldout != now.heldout) return fmt::format("--heldout {}, here {}", before.heldout, now.heldout);
  if (before.seed != now.seed) return fmt::format("--seed {}, here {}", before.seed, now.seed);
  if (before.shard_tokens != now.shard_tokens) {
    return fmt::format("--shard-tokens {}, here {}", before.shard_tokens, now.shard_tokens);
  }
  return "";
}

}  // namespace vqlm
