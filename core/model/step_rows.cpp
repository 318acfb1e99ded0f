#include "core/model/step_rows.h"

#include <algorithm>

#include "core/tensor_arena.h"

namespace vqlm {

StepRows::StepRows(Backend& backend, std::int64_t micro_batches, std::int64_t tokens, std::int64_t table_rows,
                   std::int64_t width)
    : backend_(backend), table_rows_(table_rows) {
  TensorArena arena;
  arena.add(all_places_, {micro_batches, tokens}, DType::i32);
  arena.add(places_, {tokens}, DType::i32);
  storage_ = arena.allocate(backend, MemoryUse::workspace);
  const Shape most{std::min(table_rows, micro_batches * tokens), width};
  gradient_storage_ = backend.allocate(static_cast<std::size_t>(most.numel()) * sizeof(float), MemoryUse::gradients);
  gradients_ = gradient_storage_.view(most);
}

void StepRows::begin(std::span<const std::int32_t> rows) {
  VQLM_ASSERT(static_cast<std::int64_t>(rows.size()) == all_places_.numel());
  const auto is_one = [&](std::int32_t row) { return row >= 0 && row < table_rows_; };
  touched_.clear();
  std::ranges::copy_if(rows, std::back_inserter(touched_), is_one);
  std::ranges::sort(touched_);
  touched_.erase(std::ranges::unique(touched_).begin(), touched_.end());
  host_places_.clear();
  for (const std::int32_t row : rows) {
    const auto place = std::ranges::lower_bound(touched_, row) - touched_.begin();
    host_places_.push_back(is_one(row) ? static_cast<std::int32_t>(place) : -1);
  }
  backend_.copy_from_host(all_places_, host_places_.data());
  if (!touched_.empty()) backend_.fill(gradients(), 0.0f);
}

void StepRows::select(std::int64_t micro_batch) {
  backend_.copy(places_, all_places_.rows(micro_batch, 1).view(places_.shape()));
}

}  // namespace vqlm
