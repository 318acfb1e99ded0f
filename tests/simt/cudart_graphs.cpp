// Stream capture and graphs. A graph's launch is one piece of work on its stream, which runs the nodes in a random
// order that their dependencies allow.
#include <algorithm>

#include "tests/simt/runtime.h"
#include "tests/simt/streams.h"

namespace simt {

using Nodes = std::vector<GraphNode>;

/// What an executable graph and its launches share.
struct Program {
  Nodes nodes;
  bool running = false;  // launches of one executable graph follow each other
};

/// One launch.
class GraphRun {
 public:
  GraphRun(std::shared_ptr<Program> program, std::uint64_t seed)
      : program_(std::move(program)), markers_(program_->nodes.size()), rng_(seed) {
    for (std::size_t i = 0; i < markers_.size(); ++i) {
      const GraphNode& node = program_->nodes[i];
      if (node.records != nullptr) {
        markers_[i] = node.records->marker = std::make_shared<Marker>();
        node.records->capture.reset();
      }
      if (node.waits != nullptr) markers_[i] = node.waits->marker;
    }
  }

  /// Runs nodes until none can go on, or chance lets another stream have a turn. True when all are done.
  bool poll() {
    if (!started_) {
      if (program_->running) return false;
      begin();
    }
    bool advanced = true;
    while (advanced && left_ > 0) {
      advanced = false;
      std::shuffle(ready_.begin(), ready_.end(), rng_);
      for (std::size_t i = 0; i < ready_.size(); ++i) {
        if (!run(ready_[i])) continue;
        finish(i);
        ++runtime().work_done;
        advanced = true;
        break;
      }
      if (left_ > 0 && rng_() % 8 == 0) return false;
    }
    if (left_ > 0) return false;
    program_->running = started_ = false;
    return true;
  }

 private:
  void begin() {
    program_->running = started_ = true;
    left_ = program_->nodes.size();
    missing_.assign(left_, 0);
    ready_.clear();
    for (std::size_t i = 0; i < left_; ++i) {
      missing_[i] = program_->nodes[i].after.size();
      if (missing_[i] == 0) ready_.push_back(i);
    }
  }

  bool run(std::size_t node) {
    const GraphNode& what = program_->nodes[node];
    if (what.records != nullptr) markers_[node]->reach();
    if (what.waits != nullptr) return markers_[node] == nullptr || markers_[node]->reached;
    return what.poll == nullptr || what.poll();
  }

  void finish(std::size_t position) {
    const std::size_t node = ready_[position];
    ready_[position] = ready_.back();
    ready_.pop_back();
    --left_;
    for (std::size_t i = node + 1; i < program_->nodes.size(); ++i) {  // dependencies point backwards
      const std::vector<std::size_t>& after = program_->nodes[i].after;
      const auto times = static_cast<std::size_t>(std::count(after.begin(), after.end(), node));
      if (times > 0 && (missing_[i] -= times) == 0) ready_.push_back(i);
    }
  }

  std::shared_ptr<Program> program_;
  std::vector<MarkerPointer> markers_;  // of external records and waits, as of the launch
  std::mt19937_64 rng_;
  bool started_ = false;
  std::size_t left_ = 0;
  std::vector<std::size_t> missing_;
  std::vector<std::size_t> ready_;
};

namespace {

thread_local cudaStreamCaptureMode thread_mode = cudaStreamCaptureModeGlobal;

/// True where every node comes before the origin's last ones.
bool joined(const Capture& capture, const std::vector<std::size_t>& tail) {
  std::vector<bool> seen(capture.nodes.size());
  std::vector<std::size_t> open = tail;
  while (!open.empty()) {
    const std::size_t node = open.back();
    open.pop_back();
    if (seen[node]) continue;
    seen[node] = true;
    open.insert(open.end(), capture.nodes[node].after.begin(), capture.nodes[node].after.end());
  }
  return std::all_of(seen.begin(), seen.end(), [](bool reached) { return reached; });
}

}  // namespace

// CUDA's rule for calls that would synchronise with a stream under capture (cudaThreadExchangeStreamCaptureMode).
bool Runtime::capture_forbids() {
  return std::any_of(captures.begin(), captures.end(), [](const std::shared_ptr<Capture>& capture) {
    const bool own = capture->thread == std::this_thread::get_id();
    if (thread_mode == cudaStreamCaptureModeRelaxed || capture->mode == cudaStreamCaptureModeRelaxed) return false;
    if (own) return true;
    return thread_mode == cudaStreamCaptureModeGlobal && capture->mode == cudaStreamCaptureModeGlobal;
  });
}

}  // namespace simt

struct CUgraph_st {
  simt::Nodes nodes;
};
struct CUgraphExec_st {
  std::shared_ptr<simt::Program> program;
};

using simt::Capture;
using simt::result;
using simt::runtime;
using simt::Runtime;

extern "C" {

cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  std::swap(*mode, simt::thread_mode);
  return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  Runtime& r = runtime();
  const Runtime::Lock lock(r.mutex);
  CUstream_st* origin = stream == nullptr ? nullptr : r.find(stream);
  if (origin == nullptr) return result(cudaErrorStreamCaptureUnsupported);
  if (origin->capture != nullptr) return result(cudaErrorIllegalState);
  auto capture = std::make_shared<Capture>();
  capture->origin = origin;
  capture->mode = mode;
  capture->thread = std::this_thread::get_id();
  capture->streams = {origin};
  origin->capture = capture;
  origin->tail.clear();
  r.captures.push_back(std::move(capture));
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  Runtime& r = runtime();
  const Runtime::Lock lock(r.mutex);
  CUstream_st* origin = r.find(stream);
  *graph = nullptr;
  if (origin == nullptr || origin->capture == nullptr) return result(cudaErrorIllegalState);
  const std::shared_ptr<Capture> capture = origin->capture;
  if (capture->origin != origin) return result(cudaErrorStreamCaptureUnmatched);
  if (capture->mode != cudaStreamCaptureModeRelaxed && capture->thread != std::this_thread::get_id()) {
    return result(cudaErrorStreamCaptureWrongThread);
  }
  const bool whole = simt::joined(*capture, origin->tail);
  for (CUstream_st* member : capture->streams) {
    member->capture.reset();
    member->tail.clear();
  }
  capture->origin = nullptr;
  std::erase(r.captures, capture);
  if (capture->invalidated) return result(cudaErrorStreamCaptureInvalidated);
  if (!whole) return result(cudaErrorStreamCaptureUnjoined);
  *graph = new CUgraph_st{std::move(capture->nodes)};
  return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  Runtime& r = runtime();
  const Runtime::Lock lock(r.mutex);
  const CUstream_st* found = r.find(stream);
  if (found == nullptr) return result(cudaErrorInvalidResourceHandle);
  *status = found->capture == nullptr     ? cudaStreamCaptureStatusNone
            : found->capture->invalidated ? cudaStreamCaptureStatusInvalidated
                                          : cudaStreamCaptureStatusActive;
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long) {
  if (executable == nullptr || graph == nullptr) return result(cudaErrorInvalidValue);
  *executable = new CUgraphExec_st{std::make_shared<simt::Program>(simt::Program{graph->nodes, false})};
  return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  if (executable == nullptr) return result(cudaErrorInvalidValue);
  auto run = [&] {
    const Runtime::Lock lock(runtime().mutex);  // it records events anew
    return std::make_shared<simt::GraphRun>(executable->program, runtime().rng());
  }();
  return simt::enqueue(stream, [run = std::move(run)] { return run->poll(); });
}

cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t* nodes, size_t* count) {
  if (graph == nullptr || nodes != nullptr) return result(cudaErrorInvalidValue);  // the count is all there is
  *count = graph->nodes.size();
  return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  delete executable;
  return cudaSuccess;
}

}  // extern "C"
