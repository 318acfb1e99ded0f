#include "train/models/loaded_model.h"

#include <spdlog/fmt/fmt.h>

#include "core/error.h"
#include "core/log.h"

namespace vqlm {

LoadedModel load_model(const ModelSource& source, Backend& backend, Communicator& tensor_group, const BatchShape& batch,
                       Purpose purpose, std::int64_t context) {
  LoadedModel loaded;
  loaded.map = source.code_map();
  loaded.transformer = std::make_unique<Transformer>(
      backend, tensor_group,
      Transformer::Options{
          .model = source.model(), .head = source.head(), .batch = batch, .purpose = purpose, .context = context},
      loaded.code_map());
  load_parameters(source, loaded.transformer->parameters());
  return loaded;
}

void check_tokenizer(const ModelSource& source, const ShardSet& shards) {
  const std::string model = source.path().string();
  if (shards.vocab_size() > source.model().vocab_size) {
    throw Error(
        fmt::format("{}: a vocabulary of {} tokens, but the model {} knows {}; prepare the text with the model's "
                    "own tokenizer, or ids of that with --vocab-size {}",
                    shards.glob(), shards.vocab_size(), model, source.model().vocab_size, source.model().vocab_size));
  }
  const std::string of_model = source.tokenizer_sha256();
  const std::string& of_shards = shards.tokenizer_sha256();
  if (of_model.empty() || of_shards.empty()) {
    log::warn("{}: nothing tells the tokenizer of {}; the loss means something only if both have the same",
              of_model.empty() ? model : shards.glob(), of_model.empty() ? "the model" : "the shards");
    return;
  }
  if (of_model == of_shards) return;
  throw Error(
      fmt::format("{}: tokenized with another tokenizer (sha256 {}) than the model {} was trained on ({}); prepare "
                  "the text with the model's own, whose files lie in {}",
                  shards.glob(), of_shards.substr(0, 12), model, of_model.substr(0, 12), model));
}

}  // namespace vqlm
