// The plan of every rank against what watched communicators and back ends see while it trains.
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <ostream>
#include <span>
#include <string>
#include <utility>

#include "core/host_collectives.h"
#include "core/log.h"
#include "tests/data/temporary_folder.h"
#include "tests/ranks.h"
#include "tests/train/bodies.h"
#include "tests/train/observed_run.h"
#include "train/engine/plan.h"

namespace vqlm {
namespace {

using testing::learning_by;
using testing::session;
using testing::set_future;
using testing::tiny_config;
using testing::with_body;

struct Count {
  std::int64_t calls = 0;
  double payload_bytes = 0;
};
using Counts = std::map<std::pair<std::string, std::string>, Count>;  // by group and collective

/// Forwards to a real communicator and counts the bytes of the payload (CollectiveCount). Alone it counts nothing, as nothing
/// is sent.
class WatchedCommunicator final : public Communicator {
 public:
  WatchedCommunicator(Communicator& inner, Counts& counts) : inner_(inner), counts_(counts) {}

  int rank() const override { return inner_.rank(); }
  int size() const override { return inner_.size(); }
  const std::string& name() const override { return inner_.name(); }
  Event all_reduce(Tensor x, Reduce op, Stream stream) override {
    count("all_reduce", x);
    return inner_.all_reduce(x, op, stream);
  }
  Event reduce_scatter(Tensor out, Tensor in, Reduce op, Stream stream) override {
    count("reduce_scatter", in);
    return inner_.reduce_scatter(out, in, op, stream);
  }
  Event all_gather(Tensor out, Tensor in, Stream stream) override {
    count("all_gather", out);
    return inner_.all_gather(out, in, stream);
  }
  Event all_to_all(Tensor out, Tensor in, Stream stream) override {
    count("all_to_all", in);
    return inner_.all_to_all(out, in, stream);
  }
  Event all_to_all_v(Tensor out, std::span<const std::int64_t> out_counts, Tensor in,
                     std::span<const std::int64_t> in_counts, Stream stream) override {
    count("all_to_all_v", in);
    return inner_.all_to_all_v(out, out_counts, in, in_counts, stream);
  }
  Event broadcast(Tensor x, int root, Stream stream) override {
    count("broadcast", x);
    return inner_.broadcast(x, root, stream);
  }
  void barrier() override { inner_.barrier(); }

 private:
  void count(const char* collective, Tensor payload) {
    if (size() == 1) return;
    Count& entry = counts_[{name(), collective}];
    ++entry.calls;
    entry.payload_bytes += static_cast<double>(payload.bytes());
  }

  Communicator& inner_;
  Counts& counts_;
};

struct HeadCase {
  const char* name;
  HeadKind kind;
  bool tied = false;
  CodebookLearning learning = CodebookLearning::commitment;
  const char* map = "frequency";
  bool embedding = false;              // members are rows of the embedding
  bool means_and_input_codes = false;  // head.member_mean and head.input_codes
  OptimizerKind optimizer = OptimizerKind::adamw;
  const char* body = "llama";
  int future = 0;  // heads for later tokens
};
void PrintTo(const HeadCase& c, std::ostream* out) {
  *out << c.name;
}

class PlannedGrid : public ::testing::TestWithParam<HeadCase> {
 protected:
  PlannedGrid() : backend_(make_cpu_backend(1)), world_(session(), *backend_, 0, 1) {
    log::set_level(log::level::warn);
    // The folder of the first rank, known to all.
    const std::string own = folder_.path();
    std::vector<std::uint8_t> bytes(own.begin(), own.end());
    broadcast_from(*backend_, world_.world(), 0, bytes);
    shared_ = std::string(bytes.begin(), bytes.end());
    if (session().rank() == 0) {
      testing::write_zipf_shards(shared_, "train", 40);
      testing::write_zipf_shards(shared_, "heldout", 6);
    }
    world_.world().barrier();
  }
  ~PlannedGrid() override { world_.world().barrier(); }

  Config config(const std::string& run) const {
    Config config = tiny_config(GetParam().kind, shared_, shared_ / run);
    config.model.tie_embeddings = GetParam().tied;
    config.model = with_body(config.model, GetParam().body);
    config.data.document_mask = config.model.document_end >= 0;
    config.optim.input_tables_update = TableUpdate::dense;  // by rows, what a step sends depends on its tokens
    if (auto* vq = std::get_if<VqHeadConfig>(&config.head)) {
      vq->learning = learning_by(GetParam().learning);
      if (GetParam().embedding) vq->members = EmbeddingMembersConfig{.mean = GetParam().means_and_input_codes};
      vq->input_codes = GetParam().means_and_input_codes;
      vq->map = GetParam().map;
    }
    set_future(config, GetParam().future);
    config.optim.kind = GetParam().optimizer;
    config.train.steps = 3;
    config.train.micro_batch = 2;
    config.train.global_batch = 24;
    config.train.check_replicas_every = 0;  // no part of every step, and so of no plan
    config.optim.warmup_steps = 1;
    return config;
  }

  /// What one whole step of this rank sends, from the statistics of one step to those of the next. memory: what must be in
  /// use.
  Counts watch_step(const ProcessGrid& real, const Config& config, const MemoryPlan& memory) {
    Counts counts, at_step_2, at_step_3;
    const ProcessGrid watched(std::make_unique<WatchedCommunicator>(real.world(), counts),
                              std::make_unique<WatchedCommunicator>(real.data(), counts),
                              std::make_unique<WatchedCommunicator>(real.tensor(), counts));
    int steps = 0;
    testing::observe_run(*backend_, watched, config, [&] {
      ++steps;
      if (steps == 2) at_step_2 = counts;
      if (steps == 3) at_step_3 = counts;
      for (std::size_t use = 0; use < memory.bytes.size(); ++use) {
        EXPECT_EQ(memory.bytes[use], backend_->memory().in_use[use]) << "memory use " << use << ", step " << steps;
      }
    });
    EXPECT_EQ(steps, 3);
    Counts step;
    for (const auto& [key, count] : at_step_3) {
      const Count before = at_step_2[key];
      if (count.calls == before.calls) continue;
      step[key] = {count.calls - before.calls, count.payload_bytes - before.payload_bytes};
    }
    return step;
  }

  TemporaryFolder folder_;
  std::unique_ptr<Backend> backend_;
  ProcessGrid world_;
  std::filesystem::path shared_;
};

TEST_P(PlannedGrid, BytesAreThoseOfARealStep) {
  const int ranks = session().size();
  for (const int tensor : {1, 2}) {
    // Four ranks as 2 x 2 only: the other grids show nothing that two ranks do not.
    if (ranks % tensor != 0 || (ranks == 4 && tensor == 1)) continue;
    const std::string name = std::to_string(ranks / tensor) + "x" + std::to_string(tensor);
    SCOPED_TRACE(name);
    const ProcessGrid grid(session(), *backend_, ranks / tensor, tensor);
    Config resolved = config(name);
    resolved.parallel.tensor = tensor;
    resolve(resolved, testing::tiny_vocabulary, ranks);
    const PlanOptions options{.activation = DType::f32, .rank = session().rank()};
    const StepPlan plan = plan_step(resolved, options);

    const Counts seen = watch_step(grid, config(name), plan.memory);
    EXPECT_EQ(plan.collectives.size(), seen.size());
    for (const CollectiveCount& planned : plan.collectives) {
      SCOPED_TRACE(planned.group + " " + std::string(planned.name));
      const auto entry = seen.find({planned.group, std::string(planned.name)});
      EXPECT_NE(entry, seen.end());
      if (entry == seen.end()) continue;
      EXPECT_EQ(planned.calls, entry->second.calls);
      EXPECT_EQ(planned.payload_bytes, entry->second.payload_bytes);
    }
    EXPECT_EQ(seen.empty(), ranks == 1);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Plan, PlannedGrid,
    ::testing::Values(
        HeadCase{.name = "dense", .kind = HeadKind::dense},
        HeadCase{.name = "dense_tied", .kind = HeadKind::dense, .tied = true},
        HeadCase{.name = "dense_muon", .kind = HeadKind::dense, .optimizer = OptimizerKind::muon},
        HeadCase{.name = "dense_input_tables", .kind = HeadKind::dense, .body = "tables"},
        HeadCase{.name = "low_rank", .kind = HeadKind::low_rank},
        HeadCase{.name = "low_rank_tied", .kind = HeadKind::low_rank, .tied = true},
        HeadCase{.name = "adaptive", .kind = HeadKind::adaptive}, HeadCase{.name = "vq", .kind = HeadKind::vq},
        HeadCase{.name = "vq_ema", .kind = HeadKind::vq, .learning = CodebookLearning::ema},
        HeadCase{.name = "vq_embedding_mean", .kind = HeadKind::vq, .embedding = true, .means_and_input_codes = true},
        HeadCase{.name = "future_dense", .kind = HeadKind::dense, .future = 2},
        HeadCase{.name = "future_vq",
                 .kind = HeadKind::vq,
                 .learning = CodebookLearning::gradient,
                 .embedding = true,
                 .means_and_input_codes = true,
                 .future = 2}),
    [](const auto& test) { return std::string(test.param.name); });

}  // namespace
}  // namespace vqlm
