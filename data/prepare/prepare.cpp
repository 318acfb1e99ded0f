#include "data/prepare/prepare.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>

#include "core/error.h"
#include "core/log.h"
#include "data/files/atomic_file.h"
#include "data/prepare/part_writer.h"
#include "data/prepare/prepare_folder.h"
#include "data/prepare/tokenization.h"

namespace vqlm {

namespace {

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// One run of prepare().
class Preparation {
 public:
  Preparation(const PrepareOptions& options, const std::function<void(const PrepareProgress&)>& progress)
      : options_(options),
        report_progress_(progress),
        inputs_(find_inputs(options.inputs, options.heldout_inputs)),
        tokenization_(make_tokenization(options)),
        folder_(options.out) {}

  PrepareReport run();

 private:
  void open_manifest();

  void prepare_source(std::size_t number);
  std::map<std::uint64_t, Part> finished_parts(PreparedSource& source);
  void encode_source(PreparedSource& source, const std::map<std::uint64_t, Part>& finished);
  void store(PreparedSource& source, Part part);
  PerSplit<std::uint64_t> shards_before(const PreparedSource& source, std::uint64_t record) const;
  void count_bad(const EncodedRecord& record, const std::string& path);
  void tell_progress(std::uint64_t file_bytes);
  void summarize();

  const PrepareOptions& options_;
  const std::function<void(const PrepareProgress&)>& report_progress_;
  std::vector<PrepareInput> inputs_;
  // Before the folder is cleared by --force: the tokenizer may lie in it.
  std::unique_ptr<Tokenization> tokenization_;
  PrepareFolder folder_;
  PrepareManifest manifest_;
  ShardMeta meta_;
  PrepareReport report_;
  PrepareProgress progress_;
  std::uint64_t file_bytes_before_ = 0;  // of the sources that are done
  std::uint64_t bad_records_ = 0;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

PrepareReport Preparation::run() {
  for (const PrepareInput& input : inputs_) progress_.total_file_bytes += input.bytes;
  progress_.source_count = inputs_.size();
  open_manifest();
  meta_ = tokenization_->begin(inputs_, folder_);
  ShardOptions shard_options{meta_.tokenizer_sha256, options_.text_field,   options_.heldout,
                             options_.seed,          options_.shard_tokens, {},
                             options_.eos_id,        options_.documents};
  if (options_.ids) shard_options.ids = {meta_.vocab_size, meta_.eos_id};
  if (!manifest_.sources.empty()) {
    if (const std::string what = difference(manifest_.options, shard_options); !what.empty()) {
      throw Error(
          fmt::format("{}: its shards were made with {}; give the same options, choose another --out, or "
                      "--force to make the shards afresh",
                      options_.out, what));
    }
  }
  manifest_.options = shard_options;
  report_.tokenizer = tokenization_->write_files(folder_);
  report_.vocab_size = meta_.vocab_size;
  manifest_.save(options_.out);

  report_.tokenizer_seconds = seconds_since(start_);
  start_ = std::chrono::steady_clock::now();
  for (std::size_t i = 0; i < inputs_.size(); ++i) prepare_source(i);
  folder_.remove_unlisted(manifest_);
  summarize();
  return report_;
}

void Preparation::open_manifest() {
  if (options_.force) folder_.clear();
  if (auto found = PrepareManifest::load(options_.out)) {
    manifest_ = std::move(*found);
    check_sources(manifest_, inputs_, options_.out);
  } else if (const auto shards = folder_.shards(); !shards.empty()) {
    throw Error(
        fmt::format("{}: holds {} shards ({}, ...) but no {}, so what they were made from is not known; choose "
                    "another --out, or --force to make the shards afresh",
                    options_.out, shards.size(), shards[0], PrepareManifest::file_name));
  }
}

void Preparation::prepare_source(std::size_t number) {
  const PrepareInput& input = inputs_[number];
  progress_.source = input.path;
  progress_.source_number = number + 1;
  const SourceFile file{input.path, input.bytes, tokenization_->sha256_of_input(input.path)};
  if (number == manifest_.sources.size()) manifest_.sources.push_back({file, input.split, false, {}});
  PreparedSource& source = manifest_.sources[number];
  if (source.file.sha256 != file.sha256) {
    log::warn("{}: has changed since its shards were made; made again", input.path);
    source.complete = false;
    source.parts.clear();
  }
  source.file = file;
  meta_.sources = {file};
  const std::map<std::uint64_t, Part> finished = finished_parts(source);
  report_.parts_kept += finished.size();
  if (!source.complete || finished.size() < source.parts.size()) encode_source(source, finished);
  if (source.parts.empty()) log::warn("{}: holds no document", input.path);
  file_bytes_before_ += input.bytes;
  tell_progress(0);
}

/// The parts that need not be made again, by their first record. Parts whose shards would have other numbers now (a
/// source before them changed) are taken out of the source.
std::map<std::uint64_t, Part> Preparation::finished_parts(PreparedSource& source) {
  std::map<std::uint64_t, Part> finished;
  for (std::size_t i = 0; i < source.parts.size(); ++i) {
    const Part& part = source.parts[i];
    const PerSplit<std::uint64_t> numbers = shards_before(source, part.first_record);
    for (const Split split : all_splits) {
      if (part.shards[split].empty() || part.shards[split] == shard_name(split, numbers[split])) continue;
      log::warn("{}: its shards get other numbers from {} on; made again", source.file.path, part.shards[split]);
      source.complete = false;
      source.parts.resize(i);
      return finished;
    }
    if (!part_is_finished(part, source.file, meta_, folder_)) continue;
    for (const std::size_t bad : part.bad) bad_records_ += bad;
    finished.emplace(part.first_record, part);
  }
  return finished;
}

void Preparation::encode_source(PreparedSource& source, const std::map<std::uint64_t, Part>& finished) {
  std::vector<RecordRange> skip;
  for (const auto& [first, part] : finished) skip.push_back({first, part.end_record});
  const std::unique_ptr<RecordBatches> batches = tokenization_->open(source.file.path, skip);
  std::optional<PartWriter> writer;
  const auto close_part = [&] {
    if (writer) store(source, writer->finish());
    writer.reset();
  };
  std::uint64_t next_record = 0;
  EncodedBatch batch;
  while (batches->next(batch)) {
    std::span<const std::uint32_t> tokens(batch.tokens);
    for (const EncodedRecord& record : batch.records) {
      if (record.index != next_record) close_part();  // finished parts lie between
      next_record = record.index + 1;
      if (!writer) writer.emplace(options_.out, meta_, record.index, shards_before(source, record.index));
      const Split split = record.heldout ? Split::heldout : source.split;
      writer->add(record, tokens.first(record.token_count), split);
      tokens = tokens.subspan(record.token_count);
      if (!record.good) {
        count_bad(record, source.file.path);
        continue;
      }
      ++progress_.documents;
      progress_.tokens += record.token_count;
      progress_.text_bytes += record.text_bytes;
      if (writer->full(options_.shard_tokens)) close_part();
    }
    tell_progress(batch.file_bytes_read);
  }
  close_part();
  source.complete = true;
  manifest_.save(options_.out);
}

/// Puts a finished part in its place, over an earlier one with the same records.
void Preparation::store(PreparedSource& source, Part part) {
  ++report_.parts_made;
  auto& parts = source.parts;
  const auto place = std::find_if(parts.begin(), parts.end(),
                                  [&](const Part& other) { return other.first_record >= part.first_record; });
  if (place != parts.end() && place->first_record == part.first_record) {
    *place = std::move(part);
  } else {
    parts.insert(place, std::move(part));
  }
  manifest_.save(options_.out);
}

/// Counts the shards of each split that come before this record of the source.
PerSplit<std::uint64_t> Preparation::shards_before(const PreparedSource& source, std::uint64_t record) const {
  PerSplit<std::uint64_t> count;
  for (const PreparedSource& other : manifest_.sources) {
    for (const Part& part : other.parts) {
      if (&other == &source && part.first_record >= record) break;
      for (const Split split : all_splits) count[split] += part.shards[split].empty() ? 0 : 1;
    }
    if (&other == &source) break;
  }
  return count;
}

void Preparation::count_bad(const EncodedRecord& record, const std::string& path) {
  ++bad_records_;
  if (bad_records_ > options_.max_bad_lines) {
    throw Error(
        fmt::format("{}:{}: {}; this is bad record number {} and --max-bad-lines is {}: mend the input, or "
                    "raise the limit to skip more",
                    path, record.line, describe(record.reason), bad_records_, options_.max_bad_lines));
  }
  log::warn("{}:{}: skipped: {}", path, record.line, describe(record.reason));
}

void Preparation::tell_progress(std::uint64_t file_bytes) {
  progress_.file_bytes = file_bytes_before_ + file_bytes;
  progress_.seconds = seconds_since(start_);
  if (report_progress_) report_progress_(progress_);
}

void Preparation::summarize() {
  report_.sources = inputs_.size();
  report_.documents_encoded = progress_.documents;
  report_.tokens_encoded = progress_.tokens;
  report_.text_bytes_encoded = progress_.text_bytes;
  report_.encode_seconds = progress_.seconds;
  for (const PreparedSource& source : manifest_.sources) {
    for (const Part& part : source.parts) {
      for (const Split split : all_splits) {
        report_.counts[split] += part.counts[split];
        report_.shards[split] += part.shards[split].empty() ? 0 : 1;
      }
      for (std::size_t i = 0; i < part.bad.size(); ++i) report_.bad[i] += part.bad[i];
    }
  }
  const auto documents = [&](Split split) { return report_.counts[split].documents; };
  if (documents(Split::train) + documents(Split::heldout) == 0) {
    const std::string skipped = describe(report_.bad);
    throw Error(fmt::format(
        "no documents in {} input files{}; check {}", inputs_.size(), skipped.empty() ? "" : ", skipped " + skipped,
        options_.ids ? "--from-tokens" : "--input and, of JSON lines, --text-field " + options_.text_field));
  }
  if (options_.heldout > 0 && documents(Split::heldout) == 0) {
    log::warn("no document fell into the held-out split; raise --heldout {} or give --heldout-input", options_.heldout);
  }
}

}  // namespace

PrepareReport prepare(const PrepareOptions& options, const std::function<void(const PrepareProgress&)>& progress) {
  check(options);
  return Preparation(options, progress).run();
}

}  // namespace vqlm
