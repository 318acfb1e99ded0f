#include <gmock/gmock.h>

#include <chrono>

#include "core/cuda/context.h"
#include "core/cuda/cuda_check.h"
#include "core/cuda/handles.h"
#include "tests/cuda/op_testing_cuda.h"

namespace vqlm::testing {
namespace {

using cuda::cuda_check;
using ::testing::HasSubstr;

std::string message_of(const std::function<void()>& work) {
  try {
    work();
  } catch (const Error& error) {
    return error.what();
  }
  ADD_FAILURE() << "no Error";
  return "";
}

class CudaBackendTest : public CudaOpTest {
 protected:
  std::size_t in_use(MemoryUse use) const { return device->memory().in_use[static_cast<std::size_t>(use)]; }
  std::size_t peak(MemoryUse use) const { return device->memory().peak[static_cast<std::size_t>(use)]; }
};

// ---- devices --------------------------------------------------------------------------------------------------------

TEST_F(CudaBackendTest, IsAGpu) {
  EXPECT_TRUE(cuda_built());
  EXPECT_FALSE(device->host_accessible());
  EXPECT_EQ(device->activation_dtype(), DType::bf16);
  EXPECT_THAT(device->description(), HasSubstr("cuda:0 "));
}

TEST_F(CudaBackendTest, DevicesAreDescribed) {
  ASSERT_GE(cuda_device_count(), 1);
  EXPECT_EQ(why_no_cuda_device(), "");
  const CudaDevice first = cuda_device(0);
  EXPECT_FALSE(first.name.empty());
  EXPECT_EQ(first.pci.size(), std::string("0000:1b:00.0").size());
  EXPECT_GE(first.compute_capability, 80);
  EXPECT_GT(first.multiprocessors, 0);
  EXPECT_GE(first.shared_memory_per_block, std::size_t{99} << 10);
  ASSERT_EQ(first.peers.size(), static_cast<std::size_t>(cuda_device_count()));
  EXPECT_TRUE(first.peers[0]);
}

TEST_F(CudaBackendTest, AMissingDeviceIsNamed) {
  const std::string message = message_of([] { make_cuda_backend(99); });
  EXPECT_THAT(message, HasSubstr("GPU 99 asked for"));
  EXPECT_THAT(message, HasSubstr("sees " + std::to_string(cuda_device_count())));
  EXPECT_THAT(message, HasSubstr("CUDA_VISIBLE_DEVICES"));
}

// ---- memory ---------------------------------------------------------------------------------------------------------

TEST_F(CudaBackendTest, TheAccountFollowsBuffers) {
  const std::size_t before = in_use(MemoryUse::optimizer), peak_before = device->memory().peak_total;
  {
    const Buffer a = device->allocate(1000, MemoryUse::optimizer);
    Buffer b = device->allocate(500, MemoryUse::optimizer);
    EXPECT_EQ(in_use(MemoryUse::optimizer), before + 1500);
    b = Buffer();
    EXPECT_EQ(in_use(MemoryUse::optimizer), before + 1000);
  }
  EXPECT_EQ(in_use(MemoryUse::optimizer), before);
  EXPECT_EQ(peak(MemoryUse::optimizer), before + 1500);
  EXPECT_EQ(device->memory().peak_total, peak_before + 1500);
}

TEST_F(CudaBackendTest, BlocksAreAligned) {
  std::vector<Buffer> blocks;
  for (const std::size_t bytes : {0, 1, 63, 1000, 5'000'000}) {
    blocks.push_back(device->allocate(bytes, MemoryUse::workspace));
    ASSERT_NE(blocks.back().data(), nullptr) << bytes;
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(blocks.back().data()) % 256, 0u) << bytes;
  }
}

TEST_F(CudaBackendTest, OutOfMemoryNamesWhatWasAskedAndWhatShrinksIt) {
  const Buffer parameters = device->allocate(std::size_t{3} << 20, MemoryUse::parameters);
  const std::string message = message_of([this] { device->allocate(std::size_t{1} << 50, MemoryUse::activations); });
  for (const char* words : {"cuda:0", "1.02e+03 TiB of activations asked for", " free", "parameters 3 MiB",
                            "train.micro_batch", "data.seq_len", "parallel.tensor", "head.kind"}) {
    EXPECT_THAT(message, HasSubstr(words));
  }
  EXPECT_EQ(message.find('\n'), std::string::npos);
  EXPECT_EQ(in_use(MemoryUse::activations), 0u);
  // The device goes on.
  DeviceArray x = output({100}, DType::f32);
  device->fill(x, 2);
  expect_equal(x.download(), HostF32({100}, 2.0f), "x");
}

TEST_F(CudaBackendTest, FreedMemoryIsThereAgain) {
  const CudaMemory memory = cuda_memory(0);
  EXPECT_GE(memory.pool_reserved, memory.pool_used);
  // More than the device has, in turn.
  const std::size_t piece = memory.free / 3;
  for (int i = 0; i < 4; ++i) {
    const Buffer a = device->allocate(piece, MemoryUse::activations);
    EXPECT_GE(cuda_memory(0).pool_used, piece);
  }
}

// ---- copies ---------------------------------------------------------------------------------------------------------

TEST_F(CudaBackendTest, CopiesOfEverySizeArrive) {
  // Around the staging blocks of 4 MiB.
  for (const std::int64_t bytes : {0, 1, 4095, (4 << 20) - 1, 4 << 20, (4 << 20) + 1, 13 << 20}) {
    std::vector<std::uint8_t> source(static_cast<std::size_t>(bytes)), back(source.size(), 0);
    for (std::size_t i = 0; i < source.size(); ++i) source[i] = static_cast<std::uint8_t>(i * 2654435761u >> 13);
    const std::vector<std::uint8_t> kept = source;
    const Buffer a = device->allocate(source.size(), MemoryUse::workspace);
    const Buffer b = device->allocate(source.size(), MemoryUse::workspace);
    device->copy_from_host(a.view({bytes}, DType::u8), source.data());
    std::fill(source.begin(), source.end(), std::uint8_t{0xee});  // the source is free once the call is back
    device->copy(b.view({bytes}, DType::u8), a.view({bytes}, DType::u8));
    device->copy_to_host(back.data(), b.view({bytes}, DType::u8));
    EXPECT_TRUE(back == kept) << bytes;
  }
}

TEST_F(CudaBackendTest, CopiesComeInOrderWithOps) {
  DeviceArray x = output({1000}, DType::f32);
  const DeviceArray ones = bf16(HostF32({1, 1000}, 1.0f));
  HostF32 seen({1000});
  for (int round = 0; round < 20; ++round) {
    const HostF32 ours({1000}, static_cast<float>(round));
    device->copy_from_host(x, ours.values().data());
    device->run(AddColumnSums{.out = x, .x = ones});
    device->copy_to_host(seen.tensor().data(), x);
    expect_equal(seen, HostF32({1000}, 1.0f + static_cast<float>(round)), "round " + std::to_string(round));
  }
}

// ---- order ----------------------------------------------------------------------------------------------------------

TEST_F(CudaBackendTest, AnotherStreamWaitsForAnEvent) {
  const cuda::DeviceStream other;
  const Stream second{other.get()};
  for (int round = 0; round < 20; ++round) {
    DeviceArray x = output({50'000}, DType::f32), y = output({50'000}, DType::f32);
    device->fill(x, static_cast<float>(round));
    device->wait(second, device->record(device->compute_stream()));
    const Tensor from = x, to = y;
    cuda_check(cudaMemcpyAsync(to.data(), from.data(), from.bytes(), cudaMemcpyDeviceToDevice, other.get()),
               "cudaMemcpyAsync");
    device->wait(device->compute_stream(), device->record(second));
    device->fill(x, -1);  // not before the copy has read it
    expect_equal(y.download(), HostF32({50'000}, static_cast<float>(round)), "round " + std::to_string(round));
  }
}

TEST_F(CudaBackendTest, AnEmptyEventIsReached) {
  device->wait(device->compute_stream(), Event());
  device->synchronize();
}

TEST_F(CudaBackendTest, EventsOutliveTheirBackEnd) {
  const Event event = device->record(device->compute_stream());
  const Event mark = device->mark_time(device->compute_stream());
  device.reset();
  EXPECT_NE(event.handle(), nullptr);
  EXPECT_NE(mark.handle(), nullptr);
}

TEST_F(CudaBackendTest, TimeMarksMeasureTheStream) {
  using Clock = std::chrono::steady_clock;
  DeviceArray x = output({1 << 18}, DType::f32);
  const auto host_begin = Clock::now();
  const Event begin = device->mark_time(device->compute_stream());
  for (int i = 0; i < 5; ++i) device->fill(x, static_cast<float>(i));
  const Event end = device->mark_time(device->compute_stream());
  const double seconds = device->seconds_between(begin, end);
  const double on_the_host = std::chrono::duration<double>(Clock::now() - host_begin).count();
  EXPECT_GT(seconds, 0);
  EXPECT_LE(seconds, on_the_host + 1e-6);  // a mark's resolution is half a microsecond
}

// ---- graphs ---------------------------------------------------------------------------------------------------------

TEST_F(CudaBackendTest, AGraphDoesWhatTheCallsDid) {
  const HostF32 a = random_integers({24, 40}, "a", -2, 2), b = random_integers({40, 16}, "b", -2, 2);
  const DeviceArray left = bf16(a), right = bf16(b);
  const auto work = [&](Tensor sum, Tensor column_sums) {
    return [this, &left, &right, sum, column_sums] {
      device->run(Matmul{.c = sum, .a = left, .b = right, .accumulate = Accumulate::yes});
      device->run(AddColumnSums{.out = column_sums, .x = left});  // uses the workspace
    };
  };
  const HostF32 zero_sum({24, 16}), zero_columns({40});
  DeviceArray direct = upload(zero_sum), direct_columns = upload(zero_columns);
  DeviceArray replayed = upload(zero_sum), replayed_columns = upload(zero_columns);
  work(direct, direct_columns)();
  const Graph graph = device->capture(work(replayed, replayed_columns));
  expect_equal(replayed.download(), zero_sum, "capture itself runs nothing");
  for (int replay = 1; replay <= 3; ++replay) {
    device->replay(graph);
    expect_equal(replayed.download(), direct.download(), "product after replay " + std::to_string(replay));
    expect_equal(replayed_columns.download(), direct_columns.download(), "column sums");
    work(direct, direct_columns)();
  }
}

TEST_F(CudaBackendTest, AGraphKeepsItsWorkspace) {
  const HostF32 x = random_integers({40, 8}, "x", -2, 2);
  const DeviceArray small = bf16(x);
  DeviceArray direct = upload(HostF32({8})), replayed = upload(HostF32({8}));
  device->run(AddColumnSums{.out = direct, .x = small});
  const Graph graph = device->capture([&] { device->run(AddColumnSums{.out = replayed, .x = small}); });
  const HostF32 many = random_integers({4000, 512}, "many", -2, 2);
  DeviceArray large = output({512}, DType::f32);
  device->fill(large, 0);
  device->run(AddColumnSums{.out = large, .x = bf16(many)});  // the workspace grows
  device->replay(graph);
  expect_equal(replayed.download(), direct.download(), "column sums");
}

TEST_F(CudaBackendTest, WorkspaceThatAGraphHasSeenStays) {
  DeviceArray x = upload(HostF32({100}));
  const std::size_t before = in_use(MemoryUse::workspace);
  cuda::Workspace seen(*device), unseen(*device);
  void* const block = seen.get(1000);
  unseen.get(1000);
  device->capture([&] {
    EXPECT_EQ(seen.get(500), block);
    device->fill(x, 1);
  });
  seen.get(5000);
  unseen.get(5000);
  EXPECT_EQ(in_use(MemoryUse::workspace), before + 1000 + 2 * 5000);
}

TEST_F(CudaBackendTest, SeveralGraphsAndCallsMix) {
  DeviceArray x = upload(HostF32({100}));
  const DeviceArray one = bf16(HostF32({1, 100}, 1.0f)), hundred = bf16(HostF32({1, 100}, 100.0f));
  device->run(AddColumnSums{.out = x, .x = one});  // sizes the workspace
  const Graph add_one = device->capture([&] { device->run(AddColumnSums{.out = x, .x = one}); });
  const Graph add_hundred = device->capture([&] { device->run(AddColumnSums{.out = x, .x = hundred}); });
  for (const Graph* graph : {&add_one, &add_hundred, &add_one, &add_one}) device->replay(*graph);
  device->run(AddColumnSums{.out = x, .x = one});
  device->replay(add_hundred);
  expect_equal(x.download(), HostF32({100}, 205), "x");
}

TEST_F(CudaBackendTest, AnErrorInACaptureEndsIt) {
  DeviceArray x = upload(HostF32({100}));
  const std::string message = message_of([&] {
    device->capture([&] {
      device->fill(x, 5);
      throw Error("in the middle");
    });
  });
  EXPECT_EQ(message, "in the middle");
  device->fill(x, 7);
  expect_equal(x.download(), HostF32({100}, 7.0f), "x");
}

TEST_F(CudaBackendTest, TimeMarksInAGraphAreRecordedByEachReplay) {
  DeviceArray x = output({1 << 16}, DType::f32);
  Event begin, end;
  const Graph graph = device->capture([&] {
    begin = device->mark_time(device->compute_stream());
    device->fill(x, 1);
    end = device->mark_time(device->compute_stream());
  });
  for (int i = 0; i < 3; ++i) {
    device->replay(graph);
    EXPECT_GT(device->seconds_between(begin, end), 0);
  }
}

}  // namespace
}  // namespace vqlm::testing
