#include "train/checkpoint/checkpoint_writer.h"

#include <spdlog/fmt/fmt.h>

#include "train/checkpoint/checkpoint_folder.h"
#include "train/checkpoint/checkpoint_layout.h"
#include "train/checkpoint/checkpoint_reader.h"
#include "train/checkpoint/rank_file.h"

namespace vqlm {
namespace {

/// Writes this rank's slices of parameters and moments, each as boxes of its logical tensor.
void write_rank_file(const std::filesystem::path& folder, int rank, const CheckpointContents& contents) {
  RankFileWriter writer(folder, rank);
  const auto add = [&](const std::string& name, const Parameter& p, std::int64_t begin, Tensor values) {
    std::vector<float> host(static_cast<std::size_t>(values.numel()));
    contents.backend.copy_to_host(host.data(), values);
    std::size_t done = 0;
    for (const Box& box : boxes_of_range(p.shape, begin, begin + values.numel())) {
      const auto count = static_cast<std::size_t>(box.extent.numel());
      writer.add(name, p.global_shape, {shifted(box.offset, p.offset), box.extent},
                 std::span<const float>(host.data() + done, count));
      done += count;
    }
  };
  for (const Optimizer::OwnedSlice& slice : contents.optimizer.owned_slices()) {
    if (!contents.optimizer.is_primary(slice.parameter)) continue;
    const Parameter& p = contents.parameters.parameters()[static_cast<std::size_t>(slice.parameter)];
    const auto moment = [&](Tensor all) { return all.range(slice.moment_begin, slice.count); };
    add(p.name, p, slice.begin,
        contents.parameters.flat_values().range(p.flat_begin + slice.begin, slice.count));
    add(first_moment_prefix + p.name, p, slice.begin, moment(contents.optimizer.first_moment()));
    add(second_moment_prefix + p.name, p, slice.begin, moment(contents.optimizer.second_moment()));
  }
  writer.finish();
}

/// Removes what saves that were killed have left, and the oldest checkpoints.
void remove_old(const std::filesystem::path& folder, int keep) {
  std::vector<std::filesystem::path> unfinished;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().filename().string().find(".partial") != std::string::npos)
      unfinished.push_back(entry.path());
  }
  for (const auto& path : unfinished) std::filesystem::remove_all(path);
  if (keep == 0) return;
  std::vector<std::filesystem::path> all = list_checkpoints(folder);
  while (static_cast<int>(all.size()) > keep) {
    std::filesystem::remove_all(all.front());
    all.erase(all.begin());
  }
}

std::filesystem::path save(const std::filesystem::path& folder, const ProcessGrid& grid,
                           const CheckpointContents& contents, int keep) {
  const std::filesystem::path final_path = folder / checkpoint_name(contents.state.step);
  const std::filesystem::path partial = partial_path(final_path);
  const int rank = grid.world().rank();
  const auto wait = grid.world().expect_long_wait("writing the checkpoint " + final_path.string());
  if (rank == 0) {
    std::filesystem::remove_all(partial);
    std::filesystem::create_directories(partial);
  }
  grid.world().barrier();
  write_rank_file(partial, rank, contents);
  grid.world().barrier();
  if (rank == 0) {
    complete_checkpoint(partial, grid.world().size(),
                        {.config = to_toml(contents.config),
                         .tokenizer = contents.tokenizer,
                         .extras = {contents.map, contents.tokenizer_sha256, contents.train_tokens},
                         .state = contents.state});
    publish_checkpoint(partial, final_path);
    remove_old(folder, keep);
  }
  grid.world().barrier();
  return final_path;
}

}  // namespace

std::filesystem::path save_checkpoint(const std::filesystem::path& folder, const ProcessGrid& grid,
                                      const CheckpointContents& contents, int keep) {
  try {
    return save(folder, grid, contents, keep);
  } catch (const std::filesystem::filesystem_error& e) {
    throw Error(fmt::format(
        "{}: the checkpoint of step {} cannot be written: {}; make room, and continue with --resume "
        "from the one before",
        e.path1().string(), contents.state.step, e.code().message()));
  }
}

}  // namespace vqlm
