// vqlm generate: text that a model goes on with.
#include <spdlog/fmt/fmt.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "core/error.h"
#include "core/log.h"
#include "launch/command_line.h"
#include "launch/commands/commands.h"
#include "launch/environment.h"
#include "train/models/loaded_model.h"
#include "train/models/open_model.h"
#include "train/tools/generate/generator.h"
#include "train/tools/generate/special_tokens.h"
#include "train/tools/generate/text_stream.h"

namespace vqlm {
namespace {

struct GenerateArguments {
  std::string checkpoint;
  std::optional<std::string> prompt;
  std::vector<std::int32_t> prompt_tokens;
  std::int64_t max_tokens = 256;
  std::int64_t context = 0;  // 0: what the model was trained on
  int samples = 1;
  SamplingOptions sampling;
  bool json = false;
  bool draft = false;
  bool no_begin = false;
  bool cut_prompt = false;
  std::optional<DeviceKind> device;
  int threads = 0;
};

using Tokens = std::vector<std::int32_t>;

/// The model's tokenizer. One that cannot be read is missed by a prompt of text alone.
std::optional<Tokenizer> load_tokenizer(const GenerateArguments& options, const ModelSource& source) {
  const std::string folder = source.path().string();
  if (source.tokenizer_files().empty() || !Tokenizer::is_in(folder)) return std::nullopt;
  try {
    return Tokenizer::open(folder);
  } catch (const Error& error) {
    if (options.prompt_tokens.empty()) throw Error(fmt::format("{}; or give --prompt-tokens 1,2,3", error.what()));
    log::info("{}; token ids come out", error.what());
    return std::nullopt;
  }
}

std::string read_standard_input() {
  if (::isatty(STDIN_FILENO) != 0) {
    throw UsageError("generate: has no prompt; give --prompt TEXT or --prompt-tokens 1,2,3, or pipe a text in");
  }
  std::string text{std::istreambuf_iterator<char>(std::cin), {}};
  if (text.ends_with('\n')) text.pop_back();  // echo's, not the writer's
  return text;
}

/// The prompt's tokens: as given, or of the text.
Tokens make_prompt(const GenerateArguments& options, const ModelSource& source, const Tokenizer* tokenizer,
                   const SpecialTokens& special) {
  if (!options.prompt_tokens.empty()) return options.prompt_tokens;
  if (tokenizer == nullptr) {
    throw UsageError(
        fmt::format("{}: has neither tokenizer.model nor tokenizer.json, and other tokenizers are not read here: give "
                    "--prompt-tokens 1,2,3, and token ids come out",
                    source.path().string()));
  }
  Tokens tokens;
  if (special.begin && !options.no_begin) {
    tokens.push_back(*special.begin);
    log::info("token {} (\"{}\") stands before the prompt", *special.begin, tokenizer->piece(*special.begin));
  }
  std::vector<std::uint32_t> ids;
  tokenizer->encode(options.prompt ? *options.prompt : read_standard_input(), ids);
  tokens.insert(tokens.end(), ids.begin(), ids.end());
  if (tokens.empty())
    throw UsageError("--prompt: is empty, and no token that begins a text stands before it; give some text");
  return tokens;
}

/// Takes away the beginning of a prompt after which --max-tokens would not fit.
void cut_prompt(const GenerateArguments& options, const ModelSource& source, Tokens& prompt) {
  const std::int64_t context = options.context > 0 ? options.context : source.seq_len();
  if (!options.cut_prompt || context == 0) return;
  const std::int64_t room = context - options.max_tokens;
  if (room <= 0) {
    throw UsageError(
        fmt::format("--cut-prompt: --max-tokens {} leaves no room for a prompt in a context of {}; give fewer of them, "
                    "or a larger --context",
                    options.max_tokens, context));
  }
  const std::int64_t extra = static_cast<std::int64_t>(prompt.size()) - room;
  if (extra <= 0) return;
  log::info("the first {} of the prompt's {} tokens are cut", extra, prompt.size());
  prompt.erase(prompt.begin(), prompt.begin() + extra);
}

/// Tokens to keep memory for: what is asked for, up to the limit.
std::int64_t context_of(const GenerateArguments& options, const ModelSource& source, std::size_t prompt) {
  const std::int64_t wanted = static_cast<std::int64_t>(prompt) + options.max_tokens;
  const std::int64_t trained = source.seq_len();
  if (options.context > 0) {
    if (trained > 0 && std::min(options.context, wanted) > trained) {
      log::warn(
          "--context {}: the model was trained on samples of {} tokens, and may say nothing sensible beyond "
          "them",
          options.context, trained);
    }
    return std::min(options.context, wanted);
  }
  return trained > 0 ? std::min(trained, wanted) : wanted;
}

/// Prints the continuations: text where the prompt was text, else ids. One is shown as it comes.
class Printer {
 public:
  Printer(const GenerateArguments& options, const Tokenizer* tokenizer, const Tokens& prompt)
      : live_(options.samples == 1 && !options.json) {
    if (tokenizer == nullptr || !options.prompt_tokens.empty()) return;
    for (int i = 0; i < options.samples; ++i) streams_.emplace_back(*tokenizer, prompt);
  }

  void add(std::size_t sequence, std::int32_t token) {
    texts_.resize(std::max(texts_.size(), sequence + 1));
    show(sequence, streams_.empty() ? (texts_[sequence].empty() ? "" : ",") + std::to_string(token)
                                    : streams_[sequence].push(token));
  }
  /// Text or ids of a finished continuation.
  const std::string& finish(std::size_t sequence) {
    texts_.resize(std::max(texts_.size(), sequence + 1));
    if (!streams_.empty()) show(sequence, streams_[sequence].finish());
    return texts_[sequence];
  }

 private:
  void show(std::size_t sequence, const std::string& text) {
    texts_[sequence] += text;
    if (!live_) return;
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
  }

  bool live_;
  std::vector<TextStream> streams_;  // none: ids
  std::vector<std::string> texts_;
};

void print_text(Printer& printer, std::size_t samples) {
  for (std::size_t b = 0; b < samples; ++b) {
    const std::string& text = printer.finish(b);
    if (samples > 1) fmt::print("--- sample {} ---\n{}", b + 1, text);
    std::fputc('\n', stdout);
  }
}

void print_json(const Tokens& prompt, const Generation& generation, Printer& printer, bool text) {
  using Json = nlohmann::json;
  Json samples = Json::array();
  for (std::size_t b = 0; b < generation.continuations.size(); ++b) {
    const Continuation& continuation = generation.continuations[b];
    Json sample{{"tokens", continuation.tokens}, {"stop", name_of(continuation.stop)}};
    if (text) sample["text"] = printer.finish(b);
    samples.push_back(sample);
  }
  const GenerationSpeed& speed = generation.speed;
  Json out{{"prompt_tokens", prompt},
           {"samples", samples},
           {"prompt_tokens_per_second", speed.prompt_tokens_per_second()},
           {"tokens_per_second", speed.tokens_per_second()},
           {"head_share", speed.head_share()}};
  if (speed.passes > 0) {
    out["draft"] = {{"passes", speed.passes},
                    {"drafted", speed.drafted},
                    {"accepted", speed.accepted},
                    {"tokens_per_pass", speed.tokens_per_pass()}};
  }
  // A model may well say bytes that are no UTF-8.
  std::puts(out.dump(2, ' ', false, Json::error_handler_t::replace).c_str());
}

void report(const Generation& generation, const Transformer& model) {
  const GenerationSpeed& speed = generation.speed;
  log::info(
      "prompt {} tokens, {:.0f} tokens/s; generated {} tokens, {:.1f} tokens/s, {:.1f} % of it in the output "
      "head",
      speed.prompt_tokens, speed.prompt_tokens_per_second(), speed.tokens, speed.tokens_per_second(),
      100 * speed.head_share());
  if (speed.passes > 0) {
    log::info("{} of {} drafted tokens accepted, {:.2f} tokens a pass", speed.accepted, speed.drafted,
              speed.tokens_per_pass());
  }
  for (std::size_t b = 0; b < generation.continuations.size(); ++b) {
    if (generation.continuations[b].stop != Stop::context) continue;
    log::warn("sample {} stopped at the context limit of {} tokens; --context N allows more", b + 1, model.context());
  }
}

/// Drafts are of one text's most probable tokens, by heads that the model has.
void check_draft(const GenerateArguments& options, const ModelSource& source) {
  if (!options.draft) return;
  if (options.sampling.temperature != 0) {
    throw UsageError(
        fmt::format("--draft: is of the most probable tokens, and --temperature {} draws others; give --temperature 0",
                    options.sampling.temperature));
  }
  if (options.samples != 1)
    throw UsageError(fmt::format("--draft: continues one text, not --samples {}", options.samples));
  if (future_of(source.head()).heads == 0) {
    throw UsageError(fmt::format(
        "--draft: {} has no heads for later tokens (head.future = 0); leave --draft out, or train with head.future = 1 or more",
        source.path().string()));
  }
}

void generate(const GenerateArguments& options, Environment& environment) {
  const auto source = open_model(options.checkpoint);
  check_draft(options, *source);
  log::info("{}: {}", source->path().string(), source->description());
  const std::optional<Tokenizer> tokenizer = load_tokenizer(options, *source);
  const Tokenizer* const pieces = tokenizer ? &*tokenizer : nullptr;
  const SpecialTokens special = special_tokens(*source, pieces);
  Tokens prompt = make_prompt(options, *source, pieces, special);
  cut_prompt(options, *source, prompt);

  Config config;
  config.model = source->model();
  const auto backend = environment.make_backend(options.device.value_or(automatic_device(config)), options.threads);
  check_device(config, backend->activation_dtype());
  const ProcessGrid grid = environment.make_grid(*backend, {.data = 1, .tensor = 1});
  constexpr std::int64_t prompt_rows = 512;  // at a time, of all samples: enough to fill a product
  const std::int64_t chunk =
      std::clamp<std::int64_t>(prompt_rows / options.samples, 1, static_cast<std::int64_t>(prompt.size()));
  const std::int64_t drafted = options.draft ? 1 + future_of(source->head()).heads : 1;
  const LoadedModel loaded = load_model(*source, *backend, grid.tensor(), {options.samples, std::max(chunk, drafted)},
                                        Purpose::generation, context_of(options, *source, prompt.size()));

  Generator generator(*backend, *loaded.transformer, source->model().vocab_size,
                      {.sampling = options.sampling, .max_tokens = options.max_tokens, .end_of_text = special.end});
  Printer printer(options, pieces, prompt);
  const auto on_token = [&](std::size_t sequence, std::int32_t token) { printer.add(sequence, token); };
  const Generation generation =
      options.draft ? generator.run_drafting(prompt, on_token)
                    : generator.run(std::vector<Tokens>(static_cast<std::size_t>(options.samples), prompt), on_token);
  if (options.json) {
    print_json(prompt, generation, printer, pieces != nullptr && options.prompt_tokens.empty());
  } else {
    print_text(printer, generation.continuations.size());
  }
  report(generation, *loaded.transformer);
}

void add_sampling_options(CLI::App& command, SamplingOptions& sampling) {
  command.add_option("--temperature", sampling.temperature,
                     "probabilities to the power 1 / temperature (default 1); 0: always the most probable token");
  command.add_option("--top-k", sampling.top_k, "only among so many most probable tokens (default 0: all)");
  command.add_option("--top-p", sampling.top_p,
                     "only among the fewest most probable tokens that make up this probability (default 1: all)");
  command.add_option("--seed", sampling.seed, "of the draws (default 0): the same words again");
}

constexpr const char* generate_details =
    "The continuation goes to standard output as it comes, everything else to standard error. A prompt of "
    "text needs "
    "the\n"
    "model's tokenizer.model or tokenizer.json and gives text; --prompt-tokens gives token ids.\n"
    "Examples:\n"
    "  vqlm generate --checkpoint runs/a --prompt 'Once upon a time' --temperature 0.8 --top-p 0.95\n"
    "  echo 'The weather today' | vqlm generate --checkpoint runs/a --temperature 0 > continuation.txt\n"
    "  vqlm generate --checkpoint hf-model --prompt-tokens 1,450,3578 --max-tokens 20 --json";

}  // namespace

void add_generate_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand("generate", "Continue a text with a trained model");
  auto options = std::make_shared<GenerateArguments>();
  command
      ->add_option("--checkpoint", options->checkpoint,
                   "a checkpoint folder, a run folder (its newest one), or a Hugging Face folder")
      ->required();
  CLI::Option* text =
      command->add_option("--prompt", options->prompt, "the text to continue (default: standard input)");
  command->add_option("--prompt-tokens", options->prompt_tokens, "its token ids instead: 1,2,3")
      ->delimiter(',')
      ->excludes(text);
  command->add_option("--max-tokens", options->max_tokens, "tokens to add at most (default 256)")
      ->check(CLI::PositiveNumber);
  command
      ->add_option("--context", options->context,
                   "prompt and continuation at most (default: the length that the model was trained on)")
      ->check(CLI::PositiveNumber);
  command->add_flag("--no-begin", options->no_begin,
                    "a text prompt without the token that begins a text in front of it");
  command->add_flag("--cut-prompt", options->cut_prompt,
                    "a prompt after which --max-tokens would not fit into the context loses its beginning");
  command->add_option("--samples", options->samples, "continuations of the same prompt (default 1)")
      ->check(CLI::Range(1, 1024));
  add_sampling_options(*command, options->sampling);
  command->add_flag(
      "--draft", options->draft,
      "the model's heads for later tokens guess ahead: the same tokens in fewer passes; with --temperature 0");
  command->add_flag("--json", options->json, "tokens, text, speed and why it stopped, as one JSON object at the end");
  add_device_option(*command, options->device, "auto, wherever the model was trained");
  command->add_option("--threads", options->threads, "threads (default: all cores)")->check(CLI::PositiveNumber);
  command->footer(generate_details);
  command->callback([options] {
    refuse_launcher_ranks("generate", "run it once, without mpirun");
    check_sampling(options->sampling);
    run_job([&](Environment& environment) { generate(*options, environment); });
  });
}

}  // namespace vqlm
