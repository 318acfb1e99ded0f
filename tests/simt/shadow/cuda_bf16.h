// CUDA's cuda_bf16.h serves the host compiler for types, conversions and arithmetic; what it reserves for nvcc and
// kernels use is added here. Shuffles, loads and stores of bf16 come from the templates of the shadow cuda_runtime.h.
#pragma once
#pragma GCC system_header  // #include_next is an extension

#include_next <cuda_bf16.h>

#include "tests/simt/device_builtins.h"
#include "tests/simt/device_math.h"
