// Bulk tensor copies: cut into parts that arrive late and in any order, each with its bytes for the barrier.
#include <algorithm>
#include <cstring>

#include "tests/simt/async_units.h"
#include "tests/simt/multiprocessor.h"
#include "tests/simt/sanitizers.h"

namespace simt {
namespace {

constexpr unsigned most_parts = 4;

/// Rows of a box: all its dimensions but the first, as one.
unsigned box_rows(const TensorMap& map) {
  unsigned rows = 1;
  for (unsigned d = 1; d < map.rank; ++d) rows *= map.box[d];
  return rows;
}

}  // namespace

// visit(offset of the row in the box, its global address, elements of it inside the tensor, elements left out in front)
template <class Visit>
void AsyncUnits::for_each_row(const Copy& copy, Visit visit) {
  const TensorMap& map = copy.map;
  for (unsigned row = copy.first_row; row < copy.first_row + copy.rows; ++row) {
    unsigned rest = row;
    bool inside = true;
    const unsigned char* global = map.global;
    for (unsigned d = 1; d < map.rank; ++d) {
      const std::int64_t i = copy.at[d] + static_cast<std::int64_t>(rest % map.box[d]);
      rest /= map.box[d];
      inside = inside && i >= 0 && i < static_cast<std::int64_t>(map.extent[d]);
      if (inside) global += static_cast<std::uint64_t>(i) * map.strides[d];
    }
    const std::int64_t begin = std::max<std::int64_t>(copy.at[0], 0);
    const std::int64_t end = std::min<std::int64_t>(std::int64_t{copy.at[0]} + map.box[0], map.extent[0]);
    const std::int64_t count = inside ? std::max<std::int64_t>(end - begin, 0) : 0;
    visit(row * map.box[0] * map.element, const_cast<unsigned char*>(global) + begin * map.element,
          static_cast<unsigned>(count), static_cast<unsigned>(begin - copy.at[0]));
  }
}

void AsyncUnits::bulk_load(void* shared, const TensorMap& map, void* barrier, const int* at, int rank, Where where) {
  const TsanBlind blind;
  Mbarrier& b = find_barrier(barrier, where);
  if (map.mark != tensor_map_mark) fail_at("bulk load: not a tensor map of cuTensorMapEncodeTiled", where);
  if (static_cast<int>(map.rank) != rank) fail_at("bulk load: the tensor map has another rank", where);
  const unsigned bytes = box_rows(map) * map.box[0] * map.element;
  const unsigned offset = offset_of(address(shared, where), bytes, "bulk load", where);
  if ((base_ + offset) % 128 != 0) fail_at("bulk load: the shared address is not aligned to 128 bytes", where);
  start_load(offset, map, b, at, where);
}

void AsyncUnits::bulk_load_bytes(void* shared, const void* global, unsigned bytes, void* barrier, Where where) {
  const TsanBlind blind;
  Mbarrier& b = find_barrier(barrier, where);
  TensorMap map;  // one row of bytes
  map.global = static_cast<unsigned char*>(const_cast<void*>(global));
  map.rank = 2;
  map.element = 1;
  map.extent[0] = map.box[0] = bytes;
  map.extent[1] = map.box[1] = 1;
  const unsigned offset = offset_of(address(shared, where), bytes, "bulk load", where);
  if (bytes == 0 || (reinterpret_cast<std::uintptr_t>(global) | (base_ + offset) | bytes) % 16 != 0) {
    fail_at("bulk load: addresses and bytes are multiples of 16", where);
  }
  const int at[] = {0, 0};
  start_load(offset, map, b, at, where);
}

void AsyncUnits::start_load(unsigned offset, const TensorMap& map, Mbarrier& b, const int* at, Where where) {
  machine().check_waited("bulk load", where);
  if (!b.fenced) fail_at("bulk load: no mbarrier_init_fence behind the barrier's mbarrier_init", where);
  const unsigned rows = box_rows(map), row_bytes = map.box[0] * map.element;
  const int index = new_load();
  for (unsigned byte = 0; byte < rows * row_bytes; byte += chunk_bytes) {
    const unsigned chunk = (swizzled(base_ + offset + byte, map.swizzle) - base_) / chunk_bytes;
    check_overwrite(chunk, where);
    own_chunk(chunk, index);
    std::memset(memory(chunk * chunk_bytes), 0xff, chunk_bytes);
    std::memset(async_view_.data() + chunk * chunk_bytes, 0xff, chunk_bytes);
  }
  Load& load = loads_[static_cast<std::size_t>(index)];
  load.where = where;
  load.barrier = static_cast<int>(&b - mbarriers_.data());
  const unsigned part = (rows + most_parts - 1) / most_parts;
  for (unsigned row = 0; row < rows; row += part) {
    Copy& copy = copies_.emplace_back();
    copy.load = index;
    copy.thread = thread();
    copy.map = map;
    std::copy_n(at, map.rank, copy.at);
    copy.first_row = row;
    copy.rows = std::min(part, rows - row);
    copy.offset = offset;
    copy.where = where;
    ++load.parts;
  }
}

void AsyncUnits::bulk_store(const TensorMap& map, const void* shared, const int* at, int rank, Where where) {
  const TsanBlind blind;
  prepare_shadows();
  machine().check_waited("bulk store", where);
  if (map.mark != tensor_map_mark) fail_at("bulk store: not a tensor map of cuTensorMapEncodeTiled", where);
  if (static_cast<int>(map.rank) != rank) fail_at("bulk store: the tensor map has another rank", where);
  Copy copy;
  copy.rows = box_rows(map);
  copy.thread = thread();
  copy.map = map;
  std::copy_n(at, rank, copy.at);
  copy.where = where;
  const unsigned bytes = copy.rows * map.box[0] * map.element;
  copy.offset = offset_of(address(shared, where), bytes, "bulk store", where);
  if ((base_ + copy.offset) % 128 != 0) fail_at("bulk store: the shared address is not aligned to 128 bytes", where);
  const Knowledge reader = Knowledge().set(warp());
  for (unsigned byte = 0; byte < bytes; byte += chunk_bytes) {
    const unsigned chunk = (swizzled(base_ + copy.offset + byte, map.swizzle) - base_) / chunk_bytes;
    check_read(chunk, reader, "bulk store", where);
    copy.snapshot.insert(copy.snapshot.end(), memory(chunk * chunk_bytes), memory(chunk * chunk_bytes) + chunk_bytes);
  }
  Stores& stores = stores_[thread()];
  ++stores.open;
  copy.store_group = stores.committed;
  copies_.push_back(std::move(copy));
}

void AsyncUnits::bulk_commit() {
  const TsanBlind blind;
  prepare_shadows();
  ++stores_[thread()].committed;
}

void AsyncUnits::bulk_wait(unsigned groups) {
  const TsanBlind blind;
  prepare_shadows();
  const unsigned committed = stores_[thread()].committed, self = thread();
  for (std::size_t i = 0; i < copies_.size();) {
    const Copy& copy = copies_[i];
    if (copy.load < 0 && copy.thread == self && copy.store_group + groups < committed) {
      finish_copy(i);
    } else {
      ++i;
    }
  }
}

void AsyncUnits::finish_copy(std::size_t index) {
  const Copy copy = std::move(copies_[index]);
  copies_.erase(copies_.begin() + static_cast<std::ptrdiff_t>(index));
  const TensorMap& map = copy.map;
  const unsigned row_bytes = map.box[0] * map.element;
  // Element by element: chunks of a row may lie anywhere.
  const auto place = [&](unsigned byte) { return swizzled(base_ + copy.offset + byte, map.swizzle) - base_; };
  if (copy.load < 0) {
    for_each_row(copy, [&](unsigned at, unsigned char* global, unsigned count, unsigned skipped) {
      for (unsigned i = 0; i < count; ++i) {
        const unsigned byte = at + (skipped + i) * map.element;
        std::memcpy(global + std::size_t{i} * map.element, memory(place(byte)), map.element);
      }
    });
    for (unsigned byte = 0; byte < copy.rows * row_bytes; byte += chunk_bytes) {
      if (std::memcmp(memory(place(byte)), copy.snapshot.data() + byte, chunk_bytes) != 0) {
        fail_at("bulk store: its shared memory was changed before bulk_store_wait", copy.where);
      }
    }
    return;
  }
  for_each_row(copy, [&](unsigned at, unsigned char* global, unsigned count, unsigned skipped) {
    for (unsigned i = 0; i < map.box[0]; ++i) {
      const unsigned offset = place(at + i * map.element);
      if (i >= skipped && i - skipped < count) {
        std::memcpy(memory(offset), global + std::size_t{i - skipped} * map.element, map.element);
      } else {
        std::memset(memory(offset), 0, map.element);
      }
      std::memcpy(async_view_.data() + offset, memory(offset), map.element);
    }
  });
  Load& load = loads_[static_cast<std::size_t>(copy.load)];
  --load.parts;
  Mbarrier& barrier = mbarriers_[static_cast<std::size_t>(load.barrier)];
  barrier.bytes -= copy.rows * row_bytes;
  flip_if_complete(barrier, copy.where);
}

bool AsyncUnits::deliver() {
  const TsanBlind blind;
  if (copies_.empty()) return false;
  const Order order = machine().order;
  finish_copy(order == Order::random    ? machine().rng() % copies_.size()
              : order == Order::forward ? 0
                                        : copies_.size() - 1);
  return true;
}

}  // namespace simt
