#include "data/prepare/part_writer.h"

#include <spdlog/fmt/fmt.h>

#include <filesystem>

#include "core/error.h"

namespace vqlm {

namespace {

/// Runs `action`; an Error gets the way out appended.
template <class Action>
void writing_shards(Action action) {
  try {
    action();
  } catch (const Error& error) {
    throw Error(fmt::format(
        "{}; finished shards are kept: free space or mend the disk, then run the same command again", error.what()));
  }
}

}  // namespace

std::string shard_name(Split split, std::uint64_t number) {
  return fmt::format("{}-{:05}.h5", name_of(split), number);
}

PartWriter::PartWriter(std::string folder, ShardMeta meta, std::uint64_t first_record,
                       PerSplit<std::uint64_t> shard_numbers)
    : folder_(std::move(folder)), meta_(std::move(meta)), shard_numbers_(shard_numbers) {
  part_.first_record = first_record;
  part_.end_record = first_record;
}

void PartWriter::add(const EncodedRecord& record, std::span<const std::uint32_t> tokens, Split split) {
  part_.end_record = record.index + 1;
  if (!record.good) {
    ++part_.bad[static_cast<std::size_t>(record.reason)];
    return;
  }
  writing_shards([&] {
    std::unique_ptr<ShardWriter>& writer = writers_[split];
    if (!writer) {
      part_.shards[split] = shard_name(split, shard_numbers_[split]);
      writer = std::make_unique<ShardWriter>((std::filesystem::path(folder_) / part_.shards[split]).string(), meta_);
    }
    writer->add_document(tokens, record.text_bytes, record.index);
  });
  part_.counts[split] += {1, tokens.size(), record.text_bytes};
}

bool PartWriter::full(std::uint64_t shard_tokens) const {
  return part_.counts[Split::train].tokens >= shard_tokens || part_.counts[Split::heldout].tokens >= shard_tokens;
}

Part PartWriter::finish() {
  writing_shards([&] {
    for (const Split split : all_splits) {
      if (writers_[split]) writers_[split]->finish();
      writers_[split].reset();
    }
  });
  return part_;
}

}  // namespace vqlm
