// Sizes of one micro-batch.
#pragma once

#include <cstdint>

namespace vqlm {

struct BatchShape {
  std::int64_t batch = 1;    // B sequences
  std::int64_t seq_len = 1;  // T tokens each

  std::int64_t rows() const { return batch * seq_len; }  // N
};

}  // namespace vqlm
