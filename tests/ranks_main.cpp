// main() of the multi-rank tests: rank 0 reports as usual, the others only what fails on them, and a failure on any
// rank makes every rank exit with 1.
#include <gtest/gtest.h>

#include <cstdio>

#include "core/error.h"
#include "dist/nccl_settings.h"
#include "tests/ranks.h"

namespace vqlm::testing {
namespace {

const MpiSession* running_session = nullptr;

class RankReporter : public ::testing::EmptyTestEventListener {
 public:
  explicit RankReporter(const MpiSession& session) : session_(session) {}

  void OnTestStart(const ::testing::TestInfo& test) override { test_ = &test; }
  void OnTestPartResult(const ::testing::TestPartResult& result) override {
    if (!result.failed()) return;
    if (session_.rank() > 0) {
      std::fprintf(stderr, "rank %d: %s.%s: %s:%d: %s\n", session_.rank(),
                   test_ != nullptr ? test_->test_suite_name() : "?", test_ != nullptr ? test_->name() : "?",
                   result.file_name() != nullptr ? result.file_name() : "?", result.line_number(), result.message());
    }
    // The test function was left early (ASSERT_* or an exception): the other ranks wait in its next collective.
    if (result.fatally_failed() && session_.size() > 1) session_.abort("a test was left by a fatal failure", 1);
  }

 private:
  const MpiSession& session_;
  const ::testing::TestInfo* test_ = nullptr;
};

int run_on_all_ranks(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  set_nccl_environment();
  const MpiSession session(MpiStart::always);  // one rank tests the collectives, too
  running_session = &session;
  auto& listeners = ::testing::UnitTest::GetInstance()->listeners();
  if (session.rank() > 0) delete listeners.Release(listeners.default_result_printer());
  listeners.Append(new RankReporter(session));  // GoogleTest owns it
  std::int32_t failed = RUN_ALL_TESTS();
  const auto world = session.split(0, session.rank(), "world");
  world->all_reduce(Tensor(&failed, DType::i32, {1}), Reduce::max, Stream{});
  return failed;
}

}  // namespace

const MpiSession& session() {
  VQLM_ASSERT(running_session != nullptr);
  return *running_session;
}

}  // namespace vqlm::testing

int main(int argc, char** argv) {
  return vqlm::testing::run_on_all_ranks(argc, argv);
}
