#include "data/prepare/encode_pipeline.h"

#include <xxhash.h>

#include <cmath>
#include <future>
#include <thread>

#include "core/log.h"
#include "data/files/bounded_queue.h"

namespace vqlm {

namespace {

// Large enough that the queues cost nothing (about 500 C4 documents), small enough to keep all threads busy.
constexpr std::size_t batch_bytes = std::size_t{1} << 20;

/// A piece of the file on its way through an encoder.
struct Task {
  struct Raw {
    std::size_t begin = 0;
    std::size_t size = 0;
    std::uint64_t index = 0;
    std::uint64_t line = 0;
    bool too_long = false;
  };
  TextFormat format{};
  std::string bytes;
  std::vector<Raw> records;
  std::uint64_t file_bytes_read = 0;
  std::promise<EncodedBatch> promise;
};

EncodedBatch encode(const Task& task, Encoder& encoder) {
  EncodedBatch batch;
  batch.file_bytes_read = task.file_bytes_read;
  batch.records.reserve(task.records.size());
  batch.tokens.reserve(task.bytes.size() / 3);  // English: 3.4 to 4 bytes a token
  for (const Task::Raw& raw : task.records) {
    const TextReader::Record record{std::string_view(task.bytes).substr(raw.begin, raw.size), raw.line, raw.too_long};
    const DocumentParser::Result parsed = encoder.parser.parse(task.format, record);
    EncodedRecord out;
    out.index = raw.index;
    out.line = raw.line;
    out.good = parsed.good;
    out.reason = parsed.reason;
    const std::size_t before = batch.tokens.size();
    if (out.good && !encoder.texts.encode(parsed.text, batch.tokens)) {
      out.good = false;
      out.reason = BadRecord::endless_word;
    }
    if (out.good) {
      batch.tokens.push_back(encoder.eos_id);
      out.heldout = encoder.heldout.holds_out(parsed.text);
      out.token_count = batch.tokens.size() - before;
      out.text_bytes = parsed.text.size();
    }
    batch.records.push_back(out);
  }
  return batch;
}

}  // namespace

bool HeldoutRule::holds_out(std::string_view text) const {
  if (fraction <= 0) return false;
  if (fraction >= 1) return true;
  const auto bound = static_cast<std::uint64_t>(std::ldexp(fraction, 64));
  return XXH3_64bits_withSeed(text.data(), text.size(), seed) < bound;
}

struct EncodePipeline::Impl {
  Impl(const std::string& path, std::vector<RecordRange> skip_ranges, std::vector<Encoder>& encoders)
      // At most this many batches are in flight: two for every encoder, and one with the reader and the caller each.
      : reader(path, TextReader::default_max_record_bytes, encoders.front().text_field, encoders.front().documents),
        skip(std::move(skip_ranges)),
        order(2 * encoders.size() + 2),
        work(2 * encoders.size() + 2) {
    threads.reserve(encoders.size() + 1);
    threads.emplace_back([this] { read_all(); });
    for (Encoder& encoder : encoders) threads.emplace_back([this, &encoder] { encode_all(encoder); });
  }
  ~Impl() {
    order.abandon();
    work.abandon();
  }

  void read_all() {
    try {
      while (std::unique_ptr<Task> task = read_task()) {
        if (!order.push(task->promise.get_future()) || !work.push(std::move(task))) return;
      }
      if (reader.misses_separator())
        log::warn("{}: no line of it is the separator of --documents: the whole file is one document", reader.path());
    } catch (...) {
      std::promise<EncodedBatch> failed;
      failed.set_exception(std::current_exception());
      order.push(failed.get_future());
    }
    order.close();
    work.close();
  }

  /// The next records, up to batch_bytes; nothing at the end of the file.
  std::unique_ptr<Task> read_task() {
    auto task = std::make_unique<Task>();
    task->format = reader.format();
    TextReader::Record record;
    while (task->bytes.size() < batch_bytes && reader.next(record)) {
      const std::uint64_t index = next_index++;
      while (next_skip < skip.size() && index >= skip[next_skip].end) ++next_skip;
      if (next_skip < skip.size() && index >= skip[next_skip].begin) continue;
      task->records.push_back({task->bytes.size(), record.bytes.size(), index, record.line, record.too_long});
      task->bytes += record.bytes;
    }
    task->file_bytes_read = reader.file_bytes_read();
    return task->records.empty() ? nullptr : std::move(task);
  }

  void encode_all(Encoder& encoder) {
    while (auto task = work.pop()) {
      try {
        (*task)->promise.set_value(encode(**task, encoder));
      } catch (...) {
        (*task)->promise.set_exception(std::current_exception());
      }
    }
  }

  TextReader reader;
  std::vector<RecordRange> skip;
  std::size_t next_skip = 0;
  std::uint64_t next_index = 0;
  BoundedQueue<std::future<EncodedBatch>> order;  // what the caller gets, in the order of the file
  BoundedQueue<std::unique_ptr<Task>> work;
  std::vector<std::jthread> threads;  // last: they are joined before anything they use goes
};

EncodePipeline::EncodePipeline(const std::string& path, std::vector<RecordRange> skip, std::vector<Encoder>& encoders)
    : impl_(std::make_unique<Impl>(path, std::move(skip), encoders)) {}
EncodePipeline::~EncodePipeline() = default;

bool EncodePipeline::next(EncodedBatch& batch) {
  auto future = impl_->order.pop();
  if (!future) return false;
  batch = future->get();
  return true;
}

}  // namespace vqlm
