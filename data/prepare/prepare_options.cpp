#include "data/prepare/prepare_options.h"

#include <spdlog/fmt/fmt.h>

#include "core/error.h"
#include "data/prepare/text_reader.h"

namespace vqlm {

namespace {

void check(const TokenInputs& ids) {
  constexpr std::int64_t most = std::int64_t{1} << 31;
  if (ids.vocab_size == 0 && ids.tokenizer_files.empty()) {
    throw UsageError("--from-tokens needs --vocab-size or --tokenizer-files: the ids alone do not tell the vocabulary");
  }
  if (ids.vocab_size < 0 || ids.vocab_size > most) {
    throw UsageError(fmt::format("--vocab-size {}: must be from 1 to 2^31", ids.vocab_size));
  }
  if (ids.eos_id && (*ids.eos_id < 0 || *ids.eos_id >= most)) {
    throw UsageError(fmt::format("--eos {}: must be an id of the vocabulary", *ids.eos_id));
  }
}

}  // namespace

void check(const PrepareOptions& options) {
  if (options.inputs.empty() && options.heldout_inputs.empty()) throw UsageError("give at least one --input");
  check_documents(options.documents);
  if (options.ids && !options.documents.empty())
    throw UsageError(
        fmt::format("--documents {}: is for plain text; ids (--from-tokens) are cut by --eos", options.documents));
  if (options.out.empty()) throw UsageError("give the folder of the shards with --out");
  if (options.ids) {
    check(*options.ids);
    if (!options.tokenizer.empty() || options.train_tokenizer != 0) {
      throw UsageError("--from-tokens takes ids as they are: leave out --tokenizer and --train-tokenizer");
    }
  } else if (options.tokenizer.empty() == (options.train_tokenizer == 0)) {
    throw UsageError("give either --tokenizer MODEL or --train-tokenizer SIZE");
  }
  if (options.eos_id && options.tokenizer.empty()) {
    throw UsageError("--eos: a trained tokenizer has its own end of text; leave the option out");
  }
  if (options.train_tokenizer < 0) {
    throw UsageError(
        fmt::format("--train-tokenizer {}: the number of pieces must be positive", options.train_tokenizer));
  }
  if (!(options.heldout >= 0 && options.heldout < 1)) {
    throw UsageError(fmt::format("--heldout {}: must be a fraction in [0, 1), for example 0.005", options.heldout));
  }
  if (options.jobs < 1 || options.jobs > 1024) {
    throw UsageError(
        fmt::format("--jobs {}: must be from 1 to 1024; more than the machine's cores gain nothing", options.jobs));
  }
  if (options.shard_tokens < 1) throw UsageError("--shard-tokens 0: must be at least 1");
}

}  // namespace vqlm
