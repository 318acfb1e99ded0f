#include "dist/nccl_communicator.h"

#include <cuda_runtime_api.h>
#include <nccl.h>
#include <spdlog/fmt/fmt.h>

#include <cstdlib>
#include <utility>

#include "core/error.h"
#include "dist/nccl_group.h"

namespace vqlm {
namespace {

constexpr int oldest_version = NCCL_VERSION(2, 26, 0);  // the first with NCCL_LAUNCH_ORDER_IMPLICIT

ncclDataType_t nccl_type(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return ncclFloat32;
    case DType::bf16:
      return ncclBfloat16;
    case DType::f64:
      return ncclFloat64;
    case DType::i32:
      return ncclInt32;
    case DType::u8:
      return ncclUint8;
  }
  return ncclNumTypes;
}

ncclRedOp_t nccl_op(Reduce op) {
  return op == Reduce::sum ? ncclSum : ncclMax;
}

void assert_reducible(Tensor x, Reduce op) {
  VQLM_ASSERT(x.dtype() != DType::u8);
  VQLM_ASSERT(x.dtype() != DType::bf16 || op == Reduce::sum);
}

std::size_t count_of(Tensor x) {
  return static_cast<std::size_t>(x.numel());
}

std::byte* bytes_at(Tensor x, std::int64_t index) {
  return static_cast<std::byte*>(x.data()) + static_cast<std::size_t>(index) * size_of(x.dtype());
}

/// group.name must outlive what is made by it.
ncclConfig_t config_of(const NcclGroup& group) {
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.commName = group.name.c_str();
  if (group.shared->max_ctas > 0) config.maxCTAs = group.shared->max_ctas;
  return config;
}

int linked_version() {
  int version = 0;
  nccl_check(ncclGetVersion(&version), "ncclGetVersion", 0, "world");
  return version;
}

std::string version_text(int version) {
  return fmt::format("{}.{}.{}", version / 10000, version / 100 % 100, version % 100);
}

}  // namespace

struct NcclCommunicator::Group : NcclGroup {};

bool nccl_built() {
  return true;
}

std::string nccl_version() {
  try {
    return version_text(linked_version());
  } catch (const Error& error) {  // vqlm doctor goes on with what else there is to tell
    return error.what();
  }
}

NcclCommunicator::NcclCommunicator(std::unique_ptr<Group> group) : group_(std::move(group)) {}
NcclCommunicator::~NcclCommunicator() = default;
int NcclCommunicator::rank() const {
  return group_->rank;
}
int NcclCommunicator::size() const {
  return group_->size;
}
const std::string& NcclCommunicator::name() const {
  return group_->name;
}

std::unique_ptr<NcclCommunicator> NcclCommunicator::make_world(Communicator& host, const NcclOptions& options) {
  if (const int version = linked_version(); version < oldest_version) {
    throw Error(fmt::format("NCCL {} is too old: several communicators on one GPU need {} or later",
                            version_text(version), version_text(oldest_version)));
  }
  VQLM_ASSERT(std::getenv("NCCL_LAUNCH_ORDER_IMPLICIT") != nullptr);  // set_nccl_environment() was called
  auto group = std::make_unique<Group>();
  group->name = host.name();
  group->rank = host.rank();
  group->size = host.size();
  ncclUniqueId id{};
  if (host.rank() == 0) group->check(ncclGetUniqueId(&id), "ncclGetUniqueId");
  host.broadcast(Tensor(id.internal, DType::u8, {NCCL_UNIQUE_ID_BYTES}), 0, Stream{});
  group->shared = std::make_shared<NcclRank>();
  group->shared->events = NcclEvents::make();
  group->shared->activity = options.activity ? options.activity : std::make_shared<RankActivity>();
  group->shared->watchdog = std::make_unique<Watchdog>(Watchdog::Options{.rank = host.rank(),
                                                                         .timeout_seconds = options.timeout_seconds,
                                                                         .activity = group->shared->activity,
                                                                         .who_is_behind = options.who_is_behind,
                                                                         .on_failure = options.on_failure});
  group->shared->max_ctas = options.max_ctas;
  group->start();
  ncclConfig_t config = config_of(*group);
  group->watch_host("communicator", [&] {
    ncclComm_t comm = nullptr;
    group->check(ncclCommInitRankConfig(&comm, group->size, id, group->rank, &config), "ncclCommInitRankConfig");
    group->comm = comm;
  });
  return std::unique_ptr<NcclCommunicator>(new NcclCommunicator(std::move(group)));
}

std::unique_ptr<NcclCommunicator> NcclCommunicator::split(int color, int key, std::string name) {
  auto part = std::make_unique<Group>();
  part->name = std::move(name);
  part->shared = group_->shared;
  ncclConfig_t config = config_of(*part);
  group_->watch_host("split", [&] {
    ncclComm_t comm = nullptr;
    group_->check(ncclCommSplit(group_->comm, color, key, &comm, &config), "ncclCommSplit");
    part->comm = comm;
  });
  group_->check(ncclCommUserRank(part->comm, &part->rank), "ncclCommUserRank");
  group_->check(ncclCommCount(part->comm, &part->size), "ncclCommCount");
  part->start();
  return std::unique_ptr<NcclCommunicator>(new NcclCommunicator(std::move(part)));
}

Event NcclCommunicator::all_reduce(Tensor x, Reduce op, Stream stream) {
  assert_reducible(x, op);
  return group_->enqueue({"all_reduce", x.dtype(), x.numel()}, stream, [&](ncclComm_t comm, cudaStream_t on) {
    return ncclAllReduce(x.data(), x.data(), count_of(x), nccl_type(x.dtype()), nccl_op(op), comm, on);
  });
}

Event NcclCommunicator::reduce_scatter(Tensor out, Tensor in, Reduce op, Stream stream) {
  assert_reducible(in, op);
  VQLM_ASSERT(out.dtype() == in.dtype() && in.numel() == out.numel() * group_->size);
  return group_->enqueue({"reduce_scatter", in.dtype(), out.numel()}, stream, [&](ncclComm_t comm, cudaStream_t on) {
    return ncclReduceScatter(in.data(), out.data(), count_of(out), nccl_type(in.dtype()), nccl_op(op), comm, on);
  });
}

Event NcclCommunicator::all_gather(Tensor out, Tensor in, Stream stream) {
  VQLM_ASSERT(out.dtype() == in.dtype() && out.numel() == in.numel() * group_->size);
  return group_->enqueue({"all_gather", in.dtype(), in.numel()}, stream, [&](ncclComm_t comm, cudaStream_t on) {
    return ncclAllGather(in.data(), out.data(), count_of(in), nccl_type(in.dtype()), comm, on);
  });
}

Event NcclCommunicator::all_to_all(Tensor out, Tensor in, Stream stream) {
  VQLM_ASSERT(out.dtype() == in.dtype() && out.numel() == in.numel() && in.numel() % group_->size == 0);
  const std::int64_t n = in.numel() / group_->size;
  const auto count = static_cast<std::size_t>(n);
  return group_->enqueue({"all_to_all", in.dtype(), n}, stream, [&](ncclComm_t comm, cudaStream_t on) {
    ncclResult_t code = ncclGroupStart();
    for (int peer = 0; peer < group_->size && code == ncclSuccess; ++peer) {
      code = ncclSend(bytes_at(in, peer * n), count, nccl_type(in.dtype()), peer, comm, on);
      if (code == ncclSuccess) code = ncclRecv(bytes_at(out, peer * n), count, nccl_type(in.dtype()), peer, comm, on);
    }
    const ncclResult_t end = ncclGroupEnd();
    return code != ncclSuccess ? code : end;
  });
}

// Every pair of ranks exchanges a message, of no elements where the count is 0, which NCCL supports since 2.12.10 (NVIDIA/nccl
// issue 696): no rank leaves the call out, so its number and place among the group's calls are the same on all of them.
Event NcclCommunicator::all_to_all_v(Tensor out, std::span<const std::int64_t> out_counts, Tensor in,
                                     std::span<const std::int64_t> in_counts, Stream stream) {
  check_all_to_all_v(*this, out, out_counts, in, in_counts);
  const NcclGroup::Call call{"all_to_all_v", in.dtype(), in.numel() + out.numel(), true};
  return group_->enqueue(call, stream, [&](ncclComm_t comm, cudaStream_t on) {
    const ncclDataType_t dtype = nccl_type(in.dtype());
    std::int64_t sent = 0, received = 0;
    ncclResult_t code = ncclGroupStart();
    for (int peer = 0; peer < group_->size && code == ncclSuccess; ++peer) {
      const std::int64_t to = in_counts[static_cast<std::size_t>(peer)];
      const std::int64_t from = out_counts[static_cast<std::size_t>(peer)];
      code = ncclSend(bytes_at(in, sent), static_cast<std::size_t>(to), dtype, peer, comm, on);
      if (code == ncclSuccess) {
        code = ncclRecv(bytes_at(out, received), static_cast<std::size_t>(from), dtype, peer, comm, on);
      }
      sent += to;
      received += from;
    }
    const ncclResult_t end = ncclGroupEnd();
    return code != ncclSuccess ? code : end;
  });
}

Event NcclCommunicator::broadcast(Tensor x, int root, Stream stream) {
  VQLM_ASSERT(root >= 0 && root < group_->size);
  return group_->enqueue({"broadcast", x.dtype(), x.numel()}, stream, [&](ncclComm_t comm, cudaStream_t on) {
    return ncclBroadcast(x.data(), x.data(), count_of(x), nccl_type(x.dtype()), root, comm, on);
  });
}

// A reduction of one element: no rank has its result before all have given theirs.
void NcclCommunicator::barrier() {
  VQLM_ASSERT(group_->shared->grouping == nullptr);
  const Tensor flag(group_->barrier_flag, DType::i32, {1});
  group_->enqueue({"barrier", DType::i32, 1}, group_->own_stream(), [&](ncclComm_t comm, cudaStream_t on) {
    return ncclAllReduce(flag.data(), flag.data(), 1, ncclInt32, ncclSum, comm, on);
  });
  group_->cuda(cudaStreamSynchronize(group_->stream), "barrier");
  group_->shared->watchdog->throw_if_failed();
}

std::shared_ptr<void> NcclCommunicator::expect_long_wait(const std::string& why) {
  return group_->shared->watchdog->pause(why);
}

void NcclCommunicator::begin_step(std::int64_t step) {
  group_->shared->activity->begin_step(step);
}

void NcclCommunicator::group_begin() {
  group_->begin_calls();
}

void NcclCommunicator::group_end() {
  group_->end_calls();
}

}  // namespace vqlm
