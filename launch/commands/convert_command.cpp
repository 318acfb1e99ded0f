// vqlm convert: models between our checkpoints, Hugging Face folders, GGUF files and NumPy archives, and their heads replaced.
#include <spdlog/fmt/fmt.h>
#include <spdlog/fmt/ranges.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "core/cpu/cpu_backend.h"
#include "core/error.h"
#include "core/log.h"
#include "launch/command_line.h"
#include "launch/commands/commands.h"
#include "launch/commands/convert_text.h"
#include "launch/commands/interruptible_source.h"
#include "launch/environment.h"
#include "train/checkpoint/checkpoint_reader.h"
#include "train/models/dense_expansion.h"
#include "train/models/model_info.h"
#include "train/models/multiplied_head.h"
#include "train/models/open_model.h"
#include "train/tools/convert/gguf.h"
#include "train/tools/convert/hf_writer.h"
#include "train/tools/convert/model_checkpoint.h"
#include "train/tools/convert/npz.h"
#include "train/tools/convert/output_folder.h"
#include "train/tools/convert/vq_fit.h"

namespace vqlm {
namespace {

struct ConvertArguments {
  std::string from, input, checkpoint, to, out, info, head, dtype;
  bool expand = false;
  bool no_tokenizer = false;
  VqFitOptions fit;
  std::string members;
  ConvertTextOptions text;
};

std::string input_of(const ConvertArguments& options) {
  return options.input.empty() ? options.checkpoint : options.input;
}

/// Options that only mean something together.
void check_options(const CLI::App& command, const ConvertArguments& options) {
  const auto needs = [&](const char* option, bool met, const char* what) {
    if (command.count(option) > 0 && !met) throw UsageError(fmt::format("{}: only with {}", option, what));
  };
  if (!options.input.empty() && !options.checkpoint.empty()) {
    throw UsageError("--input and --checkpoint: name one model, --input with --from hf, else --checkpoint");
  }
  if (input_of(options).empty()) {
    throw UsageError("name a model: --from hf --input DIR, --checkpoint CKPT, or --info PATH");
  }
  needs("--from", !options.input.empty(), "--input DIR, the Hugging Face folder");
  needs("--input", !options.from.empty(), "--from hf; a checkpoint is named by --checkpoint");
  if (options.out.empty()) throw UsageError("--out: name the folder (or file, for --to npz and gguf) to write");
  if (options.from.empty() && options.to.empty() && options.head.empty()) {
    throw UsageError("say what to do with the checkpoint: --to hf, --to gguf, --to npz, or --head vq|dense");
  }
  for (const char* option : {"--members", "--clusters", "--groups", "--codes", "--seed", "--fit-tokens"}) {
    needs(option, options.head == "vq", "--head vq");
  }
  for (const char* option : {"--data", "--device"}) needs(option, !options.head.empty(), "--head vq|dense");
  for (const char* option : {"--eval-tokens", "--fit-tokens", "--seq-len"}) {
    needs(option, !options.text.data.empty(), "--data");
  }
  needs("--expand", options.to == "hf", "--to hf");
  needs("--no-tokenizer", options.to == "gguf", "--to gguf");
  needs("--dtype", options.to == "hf" || options.to == "gguf", "--to hf or gguf");
  const bool gguf = options.to == "gguf";
  const std::vector<std::string_view> dtypes = gguf ? std::vector<std::string_view>{"f32", "f16", "q8_0"}
                                                    : std::vector<std::string_view>{"float32", "bfloat16", "float16"};
  if (!options.dtype.empty() && std::find(dtypes.begin(), dtypes.end(), options.dtype) == dtypes.end()) {
    throw UsageError(
        fmt::format("--dtype {}: of --to {} it is {}", options.dtype, options.to, fmt::join(dtypes, ", ")));
  }
}

/// The sizes of the VQ head to fit. Members are rows of the embedding where they can be and nobody asked for codes.
VqFitOptions fit_options(const ConvertArguments& options, const ModelSource& source) {
  VqFitOptions fit = options.fit;
  const bool codes_asked = options.members == "codes" || fit.groups >= 0 || fit.codes > 0;
  if (options.members == "embedding" || (options.members.empty() && source.model().tie_embeddings && !codes_asked))
    fit.members = MemberVectors::embedding;
  return vq_sizes(source.model(), fit);
}

std::unique_ptr<ModelSource> fitted_head(const ConvertArguments& options, const ModelSource& source,
                                         const Environment& environment, const TextStatistics& text) {
  const VqFitOptions sizes = fit_options(options, source);
  const auto backend = make_cpu_backend(environment.threads(0));
  VqFit fit = fit_vq_head(source, sizes, text, *backend);
  const std::string members = sizes.members == MemberVectors::embedding ? "members by the embedding's rows"
                              : sizes.groups == 0                       ? "members by bias alone"
                                                  : fmt::format("{} groups of {} codes", sizes.groups, sizes.codes);
  fmt::print("vq head              {} clusters, {}, seed {}\n", sizes.clusters, members, sizes.seed);
  fmt::print("variance kept        {:.2f} % by the clusters", 100 * fit.kept_by_clusters);
  if (sizes.groups > 0) fmt::print(", {:.2f} % with the codes", 100 * fit.kept_by_codes);
  std::puts("");
  if (fit.clusters) {
    fmt::print(
        "clusters' part       {:.4f} nats of divergence to first order, {:.4f} fitted (in {} steps on {} tokens, of {} "
        "others)\n",
        fit.clusters->before, fit.clusters->after, fit.clusters->steps, fit.clusters->fitted, fit.clusters->held_back);
  }
  return std::move(fit.model);
}

/// The model with the other head, which refers to `source`.
std::unique_ptr<ModelSource> replace_head(const ConvertArguments& options, const ModelSource& source,
                                          Environment& environment) {
  const bool to_vq = options.head == "vq";
  const bool is_vq = kind_of(source.head()) == HeadKind::vq;
  const bool is_low_rank = kind_of(source.head()) == HeadKind::low_rank;
  if (adaptive_of(source.head()) != nullptr) {
    throw UsageError(fmt::format(
        "--head {}: no other head is made of an adaptive one, as that of {} is: its probabilities are of several "
        "softmaxes, which no matrix has",
        options.head, source.path().string()));
  }
  if (to_vq && is_low_rank) {
    throw UsageError(fmt::format("--head vq: is fitted to a dense head, and that of {} is low-rank: --head dense first",
                                 source.path().string()));
  }
  if (to_vq == is_vq && !is_low_rank) {
    throw UsageError(fmt::format("--head {}: the head of {} is one already{}", options.head, source.path().string(),
                                 is_vq ? "; --head dense first, for another map or other sizes" : ""));
  }
  if (const float cap = softcap_of(source.head()); cap > 0) {
    throw UsageError(fmt::format(
        "--head vq: the head of {} caps its logits (head.softcap = {}), which a VQ head does not: its scores "
        "would be of others",
        source.path().string(), cap));
  }
  if (to_vq) fit_options(options, source);  // wrong sizes are refused before anything is computed
  std::optional<ConvertText> data;
  std::optional<SourceLoss> before;
  TextStatistics text;
  if (!options.text.data.empty()) {
    data.emplace(options.text, source, to_vq ? FitClusters::yes : FitClusters::no, environment);
    before = data->loss(source);
    if (to_vq) text = data->statistics(source, *before);
  }
  std::unique_ptr<ModelSource> replaced;
  if (is_low_rank) {
    std::puts("dense head           exact: the product of the low-rank head's matrices");
    replaced = std::make_unique<MultipliedHead>(source);
  } else if (to_vq) {
    replaced = fitted_head(options, source, environment, text);
  } else {
    auto expansion = std::make_unique<DenseExpansion>(source);
    std::puts(expansion->exact() ? "dense head           exact: the probabilities are the VQ head's"
                                 : "dense head           an approximation, the VQ head's to first order in h "
                                   "(its members have vectors)");
    replaced = std::move(expansion);
  }
  if (data) data->report(*before, data->loss(*replaced));
  return replaced;
}

void write(const ConvertArguments& options, const ModelSource& source) {
  const InterruptibleSource interruptible(source);
  if (options.to == "npz") {
    write_npz(interruptible, options.out);
  } else if (options.to == "gguf") {
    GgufOptions gguf{.tokenizer = !options.no_tokenizer};
    if (!options.dtype.empty()) gguf.dtype = options.dtype;
    write_gguf(interruptible, options.out, gguf, [&] { interruptible.check(); });
  } else if (options.to == "hf") {
    HfWriteOptions hf{.expand = options.expand};
    if (!options.dtype.empty()) hf.dtype = options.dtype;
    OutputFolder folder(options.out);
    write_hf(interruptible, folder.partial(), hf);
    folder.publish();
  } else {
    write_model_checkpoint(interruptible, options.out);
  }
}

void convert(const CLI::App& command, const ConvertArguments& options) {
  refuse_launcher_ranks("convert", "run it once");
  if (!options.info.empty()) {
    if (command.count_all() > 2) throw UsageError("--info PATH: stands alone");
    std::fputs(model_info(*open_model(options.info, Verify::no)).c_str(), stdout);
    return;
  }
  check_options(command, options);
  refuse_existing(options.out);
  const auto opened = open_model(input_of(options));
  log::info("{}: {}", opened->path().string(), opened->description());
  // Our own form and NumPy's carry heads for later tokens; the others, and another head, have no place for them.
  std::optional<WithoutFutureHeads> plain;
  const int future = future_of(opened->head()).heads;
  if (future > 0 && (options.to == "hf" || options.to == "gguf" || !options.head.empty())) {
    plain.emplace(*opened);
    log::info("left out: {} head{} for later tokens (head.future), which the output head does not need", future,
              future == 1 ? "" : "s");
  }
  const ModelSource* const stored = plain ? &*plain : opened.get();
  // Neither Hugging Face's form nor another head has input codes, and none needs them.
  std::optional<FoldedInputCodes> folded;
  const VqHeadConfig* const vq = vq_of(stored->head());
  if (vq != nullptr && vq->input_codes && (options.to == "hf" || !options.head.empty())) folded.emplace(*stored);
  const ModelSource* const source = folded ? &*folded : stored;
  if (options.head.empty()) {
    write(options, *source);
  } else {
    // Only now is there something to compute: MPI is not needed to copy files.
    run_job([&](Environment& environment) { write(options, *replace_head(options, *source, environment)); });
  }
  log::info("written: {}", options.out);
}

constexpr const char* details =
    "A checkpoint is a checkpoint folder or a run folder (its newest one). What is written has no optimizer "
    "state: "
    "go on with\n"
    "`vqlm train --config OUT/config.toml --init OUT --set data.train=... --set run.dir=...`.\n"
    "docs/convert.md says more.\n"
    "Examples:\n"
    "  vqlm convert --info runs/a\n"
    "  vqlm convert --from hf --input SmolLM2-135M --out models/smol\n"
    "  vqlm convert --to hf --checkpoint runs/a --out hf/a --dtype bfloat16\n"
    "  vqlm convert --to gguf --checkpoint runs/a --out a.gguf --dtype q8_0\n"
    "  vqlm convert --to npz --checkpoint runs/a --out a.npz\n"
    "  vqlm convert --head vq --checkpoint models/smol --data 'shards/heldout-*.h5' --out models/smol-vq";

}  // namespace

void add_convert_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand("convert", "Convert models and replace their output heads");
  const auto options = std::make_shared<ConvertArguments>();
  command->add_option("--from", options->from, "hf: the model is a Hugging Face folder")->check(CLI::IsMember({"hf"}));
  command->add_option("--input", options->input, "the folder to convert from")->type_name("DIR");
  command->add_option("--checkpoint", options->checkpoint, "the checkpoint or run folder to convert")
      ->type_name("CKPT");
  command->add_option("--to", options->to, "hf, gguf, npz, or checkpoint (the default)")
      ->check(CLI::IsMember({"hf", "gguf", "npz", "checkpoint"}));
  command->add_option("--out", options->out, "what to write; it must not be there already")->type_name("PATH");
  command->add_option("--info", options->info, "print what a checkpoint or Hugging Face folder holds")
      ->type_name("PATH");
  command
      ->add_option("--head", options->head,
                   "replace the output head: vq (fitted) or dense (expanded, or multiplied out)")
      ->check(CLI::IsMember({"vq", "dense"}));
  command->add_option("--clusters", options->fit.clusters, "K (default: K + Q about 1 % of the vocabulary)")
      ->check(CLI::PositiveNumber);
  command
      ->add_option(
          "--members", options->members,
          "vectors of a cluster's members: embedding, exact inside a cluster, where the matrix is tied to it (the "
          "default there), or codes")
      ->check(CLI::IsMember({"embedding", "codes"}));
  command->add_option("--groups", options->fit.groups, "G, a divisor of the width; 0: no member codes")
      ->check(CLI::NonNegativeNumber);
  command->add_option("--codes", options->fit.codes, "Q, at most 256")->check(CLI::Range(1, 256));
  command->add_option("--seed", options->fit.seed, "of the clusters and codes")->check(CLI::NonNegativeNumber);
  command
      ->add_option("--data", options->text.data,
                   "shards: perplexity before and after --head, and statistics for fitting it")
      ->type_name("GLOB");
  command->add_option("--eval-tokens", options->text.eval_tokens, "tokens of a perplexity")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  command
      ->add_option(
          "--fit-tokens", options->text.fit_tokens,
          "tokens of --data, others than those of the perplexity, that the clusters' part of --head vq is fitted "
          "to; 0: to first order alone")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  command->add_option("--seq-len", options->text.seq_len, "tokens of a sample (default: as in training, else 512)")
      ->check(CLI::PositiveNumber);
  command->add_option(
      "--dtype", options->dtype,
      "of the tensors: float32 (the default), bfloat16 or float16 of --to hf; f32 (the default), f16 or q8_0 of "
      "--to gguf");
  command->add_flag("--no-tokenizer", options->no_tokenizer, "a GGUF file without the tokenizer, for ids alone");
  command->add_flag("--expand", options->expand,
                    "a VQ or low-rank head as the dense one that equals it, where there is one");
  add_device_option(*command, options->text.device, "auto");
  command->footer(details);
  command->callback([command, options] { convert(*command, *options); });
}

}  // namespace vqlm
