#include "train/checkpoint/checkpoint_snapshot.h"

#include <span>

#include "core/box.h"
#include "train/checkpoint/checkpoint_layout.h"
#include "train/checkpoint/rank_file.h"

namespace vqlm {

CheckpointSnapshot::CheckpointSnapshot(const ParameterStore& parameters, const Optimizer& optimizer) {
  for (const Optimizer::OwnedSlice& slice : optimizer.owned_slices()) {
    if (!optimizer.is_primary(slice.parameter)) continue;
    const Parameter& p = parameters.parameters()[static_cast<std::size_t>(slice.parameter)];
    add(p.name, p, slice.begin, parameters.masters(p.flat_begin + slice.begin, slice.count));
    if (p.rule != UpdateRule::gradient) continue;  // no moments
    add(first_moment_prefix + p.name, p, slice.begin, optimizer.first_moment().range(slice.moment_begin, slice.count));
    if (slice.second_begin == Optimizer::not_there) continue;
    add(second_moment_prefix + p.name, p, slice.begin,
        optimizer.second_moment().range(slice.second_begin, slice.count));
  }
}

void CheckpointSnapshot::add(const std::string& tensor, const Parameter& parameter, std::int64_t begin, Tensor source) {
  parts_.push_back({tensor, &parameter, begin, elements_, source});
  elements_ += static_cast<std::size_t>(source.numel());
}

void CheckpointSnapshot::take(Backend& backend) {
  if (!host_) host_ = std::make_unique_for_overwrite<float[]>(elements_);
  for (const Part& part : parts_) backend.copy_to_host(host_.get() + part.first, part.source);
}

void CheckpointSnapshot::write(const std::filesystem::path& folder, int rank) const {
  RankFileWriter writer(folder, rank);
  for (const Part& part : parts_) {
    const Parameter& p = *part.parameter;
    std::size_t first = part.first;
    for (const Box& box : boxes_of_range(p.shape, part.begin, part.begin + part.source.numel())) {
      const auto count = static_cast<std::size_t>(box.extent.numel());
      writer.add(part.tensor, p.global_shape, {shifted(box.offset, p.offset), box.extent},
                 std::span<const float>(host_.get() + first, count));
      first += count;
    }
  }
  writer.finish();
}

}  // namespace vqlm
