#include "tests/simt/warp_operations.h"

#include <bit>
#include <cstdint>

namespace simt {
namespace {

constexpr unsigned all_lanes = 0xffffffffu;

float low_bf16(unsigned pair) {
  return std::bit_cast<float>(pair << 16);
}
float high_bf16(unsigned pair) {
  return std::bit_cast<float>(pair & 0xffff0000u);
}
std::uint16_t half(const unsigned (&row)[4], int column) {
  return static_cast<std::uint16_t>(row[column / 2] >> (column % 2 * 16));
}

void complete_shuffle(void* const (&operands)[32], unsigned lanes) {
  for (int lane = 0; lane < 32; ++lane) {
    if ((lanes >> lane & 1) == 0) continue;
    auto* mine = static_cast<ShuffleOperand*>(operands[lane]);
    const auto* source = static_cast<const ShuffleOperand*>(operands[mine->source & 31]);
    mine->result = source == nullptr ? ~std::uint64_t{0} : source->value;
  }
}

void complete_vote(void* const (&operands)[32], unsigned lanes) {
  unsigned ballot = 0;
  for (int lane = 0; lane < 32; ++lane) {
    if ((lanes >> lane & 1) != 0 && static_cast<VoteOperand*>(operands[lane])->predicate) ballot |= 1u << lane;
  }
  for (int lane = 0; lane < 32; ++lane) {
    if ((lanes >> lane & 1) == 0) continue;
    static_cast<VoteOperand*>(operands[lane])->ballot = ballot;
    static_cast<VoteOperand*>(operands[lane])->lanes = lanes;
  }
}

void check_whole(unsigned lanes) {
  if (lanes != all_lanes) fail("a tensor core operation needs all 32 lanes of the warp", Where::current());
}

void complete_ldmatrix(void* const (&operands)[32], unsigned lanes) {
  check_whole(lanes);
  for (int lane = 0; lane < 32; ++lane) {
    const int g = lane / 4, t = lane % 4;
    for (int matrix = 0; matrix < 4; ++matrix) {
      static_cast<LdmatrixOperand*>(operands[lane])->registers[matrix] =
          static_cast<const LdmatrixOperand*>(operands[matrix * 8 + g])->row[t];
    }
  }
}

void complete_ldmatrix_trans(void* const (&operands)[32], unsigned lanes) {
  check_whole(lanes);
  for (int lane = 0; lane < 32; ++lane) {
    const int g = lane / 4, t = lane % 4;
    for (int matrix = 0; matrix < 4; ++matrix) {
      const auto* upper = static_cast<const LdmatrixOperand*>(operands[matrix * 8 + 2 * t]);
      const auto* lower = static_cast<const LdmatrixOperand*>(operands[matrix * 8 + 2 * t + 1]);
      static_cast<LdmatrixOperand*>(operands[lane])->registers[matrix] =
          half(upper->row, g) | static_cast<unsigned>(half(lower->row, g)) << 16;
    }
  }
}

void complete_mma(void* const (&operands)[32], unsigned lanes) {
  check_whole(lanes);
  float a[16][16];  // (row, k)
  float b[16][8];   // (k, column)
  for (int lane = 0; lane < 32; ++lane) {
    const int g = lane / 4, t = lane % 4;
    const auto* operand = static_cast<const MmaOperand*>(operands[lane]);
    for (int i = 0; i < 4; ++i) {
      a[g + i % 2 * 8][2 * t + i / 2 * 8] = low_bf16(operand->a[i]);
      a[g + i % 2 * 8][2 * t + i / 2 * 8 + 1] = high_bf16(operand->a[i]);
    }
    for (int i = 0; i < 2; ++i) {
      b[2 * t + i * 8][g] = low_bf16(operand->b[i]);
      b[2 * t + i * 8 + 1][g] = high_bf16(operand->b[i]);
    }
  }
  for (int row = 0; row < 16; ++row) {
    float c[8] = {};
    for (int k = 0; k < 16; ++k) {
      for (int column = 0; column < 8; ++column) c[column] += a[row][k] * b[k][column];
    }
    for (int column = 0; column < 8; ++column) {
      const auto* owner = static_cast<const MmaOperand*>(operands[row % 8 * 4 + column / 2]);
      owner->c[row / 8 * 2 + column % 2] += c[column];
    }
  }
}

}  // namespace

void shuffle(ShuffleOperand& operand, unsigned mask, Where where) {
  warp_operation(mask, &operand, complete_shuffle, where);
}

VoteOperand vote(unsigned mask, bool predicate, Where where) {
  VoteOperand operand{predicate, 0, 0};
  warp_operation(mask, &operand, complete_vote, where);
  return operand;
}

void ldmatrix(LdmatrixOperand& operand, Transposed transposed, Where where) {
  warp_operation(all_lanes, &operand, transposed == Transposed::yes ? complete_ldmatrix_trans : complete_ldmatrix,
                 where);
}

void mma_bf16_16816(MmaOperand& operand, Where where) {
  warp_operation(all_lanes, &operand, complete_mma, where);
}

}  // namespace simt
