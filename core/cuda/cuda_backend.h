// The CUDA back end's one entry point; CMake compiles absent.cpp where it is not built.
#pragma once

#include <memory>

#include "core/backend.h"

namespace vqlm {

/// True where the program was built with CUDA.
bool cuda_built();

/// Opens GPU `device`. Throws Error where the program has no CUDA, the machine no GPU, or `device` is out of range.
std::unique_ptr<Backend> make_cuda_backend(int device);

}  // namespace vqlm
