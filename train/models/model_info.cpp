#include "train/models/model_info.h"

#include <spdlog/fmt/fmt.h>

#include "train/config/model_text.h"
#include "train/engine/planned_model.h"

namespace vqlm {
namespace {

std::string sizes_text(const ModelConfig& model) {
  return fmt::format(
      "vocabulary {}, d {}, {} layers, {} heads ({} for keys and values), MLP {}, rope theta {}, norm eps "
      "{}{}{}",
      model.vocab_size, model.d_model, model.n_layers, model.n_heads, model.n_kv_heads, model.d_ff, model.rope_theta,
      model.norm_eps, body_text(model), model.tie_embeddings ? ", tied embedding" : "");
}

std::string parameters_text(const ModelSource& source) {
  std::int64_t all = 0;
  std::int64_t embedding = 0, tables = 0;
  for (const ModelSource::TensorInfo& tensor : source.tensors()) {
    all += tensor.shape.numel();
    if (tensor.name == "model.embed_tokens.weight") embedding = tensor.shape.numel();
    if (tensor.name.starts_with("model.ngram_tables.")) tables += tensor.shape.numel();
  }
  std::int64_t head = 0;
  for (const LogicalTensor& tensor : logical_tensors(source.model(), source.head())) {
    if (tensor.of_head) head += tensor.shape.numel();
  }
  return fmt::format("{} = {} embedding{} + {} blocks and norms + {} head", all, embedding,
                     tables > 0 ? fmt::format(" + {} input tables", tables) : "", all - embedding - tables - head, head);
}

std::string tokenizer_text(const ModelSource& source) {
  std::string names;
  for (const auto& file : source.tokenizer_files()) {
    names += (names.empty() ? "" : ", ") + file.filename().string();
  }
  const std::string identity = source.tokenizer_sha256();
  return fmt::format("{}; {}", names.empty() ? "no files" : names,
                     identity.empty() ? "nothing tells which" : "sha256 " + identity);
}

std::string run_text(const SavedRun& run, std::int64_t seq_len) {
  return fmt::format("step {}, {} samples of {} tokens, {} tokens; {}", run.state.step, run.state.samples, seq_len,
                     run.state.tokens,
                     run.has_optimizer ? "with optimizer state (train --resume)" : "no optimizer state (train --init)");
}

}  // namespace

std::string model_info(const ModelSource& source) {
  std::string text = fmt::format("{}\n", source.path().string());
  const auto line = [&](const char* what, const std::string& value) {
    text += fmt::format("{:<11} {}\n", what, value);
  };
  line("kind", source.description());
  line("sizes", sizes_text(source.model()));
  const std::optional<CodeMap> map = source.code_map();
  line("head", head_sentence(source.head()) + (map ? "; map: " + map->provenance : ""));
  line("parameters", parameters_text(source));
  line("tokenizer", tokenizer_text(source));
  if (const auto run = source.run()) line("run", run_text(*run, source.seq_len()));
  line("tensors", fmt::format("{}", source.tensors().size()));
  for (const ModelSource::TensorInfo& tensor : source.tensors()) {
    text += fmt::format("  {:<48} {:<20} {}\n", tensor.name, tensor.shape.str(), tensor.stored_as);
  }
  return text;
}

}  // namespace vqlm
