// Reductions in rank order, in the precision of NCCL's: bf16 in fp32, rounded once.
#pragma once

#include <nccl.h>

#include <cstddef>
#include <vector>

namespace nccl_standin {

bool can_reduce(ncclDataType_t dtype, ncclRedOp_t op);
/// out (n) = blocks[0] op blocks[1] op ...; out may be one of the blocks.
void reduce(void* out, const std::vector<const void*>& blocks, std::size_t n, ncclDataType_t dtype, ncclRedOp_t op);

}  // namespace nccl_standin
