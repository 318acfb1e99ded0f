// Work on the stand-in's streams. The runtime stand-in, cuBLASLt's and NCCL's queue through enqueue(); tests steer by
// the rest.
//
// Streams are deferred: queued work runs only while the main thread waits for something (stream, event, device,
// blocking copy) or asks (cudaEventQuery, cudaStreamQuery), and then in a random order that the streams, events and
// graphs allow. What forgets a wait reads old or poisoned values under some seed.
#pragma once

#include <driver_types.h>

#include <cstddef>
#include <cstdint>
#include <functional>

namespace simt {

/// What a stream's work is. A dependent kernel (one that could begin before its predecessor's end) must have one kernel in
/// front of it in the stream and nothing else, as a graph's programmatic edges want it: the program aborts otherwise.
enum class Work : std::uint8_t { other, kernel, dependent_kernel };

/// Appends work to a stream. `poll` is called, on the main thread, once everything before it in the stream and every
/// awaited event is done, and again until it returns true; it must not block, nor call the runtime. While the stream
/// is being captured it goes into the graph instead and runs at each launch, so it must be callable again after it
/// returned true. Errors: cudaErrorInvalidResourceHandle for a stream that does not exist.
cudaError_t enqueue(cudaStream_t stream, std::function<bool()> poll, Work work = Work::other);

/// Runs what can run now, without waiting; for code that blocks on the host where a device would go on by itself.
/// Main thread only; elsewhere it does nothing. Returns true where any work was done.
bool progress();

/// Another order of streams; the environment's SIMT_SEED (and the rank that mpirun gives) choose the first.
void set_stream_seed(std::uint64_t seed);

/// The default stream (0) synchronises with others in ways that a program with several streams never wants, so work
/// on it is refused unless a test (or the environment's SIMT_DEFAULT_STREAM) allows it; it is then one more stream.
void allow_default_stream(bool allowed);

/// What cudaMemGetInfo calls total; the environment's SIMT_MEMORY ("512M") sets it, otherwise 1 GiB.
void set_memory_limit(std::size_t bytes);

/// 80 unless the environment's SIMT_COMPUTE_CAPABILITY says otherwise: 163 KiB of shared memory a block, from 90 on
/// 227 KiB.
int compute_capability();

}  // namespace simt
