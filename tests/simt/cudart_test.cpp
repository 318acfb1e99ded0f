// The stand-in for the CUDA runtime: what it does in order, what it shows of work that is not ordered, what it refuses.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <thread>
#include <vector>

#include "tests/simt/streams.h"

namespace {

void ok(cudaError_t status) {
  ASSERT_EQ(status, cudaSuccess) << cudaGetErrorName(status);
}

class Cudart : public testing::Test {
 protected:
  Cudart() {
    simt::set_stream_seed(1);
    ok(cudaStreamCreateWithFlags(&first_, cudaStreamNonBlocking));
    ok(cudaStreamCreateWithFlags(&second_, cudaStreamNonBlocking));
    ok(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming));
    ok(cudaEventCreateWithFlags(&join_, cudaEventDisableTiming));
  }
  ~Cudart() override {
    ok(cudaDeviceSynchronize());
    ok(cudaStreamDestroy(first_));
    ok(cudaStreamDestroy(second_));
    ok(cudaEventDestroy(event_));
    ok(cudaEventDestroy(join_));
  }

  void queue(cudaStream_t stream, std::function<void()> work) {
    ok(simt::enqueue(stream, [work = std::move(work)] {
      work();
      return true;
    }));
  }

  cudaStream_t first_ = nullptr, second_ = nullptr;
  cudaEvent_t event_ = nullptr, join_ = nullptr;
};

TEST_F(Cudart, WorkWaitsUntilTheHostDoes) {
  int value = 0;
  queue(first_, [&] { value = 1; });
  EXPECT_EQ(value, 0);
  ok(cudaStreamSynchronize(first_));
  EXPECT_EQ(value, 1);
}

TEST_F(Cudart, AStreamKeepsItsOrderAndAnEventOrdersTwo) {
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    simt::set_stream_seed(seed);
    std::vector<int> order;
    for (int i = 0; i < 5; ++i) queue(first_, [&, i] { order.push_back(i); });
    ok(cudaEventRecord(event_, first_));
    ok(cudaStreamWaitEvent(second_, event_, 0));
    for (int i = 5; i < 9; ++i) queue(second_, [&, i] { order.push_back(i); });
    ok(cudaStreamSynchronize(second_));
    EXPECT_EQ(order, (std::vector<int>{0, 1, 2, 3, 4, 5, 6, 7, 8})) << "seed " << seed;
  }
}

TEST_F(Cudart, AMissingWaitShowsUnderSomeSeed) {
  int wrong = 0;
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    simt::set_stream_seed(seed);
    int produced = 0, seen = 0;
    for (int i = 0; i < 5; ++i) queue(first_, [&] { ++produced; });
    for (int i = 0; i < 5; ++i) queue(second_, [] {});
    queue(second_, [&] { seen = produced; });
    ok(cudaDeviceSynchronize());
    wrong += seen != 5;
  }
  EXPECT_GT(wrong, 5);
  EXPECT_LT(wrong, 45);  // and both ways round are tried
}

TEST_F(Cudart, AnEventIsForTheRecordingThatTheWaiterSaw) {
  int value = 0, seen = -1;
  ok(cudaEventRecord(event_, first_));
  ok(cudaStreamWaitEvent(second_, event_, 0));
  queue(second_, [&] { seen = value; });
  queue(first_, [&] { value = 1; });
  ok(cudaEventRecord(event_, first_));
  EXPECT_EQ(cudaEventQuery(join_), cudaSuccess) << "never recorded";
  ok(cudaEventSynchronize(event_));
  EXPECT_EQ(value, 1);
}

TEST_F(Cudart, ALoopOfQueriesEnds) {
  for (int i = 0; i < 20; ++i) queue(first_, [] {});
  ok(cudaEventRecord(event_, first_));
  EXPECT_EQ(cudaEventQuery(event_), cudaErrorNotReady);
  while (cudaEventQuery(event_) == cudaErrorNotReady) {
  }
}

TEST_F(Cudart, AnotherThreadOnlyReads) {
  std::thread::id ran_on;
  queue(first_, [&] { ran_on = std::this_thread::get_id(); });
  ok(cudaEventRecord(event_, first_));
  std::atomic<bool> asked = false;
  std::thread watchdog([&] {
    for (int i = 0; i < 100; ++i) EXPECT_EQ(cudaEventQuery(event_), cudaErrorNotReady);
    asked = true;
    while (cudaEventQuery(event_) == cudaErrorNotReady) std::this_thread::yield();
  });
  while (!asked) std::this_thread::yield();
  ok(cudaEventSynchronize(event_));
  watchdog.join();
  EXPECT_EQ(ran_on, std::this_thread::get_id());
}

TEST_F(Cudart, PendingWorkLetsOtherStreamsGoOn) {
  bool arrived = false;
  ok(simt::enqueue(first_, [&] { return arrived; }));
  queue(second_, [&] { arrived = true; });
  ok(cudaStreamSynchronize(first_));
}

TEST_F(Cudart, GraphsForkJoinAndRunAgain) {
  std::vector<int> order;
  ok(cudaStreamBeginCapture(first_, cudaStreamCaptureModeThreadLocal));
  queue(first_, [&] { order.push_back(0); });
  ok(cudaEventRecord(event_, first_));
  ok(cudaStreamWaitEvent(second_, event_, 0));
  queue(second_, [&] { order.push_back(1); });
  queue(first_, [&] { order.push_back(2); });
  ok(cudaEventRecord(join_, second_));
  ok(cudaStreamWaitEvent(first_, join_, 0));
  queue(first_, [&] { order.push_back(3); });
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  ok(cudaStreamIsCapturing(second_, &status));
  EXPECT_EQ(status, cudaStreamCaptureStatusActive);
  cudaGraph_t graph = nullptr;
  ok(cudaStreamEndCapture(first_, &graph));
  EXPECT_TRUE(order.empty()) << "captured work does not run";
  cudaGraphExec_t executable = nullptr;
  ok(cudaGraphInstantiate(&executable, graph, 0));
  ok(cudaGraphDestroy(graph));
  int second_before_first = 0;
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    simt::set_stream_seed(seed);
    order.clear();
    ok(cudaGraphLaunch(executable, first_));
    ok(cudaGraphLaunch(executable, second_));  // launches of one graph do not overlap
    ok(cudaDeviceSynchronize());
    ASSERT_EQ(order.size(), 8u);
    for (std::size_t launch = 0; launch < 8; launch += 4) {
      EXPECT_EQ(order[launch], 0);
      EXPECT_EQ(order[launch + 1] + order[launch + 2], 3);
      EXPECT_EQ(order[launch + 3], 3);
      second_before_first += order[launch + 1] == 2;
    }
  }
  EXPECT_GT(second_before_first, 0);
  EXPECT_LT(second_before_first, 40);
  ok(cudaGraphExecDestroy(executable));
}

TEST_F(Cudart, ExternalEventsAreRecordedByEachLaunch) {
  ok(cudaStreamBeginCapture(first_, cudaStreamCaptureModeThreadLocal));
  queue(first_, [] {});
  ok(cudaEventRecordWithFlags(event_, first_, cudaEventRecordExternal));
  cudaGraph_t graph = nullptr;
  ok(cudaStreamEndCapture(first_, &graph));
  cudaGraphExec_t executable = nullptr;
  ok(cudaGraphInstantiate(&executable, graph, 0));
  for (int launch = 0; launch < 3; ++launch) {
    ok(cudaGraphLaunch(executable, first_));
    EXPECT_EQ(cudaEventQuery(event_), cudaErrorNotReady);
    ok(cudaEventSynchronize(event_));
    ok(cudaStreamSynchronize(first_));
  }
  ok(cudaGraphExecDestroy(executable));
  ok(cudaGraphDestroy(graph));
}

TEST_F(Cudart, CapturesRefuseWhatCudaRefuses) {
  cudaGraph_t graph = nullptr;
  // A fork that never joins.
  ok(cudaStreamBeginCapture(first_, cudaStreamCaptureModeThreadLocal));
  ok(cudaEventRecord(event_, first_));
  ok(cudaStreamWaitEvent(second_, event_, 0));
  queue(second_, [] {});
  EXPECT_EQ(cudaStreamEndCapture(first_, &graph), cudaErrorStreamCaptureUnjoined);
  EXPECT_EQ(cudaEventQuery(event_), cudaErrorCapturedEvent);
  // Waiting for a stream under capture, which spoils it.
  ok(cudaStreamBeginCapture(first_, cudaStreamCaptureModeThreadLocal));
  EXPECT_EQ(cudaStreamSynchronize(first_), cudaErrorStreamCaptureUnsupported);
  EXPECT_EQ(cudaStreamEndCapture(first_, &graph), cudaErrorStreamCaptureInvalidated);
  // Allocating, except in relaxed mode.
  void* memory = nullptr;
  ok(cudaStreamBeginCapture(first_, cudaStreamCaptureModeThreadLocal));
  EXPECT_EQ(cudaMalloc(&memory, 16), cudaErrorStreamCaptureUnsupported);
  cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
  ok(cudaThreadExchangeStreamCaptureMode(&mode));
  EXPECT_EQ(cudaMalloc(&memory, 16), cudaSuccess);
  ok(cudaThreadExchangeStreamCaptureMode(&mode));
  ok(cudaStreamEndCapture(first_, &graph));
  ok(cudaFree(memory));
  ok(cudaGraphDestroy(graph));
}

TEST_F(Cudart, CopiesBehaveByTheirKindOfMemory) {
  int *device = nullptr, *pinned = nullptr, pageable = 7;
  ok(cudaMalloc(reinterpret_cast<void**>(&device), sizeof(int)));
  ok(cudaHostAlloc(reinterpret_cast<void**>(&pinned), sizeof(int), cudaHostAllocDefault));
  EXPECT_EQ(*device, -1) << "poisoned";
  // A pageable source is taken at once, a pinned one when its turn comes.
  ok(cudaMemcpyAsync(device, &pageable, sizeof(int), cudaMemcpyHostToDevice, first_));
  pageable = 8;
  ok(cudaStreamSynchronize(first_));
  EXPECT_EQ(*device, 7);
  *pinned = 9;
  ok(cudaMemcpyAsync(device, pinned, sizeof(int), cudaMemcpyHostToDevice, first_));
  *pinned = 10;  // too early
  ok(cudaStreamSynchronize(first_));
  EXPECT_EQ(*device, 10);
  // A pinned target is filled late; a pageable one makes the call wait.
  *pinned = 0;
  ok(cudaMemcpyAsync(pinned, device, sizeof(int), cudaMemcpyDeviceToHost, first_));
  EXPECT_EQ(*pinned, 0);
  ok(cudaMemcpyAsync(&pageable, device, sizeof(int), cudaMemcpyDeviceToHost, first_));
  EXPECT_EQ(*pinned, 10);
  EXPECT_EQ(pageable, 10);
  // A wrong direction, a range past the end.
  EXPECT_EQ(cudaMemcpyAsync(device, pinned, sizeof(int), cudaMemcpyDeviceToHost, first_), cudaErrorInvalidValue);
  EXPECT_EQ(cudaMemcpyAsync(device, pinned, 2 * sizeof(int), cudaMemcpyHostToDevice, first_), cudaErrorInvalidValue);
  EXPECT_EQ(cudaMemsetAsync(device + 1, 0, sizeof(int), first_), cudaErrorInvalidValue);
  ok(cudaMemsetAsync(device, 0, sizeof(int), first_));
  EXPECT_EQ(*device, 10);
  ok(cudaFree(device));
  ok(cudaFreeHost(pinned));
}

TEST_F(Cudart, MemoryEndsWhereTheLimitSays) {
  simt::set_memory_limit(1 << 20);
  void *first = nullptr, *second = nullptr;
  ok(cudaMallocAsync(&first, 700 << 10, first_));
  EXPECT_EQ(cudaMalloc(&second, 400 << 10), cudaErrorMemoryAllocation);
  std::size_t free = 0, total = 0;
  ok(cudaMemGetInfo(&free, &total));
  EXPECT_EQ(total, 1u << 20);
  EXPECT_EQ(free, 324u << 10);
  ok(cudaFreeAsync(first, first_));
  EXPECT_EQ(cudaFreeAsync(first, first_), cudaErrorInvalidValue) << "freed twice";
  ok(cudaMallocAsync(&second, 700 << 10, first_));  // the queued free makes room
  ok(cudaFreeAsync(second, first_));
  ok(cudaStreamSynchronize(first_));
  cudaMemPool_t pool = nullptr;
  ok(cudaDeviceGetDefaultMemPool(&pool, 0));
  unsigned long long used = 1;
  ok(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrUsedMemCurrent, &used));
  EXPECT_EQ(used, 0u);
  EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidValue);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
  simt::set_memory_limit(std::size_t{1} << 30);
}

TEST_F(Cudart, UnknownHandlesAndTheDefaultStreamAreRefused) {
  int unknown = 0;
  const auto stranger = reinterpret_cast<cudaStream_t>(&unknown);
  EXPECT_EQ(cudaStreamSynchronize(stranger), cudaErrorInvalidResourceHandle);
  EXPECT_EQ(cudaEventRecord(event_, nullptr), cudaErrorInvalidResourceHandle);
  simt::allow_default_stream(true);
  ok(cudaEventRecord(event_, nullptr));
  ok(cudaEventSynchronize(event_));
  simt::allow_default_stream(false);
}

TEST_F(Cudart, TimesBetweenEvents) {
  cudaEvent_t begin = nullptr, end = nullptr;
  ok(cudaEventCreateWithFlags(&begin, cudaEventDefault));
  ok(cudaEventCreateWithFlags(&end, cudaEventDefault));
  float milliseconds = -1;
  ok(cudaEventRecord(begin, first_));
  ok(cudaEventRecord(end, first_));
  EXPECT_EQ(cudaEventElapsedTime(&milliseconds, begin, end), cudaErrorNotReady);
  ok(cudaEventSynchronize(end));
  ok(cudaEventElapsedTime(&milliseconds, begin, end));
  EXPECT_GE(milliseconds, 0.0f);
  ok(cudaEventDestroy(begin));
  ok(cudaEventDestroy(end));
}

}  // namespace
