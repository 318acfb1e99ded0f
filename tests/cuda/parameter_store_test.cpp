// The store in bf16: which f32 values lie on a rank, and what ops read everywhere.
#include "core/parameters.h"

#include <algorithm>

#include "tests/cuda/op_testing_cuda.h"

namespace vqlm::testing {
namespace {

/// A matrix of more elements than are rounded at once, a small one, and in a bucket of its own a gain.
class ParameterStoreTest : public CudaOpTest {
 protected:
  static Parameter parameter(const std::string& name, Shape shape, Shape offset) {
    return {.name = name,
            .global_shape = shape,
            .offset = offset,
            .shape = shape,
            .init = {},
            .role = shape.rank() > 1 ? ParameterRole::block : ParameterRole::gain};
  }
  ParameterStore filled(DataShare share, bool trainable) {
    ParameterStore store(*device, share);
    const int matrices = store.add_bucket("matrices", false), gains = store.add_bucket("gains", true);
    store.add_bucket("empty", false);
    store.add(matrices, {parameter("large", {700, 1501}, {0, 0}), parameter("small", {5, 7}, {0, 0})});
    store.add(gains, {parameter("gain", {33}, {0})});
    store.allocate(trainable);
    for (ParameterId id = 0; id < 3; ++id) store.set_slice(id, values(store, id));
    return store;
  }
  static std::vector<float> values(const ParameterStore& store, ParameterId id) {
    std::vector<float> slice(static_cast<std::size_t>(store.parameters()[static_cast<std::size_t>(id)].shape.numel()));
    for (std::size_t i = 0; i < slice.size(); ++i)
      slice[i] = static_cast<float>(id + 1) + 1e-6f * static_cast<float>(i % 9973);
    return slice;
  }
  std::vector<float> host(Tensor x) const {
    std::vector<float> copy(static_cast<std::size_t>(x.numel()));
    device->copy_to_host(copy.data(), x);
    return copy;
  }
  /// What every rank has, whichever f32 values lie there.
  void expect_operands(const ParameterStore& store) const {
    for (ParameterId id = 0; id < 2; ++id) {
      const Tensor operand = store.operand(id);
      std::vector<std::uint16_t> bits(static_cast<std::size_t>(operand.numel())), expected;
      device->copy_to_host(bits.data(), operand);
      for (const float value : values(store, id)) expected.push_back(bf16_bits(value));
      EXPECT_EQ(bits, expected);
    }
    EXPECT_EQ(host(store.operand(2)), values(store, 2));
  }
};

TEST_F(ParameterStoreTest, AnOwnerHasItsPieceOfEveryMatrix) {
  constexpr int ranks = 3;
  for (int rank = 0; rank < ranks; ++rank) {
    SCOPED_TRACE(rank);
    const ParameterStore store = filled({.size = ranks, .rank = rank}, true);
    const ParameterBucket& bucket = store.buckets()[0];
    EXPECT_EQ(bucket.masters_count, bucket.count / ranks);
    EXPECT_EQ(bucket.masters_begin, bucket.begin + rank * bucket.count / ranks);
    std::int64_t here = 0;
    for (ParameterId id = 0; id < 2; ++id) {
      const Parameter& p = store.parameters()[static_cast<std::size_t>(id)];
      const std::int64_t begin = std::max(p.flat_begin, bucket.masters_begin);
      const std::int64_t end = std::min(p.flat_begin + p.shape.numel(), bucket.masters_begin + bucket.masters_count);
      if (begin >= end) continue;
      const std::vector<float> all = values(store, id);
      EXPECT_EQ(host(store.masters(begin, end - begin)),
                std::vector<float>(all.begin() + (begin - p.flat_begin), all.begin() + (end - p.flat_begin)));
      here += end - begin;
    }
    EXPECT_GT(here, 0);
    EXPECT_FALSE(store.has_masters(bucket.begin, bucket.count));
    EXPECT_EQ(host(store.value(2)), values(store, 2));  // vectors lie everywhere
    expect_operands(store);
  }
}

TEST_F(ParameterStoreTest, AModelThatDoesNotTrainHasNoMasters) {
  const ParameterStore store = filled({}, false);
  EXPECT_EQ(store.buckets()[0].masters_count, 0);
  EXPECT_FALSE(store.has_masters(0, 1));
  EXPECT_EQ(host(store.value(2)), values(store, 2));
  expect_operands(store);
}

TEST_F(ParameterStoreTest, OneRankHasAll) {
  const ParameterStore store = filled({}, true);
  for (ParameterId id = 0; id < 3; ++id) EXPECT_EQ(host(store.value(id)), values(store, id));
  EXPECT_TRUE(store.has_masters(0, store.flat_size()));
  expect_operands(store);
}

}  // namespace
}  // namespace vqlm::testing
