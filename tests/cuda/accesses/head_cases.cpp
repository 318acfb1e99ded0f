// Output heads over rows of width 768: a softmax of padded classes, and clusters of members with sub-codes (G = 32 groups of
// 24, Q = 256) and with vectors of their own.
#include "tests/core/member_part.h"
#include "tests/cuda/accesses/access_case.h"
#include "tests/cuda/member_map.h"

namespace vqlm::testing {
namespace {

constexpr std::int64_t d = 768;

using HeadCase = AccessCase;

TEST_F(HeadCase, Softmax) {
  constexpr std::int64_t rows = 12;
  // Padded to 64 columns as the dense head's classes are, and the K codes of a VQ head.
  for (const auto& [classes, columns] : {std::pair<std::int64_t, std::int64_t>{5003, 5056}, {256, 256}}) {
    const Tensor logits = activations({rows, columns}), bias = reals({classes}), targets = ids({rows}, 0, classes - 1),
                 nll = room({rows}, DType::f32), lse = room({rows}, DType::f32), penalty = room({rows}, DType::f32),
                 statistics = room({rows, 3}, DType::f32);
    const ClassShard shard{.first = 0, .count = classes};
    device->run(SoftmaxStatistics{
        .statistics = statistics, .logits = logits, .bias = bias, .targets = targets, .classes = shard});
    device->run(SoftmaxCombine{.nll = nll,
                               .lse = lse,
                               .statistics = statistics.view({1, rows, 3}),
                               .targets = targets,
                               .penalty = penalty,
                               .z_loss = 1e-4f});
    device->run(SoftmaxGradient{
        .logits = logits, .bias = bias, .lse = lse, .targets = targets, .classes = shard, .scale = 0.1f});
    device->run(SoftmaxCrossEntropy{.nll = nll,
                                    .lse = lse,
                                    .penalty = penalty,
                                    .dbias = reals({classes}),
                                    .logits = activations({rows, columns}),
                                    .statistics = statistics,
                                    .bias = bias,
                                    .targets = targets,
                                    .classes = shard,
                                    .scale = 0.1f,
                                    .z_loss = 1e-4f});
    device->run(LogSoftmax{.logits = reals({rows, columns})});
  }
}

TEST_F(HeadCase, Codes) {
  constexpr std::int64_t rows = 96, codes = 64;
  CodeMapView map;
  map.cluster_of_token = ids({1000}, 0, codes - 1);
  const Tensor clusters = room({rows}, DType::i32);
  device->run(SortRowsByCluster{.clusters = clusters,
                                .order = room({rows}, DType::i32),
                                .row_begin = room({codes + 1}, DType::i32),
                                .targets = ids({rows}, 0, 999),
                                .map = map});
  device->run(Commitment{.penalty = room({rows}, DType::f32),
                         .dh = activations({rows, d}),
                         .h = activations({rows, d}),
                         .codebook = activations({codes, d}),
                         .clusters = clusters,
                         .beta = 0.25f,
                         .scale = 0.1f});
  device->run(CodesFromAverages{
      .codebook = reals({codes, d}), .sums = reals({codes, d}), .counts = positive({codes}), .scale = 1});
}

TEST_F(AccessCase, ManyRowsToSort) {  // tiles whose counts are added up by a kernel of their own
  constexpr std::int64_t rows = 66 * 2048;
  CodeMapView map;
  map.cluster_of_token = ids({1000}, 0, 63);
  device->run(SortRowsByCluster{.clusters = room({rows}, DType::i32),
                                .order = room({rows}, DType::i32),
                                .row_begin = room({65}, DType::i32),
                                .targets = ids({rows}, 0, 999),
                                .map = map});
}

/// A head and a batch whose rows are sorted by cluster, on the device.
struct Batch {
  Batch(const MemberCase& of, Backend& device, Backend& oracle)
      : c(of),
        map(of),
        on_device(device, map),
        targets(random_integers<std::int32_t>({of.rows}, "targets", 0, of.vocabulary() - 1)),
        order({of.rows}),
        row_begin({of.clusters() + 1}) {
    HostI32 clusters({of.rows});
    oracle.run(SortRowsByCluster{
        .clusters = clusters, .order = order, .row_begin = row_begin, .targets = targets, .map = map.view()});
  }
  MemberCase c;
  MemberMap map;
  DeviceMemberMap on_device;
  HostI32 targets, order, row_begin;
};

class MemberAccessCase : public AccessCase {
 protected:
  void run_head(const MemberCase& c) {
    Batch batch(c, *device, *oracle);
    const std::int64_t rows = c.rows, vocabulary = c.vocabulary();
    const Tensor h = activations({rows, d}), vectors = activations(c.codebook_shape()), bias = reals({vocabulary});
    device->run(
        MemberEntropy{.nll = reals({rows}),
                      .gradients = {activations({rows, d}), reals(c.codebook_shape()), reals({vocabulary}), 0.1f},
                      .h = h,
                      .targets = copy_of(batch.targets),
                      .order = copy_of(batch.order),
                      .row_begin = copy_of(batch.row_begin),
                      .member_codebook = vectors,
                      .token_bias = bias,
                      .map = batch.on_device.view()});
    constexpr std::int64_t few = 6;
    device->run(MemberLogProbs{.log_probs = room({few, vocabulary}, DType::f32),
                               .h = activations({few, d}),
                               .code_log_probs = reals({few, c.clusters()}),
                               .member_codebook = vectors,
                               .token_bias = bias,
                               .map = batch.on_device.view()});
    device->run(ClusterLogProbs{.out = room({few, batch.map.largest_cluster}, DType::f32),
                                .h = h,
                                .rows = ids({few}, 0, 0),
                                .clusters = ids({few}, 0, c.clusters() - 1),
                                .member_codebook = vectors,
                                .token_bias = bias,
                                .map = batch.on_device.view()});
  }
};

TEST_F(MemberAccessCase, SubCodes) {
  run_head({"", 160, 32, 256, 24, {200, 196, 130}});
}

TEST_F(MemberAccessCase, OwnVectors) {
  run_head(with_own_vectors("", 160, static_cast<int>(d), {200, 196, 130}));
}

TEST_F(MemberAccessCase, NoVectors) {
  const MemberCase c{"", 160, 0, 0, static_cast<int>(d), {200, 196, 130}};
  Batch batch(c, *device, *oracle);
  device->run(MemberEntropy{.nll = reals({c.rows}),
                            .gradients = {activations({c.rows, d}), {}, reals({c.vocabulary()}), 0.1f},
                            .h = activations({c.rows, d}),
                            .targets = copy_of(batch.targets),
                            .order = copy_of(batch.order),
                            .row_begin = copy_of(batch.row_begin),
                            .token_bias = reals({c.vocabulary()}),
                            .map = batch.on_device.view()});
}

TEST_F(MemberAccessCase, MeansOfMembers) {
  const MemberCase c = with_own_vectors("", 1, static_cast<int>(d), {40, 24});
  Batch batch(c, *device, *oracle);
  device->run(AddMemberMeans{.out = room({2, d}, DType::bf16),
                             .codebook = activations({2, d}),
                             .members = activations({64, d}),
                             .map = batch.on_device.view()});
  device->run(AddMemberMeansBackward{
      .dcodebook = reals({2, d}), .dmembers = reals({64, d}), .dout = reals({2, d}), .map = batch.on_device.view()});
}

TEST_F(MemberAccessCase, PartsOfClusters) {
  const MemberCase c = with_own_vectors("", 160, static_cast<int>(d), {200, 196, 130});
  Batch batch(c, *device, *oracle);
  MemberPart part = member_part(batch.map, 1, 2);
  const CodeMapView map{copy_of(batch.map.cluster_of_token),
                        copy_of(part.position_of_token),
                        copy_of(part.members),
                        copy_of(part.member_begin),
                        {},
                        copy_of(part.cluster_sizes)};
  const Tensor h = activations({c.rows, d}), vectors = activations({part.members.size(), d}),
               bias = reals({c.vocabulary()}), targets = copy_of(batch.targets), order = copy_of(batch.order),
               row_begin = copy_of(batch.row_begin);
  device->run(MemberStatistics{.statistics = room({c.rows, 3}, DType::f32),
                               .h = h,
                               .targets = targets,
                               .order = order,
                               .row_begin = row_begin,
                               .vectors = vectors,
                               .token_bias = bias,
                               .map = map});
  device->run(MemberPartGradient{
      .gradients = {activations({c.rows, d}), reals({part.members.size(), d}), reals({c.vocabulary()}), 0.1f},
      .h = h,
      .lse = positive({c.rows}),
      .targets = targets,
      .order = order,
      .row_begin = row_begin,
      .vectors = vectors,
      .token_bias = bias,
      .map = map});
  device->run(MemberMeansPart{.means = room({3, d}, DType::f32), .vectors = vectors, .map = map});
}

}  // namespace
}  // namespace vqlm::testing
