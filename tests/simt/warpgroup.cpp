// wgmma: products of 128 threads, in flight from their issue to the wait. Sums and register operands hold a pattern of NaN
// meanwhile; shared operands must stand unchanged from issue to wait, whenever the chip reads them.
#include <algorithm>
#include <bit>
#include <cstring>

#include "tests/simt/async_units.h"
#include "tests/simt/multiprocessor.h"
#include "tests/simt/sanitizers.h"

namespace simt {
namespace {

constexpr unsigned in_flight = 0x7fc0f11e;  // a NaN that no computation gives
constexpr int group_threads = 128;

float bf16(unsigned bits) {
  return std::bit_cast<float>(bits << 16);
}

/// Row of a thread's sum e of a column group, or of element e / 2 of operand a's registers.
int row_of(int thread, int upper) {
  return thread / 32 * 16 + thread % 32 / 4 + 8 * upper;
}

}  // namespace

void AsyncUnits::meet_warpgroup(const char* name, void* operand, CompleteGroup complete, Where where) {
  come_to_warpgroup(name, operand, complete, where);
  machine().suspend(State::at_warpgroup, where);
}

void AsyncUnits::come_to_warpgroup(const char* name, void* operand, CompleteGroup complete, Where where) {
  const TsanBlind blind;
  prepare_shadows();
  Thread& self = *machine().current;
  const auto group = static_cast<std::size_t>(self.warp / 4);
  if (threads_ < (group + 1) * group_threads) {
    fail_at(std::string(name) + ": needs four whole warps, the first of them a multiple of four", where);
  }
  Warpgroup& g = groups_[group];
  if (g.arrived == 0) {
    g.complete = complete;
    g.name = name;
  }
  if (g.complete != complete) {
    fail_at(std::string(name) + ": other threads of the warpgroup wait in " + g.name, where);
  }
  g.operand[thread() % group_threads] = operand;
  if (++g.arrived == group_threads) {
    g.arrived = 0;
    (this->*complete)(static_cast<int>(group), g.operand, where);
    for (int i = 0; i < 4; ++i) {
      const int warp = static_cast<int>(group) * 4 + i;
      warp_met(warp);
      machine().make_ready(warp, 0xffffffffu);
    }
  }
}

void AsyncUnits::wgmma_fence(int group, void* const (&)[128], Where) {
  groups_[group].fenced = true;
}

// Decodes a matrix (rows, 16) as core/cuda/matrix_descriptor.h describes it, into values (rows, 16).
void AsyncUnits::read_matrix(Product& product, std::uint64_t descriptor, int rows, bool transposed, int group,
                             float* values, Where where) {
  const auto field = [&](int bit) { return static_cast<unsigned>(descriptor >> bit & 0x3fff) * 16; };
  const unsigned start = field(0), leading = field(16), stride = field(32);
  constexpr unsigned widths[] = {0, 128, 64, 32};
  const unsigned swizzle = widths[descriptor >> 62], width = swizzle == 0 ? 16 : swizzle;
  if ((descriptor >> 49 & 7) != 0) fail_at("wgmma: base offsets are not modelled, start at a whole atom", where);
  if (swizzle != 0 && (start & (swizzle * 8 - 1) & ~(swizzle - 1)) != 0) {
    fail_at("wgmma: a swizzled matrix must start in the first row of an atom, " + std::to_string(swizzle * 8) +
                " bytes aligned in shared memory",
            where);
  }
  Knowledge readers;
  for (int i = 0; i < 4; ++i) readers.set(static_cast<std::size_t>(group * 4 + i));
  const auto read = [&](unsigned address) -> const unsigned char* {
    const unsigned offset = offset_of(swizzled(address, swizzle), chunk_bytes, "wgmma", where);
    check_read(offset / chunk_bytes, readers, "wgmma", where);
    product.chunks.push_back(offset / chunk_bytes);
    ++readers_of_chunk_[offset / chunk_bytes];
    product.snapshot.insert(product.snapshot.end(), memory(offset), memory(offset) + chunk_bytes);
    return memory(offset);
  };
  std::uint16_t pack[8];
  if (!transposed) {
    for (unsigned row = 0; row < static_cast<unsigned>(rows); ++row) {
      for (unsigned half = 0; half < 2; ++half) {
        const unsigned along = half * (swizzle == 0 ? leading : chunk_bytes);
        std::memcpy(pack, read(start + row / 8 * stride + row % 8 * width + along), chunk_bytes);
        for (unsigned i = 0; i < 8; ++i) values[row * 16 + half * 8 + i] = bf16(pack[i]);
      }
    }
    return;
  }
  for (unsigned k = 0; k < 16; ++k) {
    for (unsigned chunk = 0; chunk < static_cast<unsigned>(rows) / 8; ++chunk) {
      const unsigned across = swizzle == 0
                                  ? chunk * stride + k / 8 * leading
                                  : chunk / (width / 16) * leading + chunk % (width / 16) * 16 + k / 8 * stride;
      std::memcpy(pack, read(start + across + k % 8 * width), chunk_bytes);
      for (unsigned i = 0; i < 8; ++i) values[(chunk * 8 + i) * 16 + k] = bf16(pack[i]);
    }
  }
}

void AsyncUnits::wgmma_issue(int group, void* const (&operands)[128], Where where) {
  Warpgroup& g = groups_[group];
  const auto operand = [&](int i) { return static_cast<const WgmmaOperand*>(operands[i]); };
  const WgmmaOperand& first = *operand(0);
  for (int i = 0; i < group_threads; ++i) {
    const WgmmaOperand& other = *operand(i);
    if (other.n != first.n || other.add != first.add || other.a_descriptor != first.a_descriptor ||
        other.b_descriptor != first.b_descriptor || other.b_transposed != first.b_transposed ||
        (other.a == nullptr) != (first.a == nullptr)) {
      fail_at("wgmma: the threads of the warpgroup give different shapes or descriptors", where);
    }
  }
  if (!g.fenced) fail_at("wgmma: no wgmma_fence since registers were last free to be touched", where);
  Product& product = g.products.emplace_back();
  product.commit = g.commits;
  product.where = where;
  const int n = first.n;
  static float a[64 * 16], b[256 * 16];
  if (first.a == nullptr) {
    read_matrix(product, first.a_descriptor, 64, false, group, a, where);
  } else {
    for (int i = 0; i < group_threads; ++i) {
      product.registers[i] = const_cast<unsigned*>(operand(i)->a);
      std::memcpy(product.values[i], operand(i)->a, sizeof(product.values[i]));
      for (int r = 0; r < 4; ++r) {
        float* const at = a + row_of(i, r % 2) * 16 + 2 * (i % 4) + r / 2 * 8;
        at[0] = bf16(product.values[i][r] & 0xffff);
        at[1] = bf16(product.values[i][r] >> 16);
        product.registers[i][r] = in_flight;
      }
    }
  }
  read_matrix(product, first.b_descriptor, n, first.b_transposed, group, b, where);

  auto sums = std::find_if(g.sums.begin(), g.sums.end(), [&](const Sums& s) { return s.of_thread[0] == first.c; });
  if (sums == g.sums.end()) {
    sums = g.sums.insert(g.sums.end(), Sums{});
    sums->n = n;
    sums->values.resize(static_cast<std::size_t>(64 * n));
    for (int i = 0; i < group_threads; ++i) {
      float* const c = sums->of_thread[i] = operand(i)->c;
      for (int j = 0; j < n / 2; ++j) {
        sums->values[static_cast<std::size_t>(row_of(i, j / 2 % 2) * n + j / 4 * 8 + 2 * (i % 4) + j % 2)] = c[j];
        c[j] = std::bit_cast<float>(in_flight);
      }
    }
  }
  for (int i = 0; i < group_threads; ++i) {
    if (sums->n != n || sums->of_thread[i] != operand(i)->c) {
      fail_at("wgmma: sums of a product in flight are taken up in another shape", where);
    }
  }
  sums->last_commit = g.commits;
  if (!first.add) std::fill(sums->values.begin(), sums->values.end(), 0.0f);
  static float b_rows[16][256];  // (k, column): the loop below then runs along both
  for (int k = 0; k < 16; ++k) {
    for (int column = 0; column < n; ++column) b_rows[k][column] = b[column * 16 + k];
  }
  for (int row = 0; row < 64; ++row) {
    float sum[256] = {};
    for (int k = 0; k < 16; ++k) {
      for (int column = 0; column < n; ++column) sum[column] += a[row * 16 + k] * b_rows[k][column];
    }
    float* const c = sums->values.data() + row * n;
    for (int column = 0; column < n; ++column) c[column] += sum[column];
  }
}

void AsyncUnits::wgmma_commit(int group, void* const (&)[128], Where) {
  ++groups_[group].commits;
}

void AsyncUnits::finish_product(int group, Product& product) {
  for (std::size_t i = 0; i < product.chunks.size(); ++i) {
    const unsigned chunk = product.chunks[i];
    if (std::memcmp(memory(chunk * chunk_bytes), product.snapshot.data() + i * chunk_bytes, chunk_bytes) != 0) {
      fail_at("wgmma: an operand in shared memory was changed before wgmma_wait", product.where);
    }
    --readers_of_chunk_[chunk];
    if (load_of_chunk_[chunk] < 0) continue;
    Load& load = loads_[static_cast<std::size_t>(load_of_chunk_[chunk])];
    load.was_read[group] = true;
    load.read_done[group].reset();
    for (int w = 0; w < 4; ++w) load.read_done[group].set(static_cast<std::size_t>(group * 4 + w));
  }
  if (product.registers[0] == nullptr) return;
  for (int i = 0; i < group_threads; ++i) {
    for (int r = 0; r < 4; ++r) {
      if (product.registers[i][r] != in_flight) {
        fail_at("wgmma: a register of operand a was written before wgmma_wait", product.where);
      }
      product.registers[i][r] = product.values[i][r];
    }
  }
}

void AsyncUnits::wgmma_wait(int group, void* const (&operands)[128], Where where) {
  Warpgroup& g = groups_[group];
  const unsigned left = *static_cast<const unsigned*>(operands[0]);
  const auto done = [&](unsigned commit) { return commit < g.commits && g.commits - commit > left; };
  for (Product& product : g.products) {
    if (done(product.commit)) finish_product(group, product);
  }
  std::erase_if(g.products, [&](const Product& product) { return done(product.commit); });
  for (const Sums& sums : g.sums) {
    if (!done(sums.last_commit)) continue;
    for (int i = 0; i < group_threads; ++i) {
      float* const c = sums.of_thread[i];
      for (int j = 0; j < sums.n / 2; ++j) {
        if (std::bit_cast<unsigned>(c[j]) != in_flight) {
          fail_at("wgmma: a sum was touched between its product and wgmma_wait", where);
        }
        c[j] = sums.values[static_cast<std::size_t>(row_of(i, j / 2 % 2) * sums.n + j / 4 * 8 + 2 * (i % 4) + j % 2)];
      }
    }
  }
  std::erase_if(g.sums, [&](const Sums& sums) { return done(sums.last_commit); });
  g.fenced = false;
}

void AsyncUnits::check_registers_free(const void* registers, Where where) {
  const unsigned thread_in_group = thread() % group_threads;
  const Warpgroup& g = groups_[warp() / 4];
  for (const Sums& sums : g.sums) {
    if (sums.of_thread[thread_in_group] == registers) {
      fail_at("wgmma_wait: these sums are still in flight: not committed, or the wait leaves their group out", where);
    }
  }
}

void AsyncUnits::set_registers(int group, void* const (&operands)[128], Where where) {
  Warpgroup& g = groups_[group];
  const int asked = *static_cast<const int*>(operands[0]);  // negative: fewer
  const int count = std::abs(asked);
  if (count % 8 != 0 || count < 24 || count > 256) fail_at("setmaxnreg: 24 to 256, a multiple of 8", where);
  if (g.registers_set) fail_at("setmaxnreg: the warpgroup has had its registers set before", where);
  if (asked < 0 ? count > g.registers : count < g.registers) {
    fail_at("setmaxnreg: " + std::to_string(count) + (asked < 0 ? " is more" : " is less") + " than the " +
                std::to_string(g.registers) + " that the launch gives each thread",
            where);
  }
  g.registers = count;
  g.registers_set = true;
}

}  // namespace simt
