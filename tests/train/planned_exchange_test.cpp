// What a model's tensor ranks send each other, by the plan.
#include <gtest/gtest.h>

#include "tests/train/tiny_run.h"
#include "train/engine/plan.h"

namespace vqlm {
namespace {

using testing::tiny_config;

constexpr std::int64_t vocabulary = 4096;

/// Bytes that a tensor group's rank sends in a step of 24 sequences.
double tensor_bytes(Config config, int tensor, std::int64_t micro_batch) {
  config.data.heldout.clear();
  config.train.global_batch = 24;
  config.train.micro_batch = micro_batch;
  config.parallel.data = 1;
  config.parallel.tensor = tensor;
  resolve(config, vocabulary, tensor);
  double sent = 0;
  for (const CollectiveCount& count : plan_step(config, {.activation = DType::f32}).collectives) {
    if (count.group == "tensor") sent += count.sent_bytes;
  }
  return sent;
}

// The members' part of the softmax is exchanged as a tied dense head's classes are. Beside that come the sums of the clusters'
// means and of their gradient, and the gradients of what every rank has whole, the codebook and the biases: once in a step,
// however many micro-batches it has.
TEST(TensorExchange, OfMembersByTheEmbeddingIsThatOfATiedHeadAndSumsOncePerStep) {
  Config tied = tiny_config(HeadKind::dense, "none", "none/run");
  tied.model.tie_embeddings = true;
  Config vq = tiny_config(HeadKind::vq, "none", "none/run");
  auto& head = std::get<VqHeadConfig>(vq.head);
  head.members = EmbeddingMembersConfig{.mean = true};
  head.clusters = 64;
  const std::int64_t codes = head.clusters * vq.model.d_model;
  const double summed = sizeof(float) * static_cast<double>(2 * codes + codes + head.clusters + vocabulary);
  for (const int tensor : {2, 4}) {
    for (const std::int64_t micro_batch : {24, 6, 3}) {
      SCOPED_TRACE(::testing::Message() << tensor << " ranks, micro-batches of " << micro_batch);
      const double all_reduces = 2.0 * (tensor - 1) / tensor * summed;
      EXPECT_DOUBLE_EQ(tensor_bytes(vq, tensor, micro_batch) - tensor_bytes(tied, tensor, micro_batch), all_reduces);
    }
  }
}

}  // namespace
}  // namespace vqlm
