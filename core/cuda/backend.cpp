// CudaBackend: memory, streams, events and graphs of one GPU; ops go to their launchers.
#include <cuda_runtime_api.h>
#include <spdlog/fmt/fmt.h>

#include <optional>
#include <utility>
#include <vector>

#include "core/cuda/cuda_backend.h"
#include "core/cuda/cuda_check.h"
#include "core/cuda/device_memory.h"
#include "core/cuda/devices.h"
#include "core/cuda/handles.h"
#include "core/cuda/matmul_plans.h"
#include "core/cuda/ops.h"
#include "core/cuda/staging.h"
#include "core/product_algorithms.h"

namespace vqlm {
namespace {

using cuda::cuda_check;

cudaStream_t handle_of(Stream stream) {
  return static_cast<cudaStream_t>(stream.handle);
}

cudaEvent_t handle_of(const Event& event) {
  return static_cast<cudaEvent_t>(event.handle());
}

/// The current device belongs to the thread, and any thread may come: cudaSetDevice costs nothing where it is current.
int make_current(int device) {
  cuda_check(cudaSetDevice(device), "cudaSetDevice");
  return device;
}

class CudaBackend final : public Backend, public ChoiceOfProducts {
 public:
  CudaBackend(const CudaDevice& device, DependentLaunch launch)
      : device_(make_current(device.index)),
        description_(fmt::format("cuda:{} {}", device.index, device.name)),
        memory_(device_, stream_.get()),
        staging_(stream_.get()),
        workspace_(*this),
        matmul_workspace_(
            allocate(cuda::MatmulPlans::workspace_bytes(device.compute_capability), MemoryUse::workspace)),
        plans_({.device = device.name,
                .compute_capability = device.compute_capability,
                .multiprocessors = device.multiprocessors,
                .library = {}},
               cuda::cache_bytes(device.index), stream_.get(), matmul_workspace_.data(), matmul_workspace_.bytes()),
        context_{.stream = cuda::LaunchStream(stream_.get(), &launches_),
                 .multiprocessors = device.multiprocessors,
                 .compute_capability = device.compute_capability,
                 .shared_memory_per_block = device.shared_memory_per_block,
                 .workspace = &workspace_,
                 .plans = &plans_} {
    launches_.allow(launch == DependentLaunch::yes && cuda::can_launch_dependents(device.compute_capability));
  }
  /// What is still enqueued uses the members: it ends first.
  ~CudaBackend() override { cuda::cuda_log_failure(cudaStreamSynchronize(stream_.get()), "cudaStreamSynchronize"); }
  CudaBackend(const CudaBackend&) = delete;
  CudaBackend& operator=(const CudaBackend&) = delete;

  std::string description() const override { return description_; }
  bool host_accessible() const override { return false; }
  DType activation_dtype() const override { return DType::bf16; }
  std::int64_t class_multiple() const override { return gpu_class_multiple; }

  Buffer allocate(std::size_t bytes, MemoryUse use) override {
    make_current(device_);
    void* const data = memory_.allocate(bytes, use);
    launches_.behind_other_work();
    return Buffer(*this, data, bytes, use);
  }
  MemoryAccount memory() const override { return memory_.account(); }
  void copy(Tensor dst, Tensor src) override {
    VQLM_ASSERT(dst.dtype() == src.dtype() && dst.numel() == src.numel());
    if (src.numel() == 0) return;
    cuda_check(cudaMemcpyAsync(dst.data(), src.data(), src.bytes(), cudaMemcpyDeviceToDevice, context().stream),
               "cudaMemcpyAsync on the device");
    launches_.behind_other_work();
  }
  void copy_from_host(Tensor dst, const void* src) override {
    make_current(device_);
    staging_.to_device(dst.data(), src, dst.bytes());
    launches_.behind_other_work();
  }
  void copy_to_host(void* dst, Tensor src) override {
    make_current(device_);
    staging_.to_host(dst, src.data(), src.bytes());
    launches_.behind_other_work();
  }
  void fill(Tensor x, float value) override { cuda::fill(context(), x, value); }
  void round_to_activation(Tensor dst, Tensor src) override { cuda::round_to_activation(context(), dst, src); }
  std::uint64_t fingerprint(Tensor x) override {
    std::uint64_t result = 0;
    staging_.to_host(&result, cuda::fingerprint(context(), x), sizeof(result));
    launches_.behind_other_work();
    return result;
  }

  Stream compute_stream() override { return {stream_.get()}; }
  Event record(Stream stream) override {
    Event event = events_->take();
    cuda_check(cudaEventRecord(handle_of(event), handle_of(stream)), "cudaEventRecord");
    return event;
  }
  void wait(Stream stream, const Event& event) override {
    if (event.handle() == nullptr) return;  // already reached
    cuda_check(cudaStreamWaitEvent(handle_of(stream), handle_of(event), 0), "cudaStreamWaitEvent");
    if (stream.handle == stream_.get()) launches_.behind_other_work();
    if (captured_waits_) captured_waits_->push_back(event);
  }
  void synchronize() override {
    make_current(device_);
    cuda_check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
  }
  Event mark_time(Stream stream) override;
  double seconds_between(const Event& begin, const Event& end) override;
  Graph capture(const std::function<void()>& work) override {
    make_current(device_);
    cuda::StreamCapture capture(stream_.get());
    launches_.behind_other_work();  // the graph's first kernel has none in front
    captured_waits_.emplace();
    try {
      work();
    } catch (...) {
      captured_waits_.reset();
      launches_.behind_other_work();
      throw;
    }
    launches_.behind_other_work();
    return capture.finish(*std::exchange(captured_waits_, std::nullopt));
  }
  ProductAlgorithms& product_algorithms() override {
    make_current(device_);
    return plans_;
  }
  void replay(const Graph& graph) override {
    cuda_check(cudaGraphLaunch(static_cast<cudaGraphExec_t>(graph.handle()), context().stream), "cudaGraphLaunch");
    launches_.behind_other_work();
  }

 private:
  void enqueue(const Op& op) override {
    std::visit([this](const auto* value) { cuda::run(context(), *value); }, op);
  }
  void deallocate(void* data, std::size_t bytes, MemoryUse use) noexcept override {
    cuda::cuda_log_failure(cudaSetDevice(device_), "cudaSetDevice");
    memory_.free(data, bytes, use);
    launches_.behind_other_work();
  }

  const cuda::Context& context() const {
    make_current(device_);
    return context_;
  }

  // In this order: what comes later uses what comes earlier, down to the destructors.
  int device_;
  std::string description_;
  cuda::DeviceStream stream_;
  cuda::DependentLaunches launches_;
  std::shared_ptr<cuda::EventPool> events_ = cuda::EventPool::make(cuda::Timing::no);
  std::shared_ptr<cuda::EventPool> time_marks_ = cuda::EventPool::make(cuda::Timing::yes);
  cuda::DeviceMemory memory_;
  cuda::Staging staging_;
  cuda::Workspace workspace_;
  Buffer matmul_workspace_;
  cuda::MatmulPlans plans_;
  cuda::Context context_;
  std::optional<std::vector<Event>> captured_waits_;  // of the capture that is going on
};

Event CudaBackend::mark_time(Stream stream) {
  Event event = time_marks_->take();
  // In a graph an ordinary record only orders the graph's own nodes; an external one is a node that records.
  const unsigned flags = cuda::is_capturing(handle_of(stream)) ? cudaEventRecordExternal : cudaEventRecordDefault;
  cuda_check(cudaEventRecordWithFlags(handle_of(event), handle_of(stream), flags), "cudaEventRecordWithFlags");
  launches_.behind_other_work();
  return event;
}

double CudaBackend::seconds_between(const Event& begin, const Event& end) {
  for (const Event* mark : {&begin, &end}) cuda_check(cudaEventSynchronize(handle_of(*mark)), "cudaEventSynchronize");
  float milliseconds = 0;
  cuda_check(cudaEventElapsedTime(&milliseconds, handle_of(begin), handle_of(end)), "cudaEventElapsedTime");
  return 1e-3 * static_cast<double>(milliseconds);
}

}  // namespace

std::unique_ptr<Backend> make_cuda_backend(int device, DependentLaunch launch) {
  cuda::require_device(device);
  return std::make_unique<CudaBackend>(cuda_device(device), launch);
}

}  // namespace vqlm
