// vqlm prepare: text files, or files of ids, to token shards.
#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <string>
#include <thread>

#include "core/error.h"
#include "core/log.h"
#include "core/task_progress.h"
#include "data/prepare/prepare.h"
#include "data/prepare/prepare_folder.h"
#include "data/prepare/text_reader.h"
#include "launch/commands/commands.h"
#include "launch/environment.h"

namespace vqlm {

namespace {

constexpr const char* prepare_details =
    "Inputs: C4 as published (.json.gz), any JSON lines with a text field (.json, .jsonl, .ndjson) or plain "
    "text (.txt), "
    "each plain, .gz or .zst; Parquet (its --text-field column, by Python's pyarrow); JSON lines from a pipe (--input -). In plain text a document is what stands between two blank lines, or two lines "
    "<|endoftext|>, unless --documents says otherwise.\n"
    "Inputs that are ids already (--from-tokens): NumPy arrays of one axis (.npy), llm.c's files (.bin), "
    "Megatron-LM's pairs (.bin with .idx beside it), raw ids (--dtype uint16). --heldout-input takes the same kinds then. Without text "
    "there "
    "are no bits per byte.\n"
    "Output: train-00000.h5 ..., heldout-00000.h5 ..., the tokenizer's files, and prepare.json, which says "
    "what "
    "they were made "
    "from. The shards do not depend on --jobs. Running the same command again goes on where the last run "
    "stopped, "
    "checks every finished shard and makes damaged ones again; new inputs behind the old ones are added.\n"
    "Examples:\n"
    "  vqlm prepare --input 'c4-train.*.json.gz' --train-tokenizer 32000 --heldout 0.005 --out shards\n"
    "  vqlm prepare --input a.jsonl.zst b.txt --tokenizer sp.model --heldout-input c.jsonl --out shards\n"
    "  vqlm prepare --input 'data/*.parquet' --train-tokenizer 32000 --out shards\n"
    "  vqlm prepare --input 'books/*.txt' --documents file --tokenizer sp.model --out shards\n"
    "  vqlm prepare --from-tokens 'fineweb_*.bin' --vocab-size 50257 --eos 50256 --out shards";

/// Text a second, or ids where there is no text.
std::string rate(std::uint64_t text_bytes, std::uint64_t tokens, double seconds) {
  const auto millions = [&](std::uint64_t n) { return static_cast<double>(n) / 1e6 / std::max(seconds, 1e-3); };
  return text_bytes > 0 ? fmt::format("{:.1f} MB/s", millions(text_bytes))
                        : fmt::format("{:.1f} M tokens/s", millions(tokens));
}

/// A line that is rewritten on a terminal, a log line now and then elsewhere.
class ProgressLine {
 public:
  void show(const PrepareProgress& progress) {
    const double interval = terminal_ ? 0.2 : 15.0;
    if (progress.seconds < next_) return;
    next_ = progress.seconds + interval;
    const std::string line = describe(progress);
    if (terminal_) {
      std::fprintf(stderr, "\r\033[K%s", line.c_str());
      shown_ = true;
    } else if (progress.seconds > interval) {
      log::info("{}", line);
    }
  }
  ~ProgressLine() {
    if (shown_) std::fputs("\r\033[K", stderr);
  }

 private:
  static std::string describe(const PrepareProgress& p) {
    const double done = static_cast<double>(p.file_bytes) / std::max(1.0, static_cast<double>(p.total_file_bytes));
    const double left = done > 0 ? p.seconds * (1 - done) / done : 0;
    return fmt::format("file {}/{}  {:.1f} %  {} documents  {}  {:.0f} s, about {:.0f} s left", p.source_number,
                       p.source_count, 100 * done, p.documents, rate(p.text_bytes, p.tokens, p.seconds), p.seconds,
                       left);
  }

  bool terminal_ = stderr_is_terminal();
  bool shown_ = false;
  double next_ = 0;
};

void print_report(const PrepareReport& report, const PrepareOptions& options) {
  fmt::print("{:<10} {:>8} {:>14} {:>16} {:>18} {:>12}\n", "split", "shards", "documents", "tokens", "bytes",
             "tokens/byte");
  SplitCounts all;
  const auto row = [](const char* name, std::uint64_t shards, const SplitCounts& counts) {
    std::string bytes = "n/a", density = "n/a";
    if (counts.text_bytes > 0) {
      bytes = std::to_string(counts.text_bytes);
      density = fmt::format("{:.4f}", static_cast<double>(counts.tokens) / static_cast<double>(counts.text_bytes));
    }
    fmt::print("{:<10} {:>8} {:>14} {:>16} {:>18} {:>12}\n", name, shards, counts.documents, counts.tokens, bytes,
               density);
  };
  for (const Split split : all_splits) {
    row(name_of(split), report.shards[split], report.counts[split]);
    all += report.counts[split];
  }
  row("all", report.shards[Split::train] + report.shards[Split::heldout], all);
  std::size_t bad = 0;
  for (int i = 0; i < bad_record_count; ++i) {
    const std::size_t count = report.bad[static_cast<std::size_t>(i)];
    if (count > 0) fmt::print("skipped: {} lines: {}\n", count, describe(static_cast<BadRecord>(i)));
    bad += count;
  }
  if (bad == 0) fmt::print("skipped: none\n");
  fmt::print("{} files to {}: this run encoded {} documents in {:.1f} s ({})", report.sources, options.out,
             report.documents_encoded, report.encode_seconds,
             rate(report.text_bytes_encoded, report.tokens_encoded, report.encode_seconds));
  if (report.parts_kept > 0) fmt::print(", {} parts were finished already", report.parts_kept);
  if (!options.ids) fmt::print("\ndocuments: of plain text, {}", describe_documents(options.documents));
  fmt::print("\ntokenizer: {} ({} pieces), ready after {:.1f} s\n", report.tokenizer, report.vocab_size,
             report.tokenizer_seconds);
}

/// What came by a pipe, as a file beside the shards while they are made: it is read more than once (its hash, a sample for a
/// tokenizer, the text), and a run that was stopped can be told whether the same comes again.
class StandardInput {
 public:
  explicit StandardInput(const std::string& folder)
      : path_((std::filesystem::path(folder) / "standard-input.jsonl").string()) {
    const PrepareFolder nobody_else(folder);  // another run may be reading its own
    try {
      write();
    } catch (...) {
      remove();
      throw;
    }
  }
  StandardInput(const StandardInput&) = delete;
  StandardInput& operator=(const StandardInput&) = delete;
  ~StandardInput() { remove(); }
  const std::string& path() const { return path_; }

 private:
  void write() const {
    std::ofstream file(path_, std::ios::binary);
    std::vector<char> piece(std::size_t{1} << 20);
    while (const std::size_t n = std::fread(piece.data(), 1, piece.size(), stdin)) {
      file.write(piece.data(), static_cast<std::streamsize>(n));
      if (!file) break;
    }
    if (std::ferror(stdin) != 0) throw Error(fmt::format("standard input: cannot be read: {}", std::strerror(errno)));
    file.close();
    if (!file)
      throw Error(fmt::format("{}: cannot be written: {}; free some space, or choose another --out", path_,
                              std::strerror(errno)));
  }
  void remove() const {
    std::error_code ignored;
    std::filesystem::remove(path_, ignored);
  }

  std::string path_;
};

/// --input - becomes that file.
std::unique_ptr<StandardInput> take_standard_input(PrepareOptions& options) {
  const auto dash = std::ranges::find(options.inputs, "-");
  if (dash == options.inputs.end()) return nullptr;
  if (options.ids) throw UsageError("--from-tokens -: ids come from files; standard input is for text (--input -)");
  if (std::ranges::count(options.inputs, "-") > 1) throw UsageError("--input -: standard input can be read once");
  check(options);
  auto piped = std::make_unique<StandardInput>(options.out);
  *dash = piped->path();
  return piped;
}

void run_prepare(PrepareOptions options, bool heldout_given) {
  refuse_launcher_ranks("prepare", "run it once, and choose its threads with --jobs");
  // Held-out files of the user's own are the split; none of the training text is taken away then.
  if (!heldout_given && !options.heldout_inputs.empty()) options.heldout = 0;
  const std::unique_ptr<StandardInput> piped = take_standard_input(options);
  PrepareReport report;
  {
    ProgressLine line;
    report = prepare(options, [&](const PrepareProgress& progress) { line.show(progress); });
  }
  print_report(report, options);
}

/// CLI11 reads "-5" into an unsigned number without complaint.
std::string not_negative(const std::string& word) {
  return word.starts_with('-') ? word + " must not be negative" : std::string();
}

}  // namespace

void add_prepare_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand("prepare", "Turn text into token shards");
  command->footer(prepare_details);
  const auto options = std::make_shared<PrepareOptions>();
  options->jobs = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  command->add_option("--input", options->inputs, "Files or quoted patterns; may be repeated")->type_name("FILES");
  command
      ->add_option("--tokenizer", options->tokenizer,
                   "A SentencePiece model, a byte-level BPE tokenizer.json, or a folder with one")
      ->type_name("PATH");
  command
      ->add_option("--train-tokenizer", options->train_tokenizer,
                   "Train a BPE model of so many pieces on a sample of the inputs")
      ->type_name("PIECES");
  const std::map<std::string, TokenizerKind> kinds{{"bpe", TokenizerKind::sentencepiece},
                                                   {"byte-bpe", TokenizerKind::byte_level_bpe}};
  const CLI::Option* kind =
      command
          ->add_option("--kind", options->kind,
                       "With --train-tokenizer: bpe (a SentencePiece model, the default) or byte-bpe (tokenizer.json)")
          ->transform(CLI::CheckedTransformer(kinds));
  const auto ids = std::make_shared<TokenInputs>();
  const auto id_files = std::make_shared<std::vector<std::string>>();
  command
      ->add_option("--from-tokens", *id_files,
                   "Instead of --input: files of ids (.npy, llm.c's .bin, Megatron-LM's .bin); may be repeated")
      ->type_name("FILES");
  const CLI::Option* vocab_size =
      command
          ->add_option("--vocab-size", ids->vocab_size,
                       "With --from-tokens: ids are below this (default: what --tokenizer-files hold)")
          ->type_name("SIZE");
  const CLI::Option* eos =
      command
          ->add_option(
              "--eos", ids->eos_id,
              "With --from-tokens or a tokenizer.json: the id that ends a document; Megatron-LM's index tells them itself, "
              "and most tokenizers' files do")
          ->type_name("ID");
  const CLI::Option* tokenizer_files =
      command
          ->add_option("--tokenizer-files", ids->tokenizer_files,
                       "With --from-tokens: the folder of the ids' tokenizer, copied beside the shards")
          ->type_name("FOLDER");
  const CLI::Option* dtype =
      command
          ->add_option(
              "--dtype", ids->dtype,
              "With --from-tokens: the type of ids in files without a header (OLMo's .npy, nanoGPT's .bin): uint16, "
              "uint32, ...")
          ->type_name("TYPE");
  command->add_option("--out", options->out, "Folder of the shards")->type_name("FOLDER")->required();
  const CLI::Option* heldout = command
                                   ->add_option("--heldout", options->heldout,
                                                "Fraction of the documents to hold out, by a hash of their text "
                                                "(default 0.005, or 0 with --heldout-input)")
                                   ->type_name("FRACTION");
  command->add_option("--heldout-input", options->heldout_inputs, "Files that are held out whole; may be repeated")
      ->type_name("FILES");
  command->add_option("--seed", options->seed, "Of the held-out choice and the tokenizer's sample")
      ->capture_default_str()
      ->check(not_negative);
  command->add_option("--jobs", options->jobs, "Encoding threads")->capture_default_str();
  command->add_option("--shard-tokens", options->shard_tokens, "Begin the next shard after so many tokens")
      ->capture_default_str()
      ->check(not_negative);
  command->add_option("--max-bad-lines", options->max_bad_lines, "Skip so many bad lines before giving up")
      ->capture_default_str()
      ->check(not_negative);
  command->add_option("--text-field", options->text_field, "The member of the JSON objects that holds the text")
      ->capture_default_str();
  command
      ->add_option(
          "--documents", options->documents,
          "What a document of plain text is: file (all of it), paragraph (between blank lines), or the line that "
          "separates documents (default: between blank lines, or lines <|endoftext|> where a file has them)")
      ->type_name("file|paragraph|LINE");
  command->add_flag("--force", options->force, "Remove the shards that are in the folder first");
  command->callback([=] {
    if (id_files->empty() && vocab_size->count() + tokenizer_files->count() > 0) {
      throw UsageError("--vocab-size and --tokenizer-files belong to --from-tokens FILES; give that too");
    }
    if (id_files->empty() && dtype->count() > 0)
      throw UsageError("--dtype belongs to --from-tokens FILES; give that too");
    if (kind->count() > 0 && options->train_tokenizer == 0) {
      throw UsageError("--kind: belongs to --train-tokenizer SIZE; give that too");
    }
    if (id_files->empty() && eos->count() > 0) options->eos_id = ids->eos_id;
    if (!id_files->empty()) {
      if (!options->inputs.empty()) throw UsageError("give either --input or --from-tokens, not both");
      options->inputs = *id_files;
      options->ids = *ids;
    }
    run_prepare(*options, heldout->count() > 0);
  });
}

}  // namespace vqlm
