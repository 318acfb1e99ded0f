#include "core/error.h"
#include "dist/nccl_communicator.h"

namespace vqlm {
namespace {

[[noreturn]] void refuse() {
  throw Error(
      "NCCL: this vqlm was built without it, so the ranks of a job cannot talk between GPUs; install libnccl-dev and "
      "build again with -DVQLM_CUDA=ON, use run.device = \"cpu\", or start one rank");
}

}  // namespace

struct NcclCommunicator::Group {
  std::string name;
};

bool nccl_built() {
  return false;
}

std::string nccl_version() {
  return "none";
}

std::unique_ptr<NcclCommunicator> NcclCommunicator::make_world(Communicator& /*host*/, const NcclOptions& /*options*/) {
  refuse();
}

// No object can be made, so nothing below is ever called.
NcclCommunicator::NcclCommunicator(std::unique_ptr<Group> group) : group_(std::move(group)) {}
NcclCommunicator::~NcclCommunicator() = default;
std::unique_ptr<NcclCommunicator> NcclCommunicator::split(int /*color*/, int /*key*/, std::string /*name*/) {
  refuse();
}
int NcclCommunicator::rank() const {
  return 0;
}
int NcclCommunicator::size() const {
  return 1;
}
const std::string& NcclCommunicator::name() const {
  return group_->name;
}
Event NcclCommunicator::all_reduce(Tensor /*x*/, Reduce /*op*/, Stream /*stream*/) {
  refuse();
}
Event NcclCommunicator::reduce_scatter(Tensor /*out*/, Tensor /*in*/, Reduce /*op*/, Stream /*stream*/) {
  refuse();
}
Event NcclCommunicator::all_gather(Tensor /*out*/, Tensor /*in*/, Stream /*stream*/) {
  refuse();
}
Event NcclCommunicator::all_to_all(Tensor /*out*/, Tensor /*in*/, Stream /*stream*/) {
  refuse();
}
Event NcclCommunicator::all_to_all_v(Tensor /*out*/, std::span<const std::int64_t> /*out_counts*/, Tensor /*in*/,
                                     std::span<const std::int64_t> /*in_counts*/, Stream /*stream*/) {
  refuse();
}
Event NcclCommunicator::broadcast(Tensor /*x*/, int /*root*/, Stream /*stream*/) {
  refuse();
}
void NcclCommunicator::barrier() {
  refuse();
}
std::shared_ptr<void> NcclCommunicator::expect_long_wait(const std::string& /*why*/) {
  refuse();
}
void NcclCommunicator::begin_step(std::int64_t /*step*/) {}
void NcclCommunicator::group_begin() {}
void NcclCommunicator::group_end() {}

}  // namespace vqlm
