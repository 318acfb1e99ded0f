#include "data/prepare/prepare_tokenizer.h"

#include <spdlog/fmt/fmt.h>

#include <filesystem>

#include "core/error.h"
#include "core/log.h"
#include "core/task_progress.h"
#include "data/prepare/tokenizer_sample.h"
#include "data/tokenizer/byte_bpe_trainer.h"
#include "data/tokenizer/tokenizer_trainer.h"

namespace vqlm {

EncodeOptions encode_options(const PrepareOptions& options) {
  return {options.text_field, {options.heldout, options.seed}, options.documents};
}

Tokenizer trained_tokenizer(const PrepareOptions& options, const std::vector<PrepareInput>& inputs,
                            const PrepareFolder& folder) {
  const bool bytes = options.kind == TokenizerKind::byte_level_bpe;
  const std::string path = folder.file(bytes ? "tokenizer.json" : "tokenizer.model");
  if (std::filesystem::exists(path)) {
    Tokenizer tokenizer = Tokenizer::open(path);
    if (tokenizer.vocab_size() != options.train_tokenizer) {
      throw Error(
          fmt::format("{}: is already there with {} pieces, --train-tokenizer asks for {}; give that number, "
                      "choose another --out, or --force to make everything afresh",
                      path, tokenizer.vocab_size(), options.train_tokenizer));
    }
    log::info("{}: is already there with {} pieces; used again", path, tokenizer.vocab_size());
    return tokenizer;
  }
  std::vector<std::string> paths;
  for (const PrepareInput& input : inputs) {
    if (input.split == Split::train) paths.push_back(input.path);
  }
  if (paths.empty()) throw UsageError("--train-tokenizer needs an --input: held-out text is not trained on");
  SampleOptions sample;
  sample.seed = options.seed;
  sample.encode = encode_options(options);
  std::vector<std::string> documents;
  {
    TaskProgress progress("reading a sample of the inputs for the tokenizer");
    documents = sample_documents(paths, sample, [&](std::size_t done) {
      progress.set(static_cast<std::int64_t>(done), static_cast<std::int64_t>(paths.size()));
    });
  }
  log::info("training a tokenizer of {} pieces on {} documents", options.train_tokenizer, documents.size());
  TaskProgress progress(fmt::format("training a tokenizer of {} pieces", options.train_tokenizer));
  return Tokenizer::from_bytes(
      bytes ? train_byte_level_bpe(documents, options.train_tokenizer,
                                   [&](std::int64_t tokens) { progress.set(tokens, options.train_tokenizer); })
            : train_tokenizer(documents, {options.train_tokenizer, options.jobs}),
      path);
}

}  // namespace vqlm
