#include "launch/commands/convert_text.h"

#include <spdlog/fmt/fmt.h>

#include "core/error.h"
#include "train/codes/corpus_map.h"
#include "train/models/loaded_model.h"

namespace vqlm {
namespace {

std::int64_t sample_length(const ConvertTextOptions& options, const ModelSource& source) {
  if (options.seq_len > 0) return options.seq_len;
  return source.seq_len() > 0 ? source.seq_len() : 512;
}

}  // namespace

ConvertText::ConvertText(const ConvertTextOptions& options, const ModelSource& source, FitClusters fit,
                         Environment& environment)
    : backend_(environment.make_backend(options.device.value_or(DeviceKind::automatic), 0)),
      shards_(options.data),
      seq_len_(sample_length(options, source)) {
  check_tokenizer(source, shards_);
  const std::int64_t fit_tokens = fit == FitClusters::yes ? options.fit_tokens : 0;
  parts_ = split_text(shards_.total_tokens(), seq_len_, options.eval_tokens, fit_tokens);
  const std::int64_t d = source.model().d_model;
  if (fit_tokens > 0 && parts_.fit_tokens < fewest_states(d)) {
    throw UsageError(fmt::format(
        "--fit-tokens {}: {} tokens of {} are for the fit, beside those of the perplexity, and it needs {} "
        "at least (the model's width is {}); name more text, or say --fit-tokens 0 for a fit to first order",
        fit_tokens, parts_.fit_tokens, shards_.glob(), fewest_states(d), d));
  }
}

SourceLoss ConvertText::loss(const ModelSource& source) {
  return measure_loss(source, *backend_, shards_, {.seq_len = seq_len_, .samples = parts_.eval_samples});
}

TextStatistics ConvertText::statistics(const ModelSource& source, const SourceLoss& before) {
  TextStatistics text;
  text.counts = count_tokens(shards_, 50'000'000);
  text.counts.resize(static_cast<std::size_t>(source.model().vocab_size), 0);  // ids that the tokenizer does not use
  text.mean_hidden = before.mean_hidden;
  if (parts_.fit_samples == 0) return text;
  SourceLoss states = measure_loss(source, *backend_, shards_,
                                   {.seq_len = seq_len_,
                                    .first_sample = parts_.eval_samples,
                                    .samples = parts_.fit_samples,
                                    .keep_hidden = KeepHidden::yes});
  text.mean_hidden = std::move(states.mean_hidden);
  text.hidden = std::move(states.hidden);
  return text;
}

void ConvertText::report(const SourceLoss& before, const SourceLoss& after) const {
  fmt::print("perplexity before    {:.3f}   (nll {:.5f}, {} tokens of {} in samples of {})\n", before.perplexity(),
             before.nll, before.tokens, shards_.glob(), seq_len_);
  fmt::print("perplexity after     {:.3f}   (nll {:.5f})\n", after.perplexity(), after.nll);
}

}  // namespace vqlm
