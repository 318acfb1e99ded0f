// Work on the stand-in's streams. The runtime stand-in, cuBLASLt's and NCCL's queue through this one function.
#pragma once

#include <driver_types.h>

#include <functional>

namespace simt {

/// Appends work to a stream. `poll` is called, on the main thread, once everything before it in the stream and every
/// awaited event is done, and again until it returns true; it must not block. While the stream is being captured, it
/// goes into the graph instead and runs at each launch of it, so it must be callable again after it returned true.
/// Errors: cudaErrorInvalidResourceHandle for a destroyed or unknown stream.
cudaError_t enqueue(cudaStream_t stream, std::function<bool()> poll);

}  // namespace simt
