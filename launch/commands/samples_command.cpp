// vqlm samples: where the samples of a training step come from, and when a document is trained on.
#include <charconv>
#include <cstdio>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "core/home_path.h"
#include "core/log.h"
#include "data/tokenizer/tokenizer.h"
#include "launch/commands/commands.h"
#include "launch/environment.h"
#include "train/tools/samples/run_samples.h"

namespace vqlm {
namespace {

struct SamplesArguments {
  std::string run;
  std::int64_t step = 0;
  bool text = false;
  std::string where;
};

/// The tokenizers beside shards, each opened once.
class ShardTexts {
 public:
  std::string text(ShardSet& shards, const SampleDocument& part) {
    const std::string folder = std::filesystem::path(part.shard).parent_path().string();
    auto [known, is_new] = tokenizers_.try_emplace(folder);
    if (is_new) {
      if (!Tokenizer::is_in(folder))
        throw Error(fmt::format("{}: no tokenizer lies beside its shards; leave out --text", folder));
      known->second.emplace(Tokenizer::open(folder));
    }
    std::vector<std::int32_t> ids(part.tokens);
    shards.read(part.token, ids);
    return known->second->decode(ids);
  }

 private:
  std::map<std::string, std::optional<Tokenizer>> tokenizers_;
};

/// Lines of a text, each behind a bar; what would move a terminal's cursor is replaced.
std::string quoted(const std::string& text) {
  std::string lines = "      | ";
  for (const char c : text) {
    if (c == '\n') {
      lines += "\n      | ";
    } else {
      lines += static_cast<unsigned char>(c) < 0x20 && c != '\t' ? '?' : c;
    }
  }
  return lines + "\n";
}

void print_step(const SamplesArguments& options, RunSamples& run) {
  const std::uint64_t first = run.first_sample(options.step);
  const std::int64_t samples = run.step_samples(options.step);
  fmt::print("step {}: samples {} to {} of the run, {} tokens each{}\n", options.step, first,
             first + static_cast<std::uint64_t>(samples) - 1, run.config().data.seq_len,
             options.step > run.state().step ? ", still to come" : "");
  ShardTexts texts;
  for (std::int64_t i = 0; i < samples; ++i) {
    const SamplePlace place = run.place(first + static_cast<std::uint64_t>(i));
    fmt::print("sample {}: {}, epoch {}, its sample {}\n", place.position, place.source, place.sample.epoch,
               place.sample.number);
    for (const SampleDocument& part : place.documents) {
      fmt::print("    {} document {}, tokens {} to {} of the shard, from its token {}", part.shard, part.document,
                 part.shard_token, part.shard_token + part.tokens - 1, part.offset);
      if (part.record >= 0) fmt::print(": record {} of {}", part.record, part.file);
      fmt::print("\n");
      if (!options.text) continue;
      std::fputs(quoted(texts.text(run.shards(), part)).c_str(), stdout);
    }
  }
}

void print_where(const SamplesArguments& options, RunSamples& run) {
  const std::size_t colon = options.where.rfind(':');
  std::uint64_t record = 0;
  const char* const end = options.where.data() + options.where.size();
  const char* const number = colon == std::string::npos ? end : options.where.data() + colon + 1;
  const auto [parsed, status] = std::from_chars(number, end, record);
  if (number == end || status != std::errc() || parsed != end)
    throw UsageError(fmt::format("--where {}: write FILE:RECORD, for example web.jsonl.gz:1534", options.where));
  for (const RunSamples::Found& found : run.find(options.where.substr(0, colon), record)) {
    fmt::print("record {} of {}: {} document {}, {} tokens, source {}\n", record, found.file, found.shard,
               found.document, found.end_token - found.first_token, run.order().name(found.source));
    const std::vector<std::uint64_t> positions = run.positions(found);
    for (const std::uint64_t position : positions) {
      const std::int64_t step = run.step_of(position);
      fmt::print("    step {}{}: sample {}, epoch {}\n", step, step > run.state().step ? ", still to come" : "",
                 position, run.order().at(position).epoch);
    }
    if (positions.empty()) fmt::print("    in none of the run's {} steps\n", run.config().train.steps);
  }
}

void print_samples(const SamplesArguments& options) {
  if ((options.step != 0) == !options.where.empty())
    throw UsageError("samples: say --step N for a step's samples, or --where FILE:RECORD for a document's steps");
  if (options.text && !options.where.empty())
    throw UsageError("samples: --text shows a step's text: say --step with it, or leave it out");
  RunSamples run(expand_home(options.run));
  options.where.empty() ? print_step(options, run) : print_where(options, run);
}

}  // namespace

void add_samples_command(CLI::App& app) {
  CLI::App* command =
      app.add_subcommand("samples", "Where a training step's samples come from; which steps see a document");
  auto options = std::make_shared<SamplesArguments>();
  command->add_option("--run", options->run, "the run's folder")->required();
  command->add_option("--step", options->step, "a step, done or still to come, from 1");
  command->add_flag("--text", options->text, "with --step: also the text, by the tokenizer beside the shards");
  command
      ->add_option("--where", options->where,
                   "the steps that have seen or will see a record of a file that was prepared; records count from 0")
      ->type_name("FILE:RECORD");
  command->footer(
      "Nothing is stored for this: the order of samples follows from the configuration, and its inverse tells the steps. "
      "Records are\n"
      "lines of JSON lines that are not blank, rows of Parquet, documents of plain text and of ids.\n"
      "Examples:\n"
      "  vqlm samples --run runs/a --step 1200 --text\n"
      "  vqlm samples --run runs/a --where web-0007.jsonl.gz:1534");
  command->callback([options] {
    refuse_launcher_ranks("samples", "start it without mpirun");
    print_samples(*options);
  });
}

}  // namespace vqlm
