#include "dist/mpi_communicator.h"

#include <algorithm>
#include <utility>

#include "dist/mpi_group.h"

namespace vqlm {
namespace {

// All-reduces up to this size gather every rank's x and add it everywhere: one step instead of two.
constexpr std::int64_t small_all_reduce_bytes = 8 << 10;

}  // namespace

MpiCommunicator::MpiCommunicator(std::unique_ptr<Group> group) : group_(std::move(group)) {}
MpiCommunicator::~MpiCommunicator() = default;
int MpiCommunicator::rank() const {
  return group_->rank;
}
int MpiCommunicator::size() const {
  return group_->size;
}
const std::string& MpiCommunicator::name() const {
  return group_->name;
}

std::unique_ptr<MpiCommunicator> MpiCommunicator::split_world(int color, int key, std::string name,
                                                              std::shared_ptr<RankActivity> activity,
                                                              MpiChunking chunking, MpiCaller caller) {
  VQLM_ASSERT(chunking.elements_per_call >= 1 && chunking.elements_per_call <= INT_MAX && activity != nullptr);
  auto group = std::make_unique<Group>();
  group->name = std::move(name);
  group->chunking = chunking;
  group->activity = std::move(activity);
  group->caller = caller;
  const auto inside = group->activity->enter("split", group->name);
  group->split(color, key);
  return std::unique_ptr<MpiCommunicator>(new MpiCommunicator(std::move(group)));
}

Event MpiCommunicator::all_reduce(Tensor x, Reduce op, Stream /*stream*/) {
  const auto inside = group_->enter("all_reduce");
  const int P = group_->size;
  const std::int64_t n = x.numel();
  const bool small = static_cast<std::int64_t>(x.bytes()) <= small_all_reduce_bytes;
  const std::int64_t block = small ? 0 : n / P;
  if (block > 0) {
    const Tensor head = x.range(0, P * block);
    const Tensor mine = head.range(group_->rank * block, block);
    group_->reduce_scatter(mine, head, op, "all_reduce");
    group_->all_gather(head, mine, "all_reduce");
  }
  if (const std::int64_t rest = n - P * block; rest > 0) {  // fewer than P elements, or a small x
    const Tensor tail = x.range(P * block, rest);
    const Tensor received = group_->scratch_blocks(rest, x.dtype());
    group_->all_gather(received, tail, "all_reduce");
    group_->reduce(tail, received, op);
  }
  return {};
}

Event MpiCommunicator::reduce_scatter(Tensor out, Tensor in, Reduce op, Stream /*stream*/) {
  VQLM_ASSERT(out.dtype() == in.dtype() && in.numel() == out.numel() * group_->size);
  if (group_->caller == MpiCaller::thread_beside) {
    group_->reduce_scatter(out, in, op, "reduce_scatter");
    return {};
  }
  const auto inside = group_->enter("reduce_scatter");
  group_->reduce_scatter(out, in, op, "reduce_scatter");
  return {};
}

Event MpiCommunicator::all_gather(Tensor out, Tensor in, Stream /*stream*/) {
  VQLM_ASSERT(out.dtype() == in.dtype() && out.numel() == in.numel() * group_->size);
  if (group_->caller == MpiCaller::thread_beside) {
    group_->all_gather_beside(out, in, "all_gather");
    return {};
  }
  const auto inside = group_->enter("all_gather");
  group_->all_gather(out, in, "all_gather");
  return {};
}

Event MpiCommunicator::all_to_all(Tensor out, Tensor in, Stream /*stream*/) {
  const auto inside = group_->enter("all_to_all");
  VQLM_ASSERT(out.dtype() == in.dtype() && out.numel() == in.numel() && in.numel() % group_->size == 0);
  const std::int64_t n = in.numel() / group_->size;
  const std::int64_t step = group_->chunking.elements_per_call;
  for (std::int64_t begin = 0; begin < n; begin += step) {
    group_->exchange(mpi_buffer(out, begin), n, in, begin, std::min(step, n - begin), "all_to_all");
  }
  return {};
}

Event MpiCommunicator::all_to_all_v(Tensor out, std::span<const std::int64_t> out_counts, Tensor in,
                                    std::span<const std::int64_t> in_counts, Stream /*stream*/) {
  constexpr const char* call = "all_to_all_v";
  check_all_to_all_v(*this, out, out_counts, in, in_counts);
  const auto inside = group_->enter(call);
  group_->all_to_all_v(out, out_counts, in, in_counts, call);
  return {};
}

Event MpiCommunicator::broadcast(Tensor x, int root, Stream /*stream*/) {
  const auto inside = group_->enter("broadcast");
  VQLM_ASSERT(root >= 0 && root < group_->size);
  group_->broadcast(x, root, "broadcast");
  return {};
}

void MpiCommunicator::barrier() {
  const auto inside = group_->enter("barrier");
  group_->barrier("barrier");
}

std::shared_ptr<void> MpiCommunicator::expect_long_wait(const std::string& why) {
  return group_->activity->pause(why);
}

std::shared_ptr<void> MpiCommunicator::inside(std::string_view collective) {
  struct Wait {
    Group& group;
    RankActivity::Inside inside;
    Wait(Group& of, std::string_view collective) : group(of), inside(of.activity->enter(collective, of.name)) {
      group.awaited = true;
    }
    Wait(const Wait&) = delete;
    Wait& operator=(const Wait&) = delete;
    ~Wait() { group.awaited = false; }
  };
  return std::make_shared<Wait>(*group_, collective);
}

void MpiCommunicator::abandon() {
  group_->abandoned = true;
}

void MpiCommunicator::begin_step(std::int64_t step) {
  group_->activity->begin_step(step);
}

}  // namespace vqlm
