// vqlm score: log-probabilities of continuations and texts, for benchmarks that judge a model by them.
#include <algorithm>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <sstream>
#include <string>

#include "core/log.h"
#include "data/files/atomic_file.h"
#include "launch/command_line.h"
#include "launch/commands/commands.h"
#include "launch/environment.h"
#include "train/models/loaded_model.h"
#include "train/models/open_model.h"
#include "train/tools/generate/special_tokens.h"
#include "train/tools/score/scorer.h"

namespace vqlm {
namespace {

struct ScoreArguments {
  std::string checkpoint;
  std::string input = "-";
  std::string out;
  std::int64_t context = 0;
  std::int64_t batch = 0;
  bool begin = false;
  DeviceKind device = DeviceKind::automatic;
  int threads = 0;
};

std::optional<Tokenizer> tokenizer_of(const ModelSource& source) {
  const std::string folder = source.path().string();
  if (source.tokenizer_files().empty() || !Tokenizer::is_in(folder)) return std::nullopt;
  try {
    return Tokenizer::open(folder);
  } catch (const Error& error) {
    log::info("{}; lines must hold token ids", error.what());
    return std::nullopt;
  }
}

/// Every rank's requests are the same: they read the file each for itself.
std::vector<ScoreRequest> read_requests(const ScoreArguments& options, const ScoreReading& reading) {
  if (options.input == "-") return read_score_requests(std::cin, "standard input", reading);
  std::istringstream text(read_file(options.input));
  return read_score_requests(text, options.input, reading);
}

std::string json_line(const ScoreRequest& request, std::span<const SequenceScore> scores) {
  std::vector<double> log_probs;
  std::vector<std::int32_t> tokens;
  bool greedy = true;
  for (std::size_t i = 0; i < request.sequences.size(); ++i) {
    const ScoredSequence& sequence = request.sequences[i];
    log_probs.insert(log_probs.end(), scores[i].log_probs.begin(), scores[i].log_probs.end());
    tokens.insert(tokens.end(), sequence.tokens.begin() + static_cast<std::ptrdiff_t>(sequence.first),
                  sequence.tokens.end());
    greedy = greedy && scores[i].greedy;
  }
  const nlohmann::ordered_json json{{"logprob", std::accumulate(log_probs.begin(), log_probs.end(), 0.0)},
                                    {"greedy", greedy},
                                    {"tokens", tokens},
                                    {"logprobs", log_probs}};
  return json.dump() + "\n";
}

ScoreReading reading_of(const ScoreArguments& options, const ModelSource& source, const Tokenizer* tokenizer,
                        std::int64_t length) {
  const SpecialTokens special = special_tokens(source, tokenizer);
  ScoreReading reading{
      .vocab_size = source.model().vocab_size, .most = length, .begin_contexts = options.begin, .encode = {}};
  if (special.begin || !special.end.empty())
    reading.beginning = special.begin.value_or(special.end.empty() ? 0 : special.end.front());
  else
    log::warn("{}: nothing tells which token begins a text; token 0 stands before empty contexts",
              source.path().string());
  if (tokenizer != nullptr) {
    reading.encode = [tokenizer](const std::string& text) {
      std::vector<std::uint32_t> ids;
      tokenizer->encode(text, ids);
      return std::vector<std::int32_t>(ids.begin(), ids.end());
    };
  }
  return reading;
}

void score(const ScoreArguments& options, Environment& environment) {
  if (options.input == "-" && environment.mpi().size() > 1)
    throw UsageError("score: standard input goes to one rank only; name a file with --input");
  const auto source = open_model(options.checkpoint, environment.is_root() ? Verify::yes : Verify::no);
  const std::int64_t trained = source->seq_len() > 0 ? source->seq_len() : 512;
  const std::int64_t length = options.context > 0 ? options.context : trained;
  if (length > trained) log::warn("--context {}: the model was trained on samples of {} tokens", length, trained);
  const std::optional<Tokenizer> tokenizer = tokenizer_of(*source);
  const std::vector<ScoreRequest> requests =
      read_requests(options, reading_of(options, *source, tokenizer ? &*tokenizer : nullptr, length));
  std::vector<const ScoredSequence*> sequences;
  for (const ScoreRequest& request : requests)
    for (const ScoredSequence& sequence : request.sequences) sequences.push_back(&sequence);

  Config config;
  config.model = source->model();
  const DeviceKind device = options.device == DeviceKind::automatic ? automatic_device(config) : options.device;
  const auto backend = environment.make_backend(device, options.threads);
  check_device(config, backend->activation_dtype());
  const ProcessGrid grid = environment.make_grid(*backend, {.data = 0, .tensor = 1});
  const std::int64_t batch = options.batch > 0 ? options.batch : std::max<std::int64_t>(1, 4096 / length);
  const LoadedModel loaded = load_model(*source, *backend, grid.tensor(), {batch, length});
  Scorer scorer(*backend, grid, *loaded.transformer);
  const std::vector<SequenceScore> scores = scorer.run(sequences);
  if (!environment.is_root()) return;
  std::string lines;
  std::size_t next = 0;
  for (const ScoreRequest& request : requests) {
    lines += json_line(request, std::span(scores).subspan(next, request.sequences.size()));
    next += request.sequences.size();
  }
  log::info("{} lines, {} sequences scored", requests.size(), sequences.size());
  if (options.out.empty()) {
    std::fputs(lines.c_str(), stdout);
  } else {
    write_file_atomically(options.out, lines);
  }
}

constexpr const char* score_details =
    "A line of the input is {\"context\": TEXT, \"continuation\": TEXT}, whose continuation is scored, or {\"text\": TEXT},\n"
    "scored as a whole; with token ids in place of texts {\"context_tokens\": [...], \"continuation_tokens\": [...]} and\n"
    "{\"tokens\": [...]}. A line of the output, in the same order: logprob, the sum over the scored tokens in nats; greedy,\n"
    "whether each is the most probable one in its place; tokens; logprobs. Texts are cut as lm-evaluation-harness cuts them,\n"
    "which takes vqlm by launch/lm_eval_vqlm.py.\n"
    "Examples:\n"
    "  echo '{\"context\": \"The capital of France is\", \"continuation\": \" Paris\"}' | vqlm score --checkpoint runs/a\n"
    "  mpirun -n 4 vqlm score --checkpoint runs/a --input requests.jsonl --out scores.jsonl";

}  // namespace

void add_score_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand("score", "Log-probabilities of given texts, alone or under mpirun");
  auto options = std::make_shared<ScoreArguments>();
  command
      ->add_option("--checkpoint", options->checkpoint,
                   "a checkpoint, a run folder (its newest one), or a Hugging Face folder")
      ->required();
  command->add_option("--input", options->input, "JSON lines (default: -, standard input)")->type_name("FILE");
  command->add_option("--out", options->out, "the file to write (default: standard output)")->type_name("FILE");
  command
      ->add_option("--context", options->context,
                   "tokens of a sample (default: as in training; 512 where no run tells)")
      ->check(CLI::PositiveNumber);
  command->add_option("--batch", options->batch, "samples of that length at a time (default: 4,096 tokens)")
      ->check(CLI::Range(1, 4096));
  command->add_flag("--begin", options->begin, "the token that begins a text stands before every context");
  add_device_option(*command, options->device);
  command->add_option("--threads", options->threads, "threads of a rank (default: its share of the cores)")
      ->check(CLI::PositiveNumber);
  command->footer(score_details);
  command->callback([options] { run_job([&](Environment& environment) { score(*options, environment); }); });
}

}  // namespace vqlm
