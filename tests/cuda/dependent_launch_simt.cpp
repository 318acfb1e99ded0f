// Which launches may begin early, as the host executor's launch.h is told: by the switch, the device, and what stands in front.
#include <gtest/gtest.h>

#include <cstdlib>
#include <functional>
#include <string>

#include "tests/cuda/op_testing_cuda.h"
#include "tests/simt/executor.h"

namespace vqlm::testing {
namespace {

/// A device of compute capability 9.0, however the tests are started.
class DependentLaunchTest : public CudaOpTest {
 protected:
  static std::unique_ptr<Backend> hopper(DependentLaunch launch) { return of_capability("90", launch); }
  static std::unique_ptr<Backend> of_capability(const char* capability, DependentLaunch launch) {
    constexpr const char* name = "SIMT_COMPUTE_CAPABILITY";
    const char* const before = std::getenv(name);
    const std::string kept = before == nullptr ? "" : before;
    ::setenv(name, capability, 1);
    auto made = make_cuda_backend(0, launch);
    before == nullptr ? ::unsetenv(name) : ::setenv(name, kept.c_str(), 1);
    return made;
  }
  /// Launches of `work`: "all of them / dependent ones".
  static std::string launches(const std::function<void()>& work) {
    const simt::Launches before = simt::launches();
    work();
    const simt::Launches after = simt::launches();
    return std::to_string(after.all - before.all) + "/" + std::to_string(after.dependent - before.dependent);
  }
};

TEST_F(DependentLaunchTest, AKernelBehindAKernelMayBeginEarly) {
  const auto gpu = hopper(DependentLaunch::yes);
  DeviceArray x(*gpu, {3000}, DType::f32, 0), y(*gpu, {3000}, DType::f32, 0);
  const auto fill = [&] { gpu->fill(x, 1); };
  gpu->synchronize();
  EXPECT_EQ(launches([&] { gpu->fill(x, 1), gpu->fill(y, 2), gpu->fill(x, 3); }), "3/2")
      << "the first has a copy in front";
  gpu->copy(y, x);
  EXPECT_EQ(launches(fill), "1/0") << "behind a copy";
  EXPECT_EQ(launches(fill), "1/1");
  gpu->wait(gpu->compute_stream(), gpu->record(gpu->compute_stream()));
  EXPECT_EQ(launches(fill), "1/0") << "behind a wait for an event";
  EXPECT_EQ(launches(fill), "1/1");
  gpu->record(gpu->compute_stream());
  EXPECT_EQ(launches(fill), "1/1") << "recording an event is no work";
  gpu->mark_time(gpu->compute_stream());
  EXPECT_EQ(launches(fill), "1/0") << "behind a time mark, which a graph has as a node";
  x.download();
  EXPECT_EQ(launches(fill), "1/0") << "behind a copy to the host";
  static_cast<void>(gpu->fingerprint(x));
  EXPECT_EQ(launches(fill), "1/0");
  expect_equal(x.download(), HostF32({3000}, 1.0f), "x");
}

TEST_F(DependentLaunchTest, GraphsBeginWithAnOrdinaryLaunch) {
  const auto gpu = hopper(DependentLaunch::yes);
  const DeviceArray x(*gpu, HostF32({400, 40}, 1.0f), DType::bf16, 0);
  DeviceArray sums(*gpu, HostF32({40}), DType::f32, 0);
  const auto add = [&] { gpu->run(AddColumnSums{.out = sums, .x = x}); };  // two kernels
  add();
  EXPECT_EQ(launches(add), "2/2");
  Graph graph;
  EXPECT_EQ(launches([&] { graph = gpu->capture([&] { add(), add(); }); }), "4/3");
  EXPECT_EQ(launches(add), "2/1") << "after a capture";
  gpu->replay(graph);
  EXPECT_EQ(launches(add), "2/1") << "behind a graph";
  expect_equal(sums.download(), HostF32({40}, 400.0f * 6), "sums");
}

TEST_F(DependentLaunchTest, TheSwitchAndOlderDevicesLeaveAllOrdinary) {
  for (const auto& gpu : {hopper(DependentLaunch::no), of_capability("80", DependentLaunch::yes)}) {
    DeviceArray x(*gpu, {3000}, DType::f32, 0);
    EXPECT_EQ(launches([&] { gpu->fill(x, 1), gpu->fill(x, 2); }), "2/0");
    expect_equal(x.download(), HostF32({3000}, 2.0f), "x");
  }
}

}  // namespace
}  // namespace vqlm::testing
