// The checks of vqlm selftest pass where all is well (tests/launch/selftest_test.py runs them all), and each of these fails
// where the machine is at fault.
#include <gmock/gmock.h>

#include <cstring>
#include <fstream>

#include "core/cpu/cpu_backend.h"
#include "core/error.h"
#include "tests/data/temporary_folder.h"
#include "tests/train/forwarding_communicator.h"
#include "train/tools/selftest/selftest.h"
#include "train/tools/selftest/selftest_files.h"

namespace vqlm {
namespace {

using testing::ForwardingCommunicator;
using ::testing::HasSubstr;
using testing::session;
using testing::wrapped_grid;

/// On how many ranks a check failed.
int failures(const DoctorCheck& check) {
  return session().count_ranks(!check.ok);
}

class SelftestChecks : public ::testing::Test {
 protected:
  const int tensor_size_ = session().size() % 4 == 0 ? 2 : 1;
  std::unique_ptr<Backend> backend_ = make_cpu_backend(1);
};

/// Adds `drift` to the first element of every sum of floats, and lets it grow.
class DriftingSums final : public ForwardingCommunicator {
 public:
  DriftingSums(std::unique_ptr<Communicator> inner, float& drift)
      : ForwardingCommunicator(std::move(inner)), drift_(drift) {}
  Event all_reduce(Tensor x, Reduce op, Stream stream) override {
    Event done = ForwardingCommunicator::all_reduce(x, op, stream);
    if (op == Reduce::sum) spoil(x);
    return done;
  }
  Event reduce_scatter(Tensor out, Tensor in, Reduce op, Stream stream) override {
    Event done = ForwardingCommunicator::reduce_scatter(out, in, op, stream);
    spoil(out);
    return done;
  }

 private:
  void spoil(Tensor x) {
    if (x.dtype() == DType::f32) x.f32()[0] += drift_;
    drift_ *= 2;
  }
  float& drift_;
};

TEST_F(SelftestChecks, WrongSumsFail) {
  float none = 0, drift = 1;
  EXPECT_EQ(failures(check_collectives(*backend_, wrapped_grid<DriftingSums>(tensor_size_, none).world())), 0);
  const DoctorCheck check = check_collectives(*backend_, wrapped_grid<DriftingSums>(tensor_size_, drift).world());
  EXPECT_EQ(failures(check), session().size());
  EXPECT_THAT(check.text, HasSubstr("all_reduce sum of f32 (1 of 1003 elements) wrong on rank"));
}

TEST_F(SelftestChecks, SumsThatDifferFromRunToRunAreNotDeterministic) {
  float none = 0, drift = 1e-3f;
  EXPECT_EQ(failures(check_determinism(*backend_, wrapped_grid<DriftingSums>(tensor_size_, none))), 0);
  EXPECT_GT(failures(check_determinism(*backend_, wrapped_grid<DriftingSums>(tensor_size_, drift))), 0);
}

/// Keeps every rank's own gradient norm.
class LocalNorm final : public ForwardingCommunicator {
 public:
  using ForwardingCommunicator::ForwardingCommunicator;
  Event all_reduce(Tensor x, Reduce op, Stream stream) override {
    if (x.dtype() == DType::f64 && x.numel() == 1 && op == Reduce::sum && ++calls_ % 2 == 1) return {};
    return ForwardingCommunicator::all_reduce(x, op, stream);  // every second one is the loss
  }

 private:
  int calls_ = 0;
};

TEST_F(SelftestChecks, ASpikeThatOneRankSeesAloneFails) {
  const ProcessGrid sound(session(), *backend_, 0, tensor_size_);
  EXPECT_EQ(failures(check_spike(*backend_, sound)), 0);
  if (session().size() == 1) return;
  const DoctorCheck check = check_spike(*backend_, wrapped_grid<LocalNorm>(tensor_size_));
  EXPECT_GT(failures(check), 0);
  if (!check.ok) {
    EXPECT_THAT(check.text, HasSubstr("was not skipped on rank"));
  }
}

/// Gives each rank its own bytes as everybody's.
class Echo final : public ForwardingCommunicator {
 public:
  using ForwardingCommunicator::ForwardingCommunicator;
  Event all_gather(Tensor out, Tensor in, Stream stream) override {
    if (in.dtype() != DType::u8) return ForwardingCommunicator::all_gather(out, in, stream);
    for (int rank = 0; rank < size(); ++rank)
      std::memcpy(static_cast<char*>(out.data()) + static_cast<std::size_t>(rank) * in.bytes(), in.data(), in.bytes());
    return {};
  }
};

TEST_F(SelftestChecks, AFlippedBitThatIsNotFoundFails) {
  const ProcessGrid sound(session(), *backend_, 0, tensor_size_);
  EXPECT_EQ(failures(check_replica_check(*backend_, sound)), 0);
  if (session().size() == 1) return;
  EXPECT_EQ(failures(check_replica_check(*backend_, wrapped_grid<Echo>(tensor_size_))), session().size());
}

TEST_F(SelftestChecks, FoldersThatAreNotSharedOrNotThereFail) {
  const TemporaryFolder own;  // another one on each rank
  const ProcessGrid grid(session(), *backend_, 0, 1);
  const DoctorCheck check = check_shared_folder(grid.world(), own.path(), 0.2);
  EXPECT_EQ(failures(check), session().size() - 1);
  if (!check.ok) {
    EXPECT_THAT(check.text, HasSubstr("choose a --dir"));
  }
  const std::string missing = own.file("missing");
  EXPECT_THROW(SelftestFolder(*backend_, grid.world(), missing), Error);
  EXPECT_THROW(check_disk(session().rank(), missing), Error);
  EXPECT_TRUE(check_disk(session().rank(), own.path()).ok);
}

TEST_F(SelftestChecks, OnlyTheirOwnFolderIsRemoved) {
  const TemporaryFolder own;
  const ProcessGrid grid(session(), *backend_, 0, 1);
  std::filesystem::path made;
  {
    const SelftestFolder folder(*backend_, grid.world(), own.path());
    made = folder.path();
    EXPECT_TRUE(std::filesystem::exists(made));
    std::ofstream(own.file("not-ours")) << "stays";
    grid.world().barrier();
  }
  grid.world().barrier();
  EXPECT_FALSE(std::filesystem::exists(made));
  EXPECT_TRUE(std::filesystem::exists(own.file("not-ours")));
}

}  // namespace
}  // namespace vqlm
