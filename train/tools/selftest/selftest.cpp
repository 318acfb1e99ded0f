#include "train/tools/selftest/selftest.h"

#include <spdlog/fmt/fmt.h>

#include <cmath>
#include <limits>
#include <utility>

#include "core/cpu/cpu_backend.h"
#include "core/error.h"
#include "core/host_collectives.h"
#include "train/config/enum_words.h"
#include "train/engine/replica_check.h"
#include "train/engine/stopwatch.h"

namespace vqlm {
namespace {

constexpr HeadKind heads[] = {HeadKind::dense, HeadKind::vq};

}  // namespace

DoctorCheck check_against_cpu(Backend& backend) {
  if (backend.host_accessible()) return {.text = "the CPU back end itself: nothing to compare with"};
  const auto cpu = make_cpu_backend(1);
  const ProcessGrid of_device(backend), of_cpu(*cpu);
  double worst_loss = 0, worst_norm = 0;
  for (const HeadKind head : heads) {
    SelftestModel model(backend, of_device, head), oracle(*cpu, of_cpu, head);
    for (int step = 1; step <= 2; ++step) {
      const SelftestModel::Step got = model.step(), expected = oracle.step();
      const double loss = std::abs(got.loss / expected.loss - 1), norm = std::abs(got.norm / expected.norm - 1);
      if (!(loss <= 0.002 && norm <= 0.01)) {
        return {.ok = false,
                .text = fmt::format("{} head, step {}: loss {:.5f} and gradient norm {:.5f}, on the CPU {:.5f} and "
                                    "{:.5f}: {}, its driver or a library is broken; compute on another one",
                                    word_of(head), step, got.loss, got.norm, expected.loss, expected.norm,
                                    backend.description())};
      }
      worst_loss = std::max(worst_loss, loss);
      worst_norm = std::max(worst_norm, norm);
    }
  }
  return {.text =
              fmt::format("losses within {:.2g}, gradient norms within {:.2g} of the CPU's", worst_loss, worst_norm)};
}

DoctorCheck check_determinism(Backend& backend, const ProcessGrid& grid) {
  const double begin = wall_seconds();
  for (const HeadKind head : heads) {
    std::vector<std::uint64_t> states[2];
    for (auto& of_run : states) {
      SelftestModel model(backend, grid, head);
      for (int step = 0; step < 3; ++step) {
        model.step();
        of_run.push_back(model.state());
      }
    }
    for (std::size_t step = 0; step < 3; ++step) {
      if (states[0][step] == states[1][step]) continue;
      return {.ok = false,
              .text = fmt::format("{} head: step {} made twice from the same start gave different bits on rank {}: its "
                                  "memory, its processor or a library that chooses algorithms by time is suspect",
                                  word_of(head), step + 1, grid.world().rank())};
    }
  }
  return {.text = fmt::format("3 steps of both heads twice: the same bits, {:.2f} s", wall_seconds() - begin)};
}

DoctorCheck check_spike(Backend& backend, const ProcessGrid& grid) {
  const int last = grid.world().size() - 1;
  for (const HeadKind head : heads) {
    SelftestModel model(backend, grid, head);
    model.step();
    const std::uint64_t before = model.state();
    const SelftestModel::Step struck = model.step([&](const ParameterBucket& bucket) {
      if (grid.world().rank() != last || bucket.name != "layer 1") return;
      constexpr float nan = std::numeric_limits<float>::quiet_NaN();
      backend.copy_from_host(model.parameters().flat_gradients().range(bucket.begin + bucket.count / 2, 1), &nan);
    });
    // Collective, and so apart from what ranks may see alone.
    const std::uint64_t struck_state = model.state();
    const SelftestModel::Step after = model.step();
    const std::uint64_t after_state = model.state();
    const bool skipped = !std::isfinite(struck.norm) && struck_state == before;
    const bool goes_on = std::isfinite(after.norm) && std::isfinite(after.loss) && after_state != before;
    if (skipped && goes_on) continue;
    return {.ok = false,
            .text = fmt::format(
                "{} head: a NaN in the gradient of rank {} {} on rank {}: the all-reduce of the gradient "
                "norm is not to be trusted here; run vqlm doctor",
                word_of(head), last, skipped ? "ended the training" : "was not skipped", grid.world().rank())};
  }
  return {.text = fmt::format("a NaN in the gradient of rank {} was skipped on all", last)};
}

DoctorCheck check_replica_check(Backend& backend, const ProcessGrid& grid) {
  if (grid.world().size() == 1) return {.text = "one rank: no copies"};
  SelftestModel model(backend, grid, HeadKind::vq);
  model.step();
  model.gather_parameters();
  const ParameterStore& store = model.parameters();
  const ReplicaCheck check(backend, grid, store);
  check.run(1);  // an Error here is the check's own message
  for (const ParameterBucket& bucket : store.buckets()) {
    if (!bucket.replicated) continue;
    const Tensor element =
        (store.flat_rounded() ? store.flat_rounded() : store.flat_values()).range(bucket.begin + bucket.count / 2, 1);
    std::uint32_t bits = 0;
    backend.copy_to_host(&bits, element);
    bits ^= grid.world().rank() == grid.world().size() - 1 ? 1u : 0u;
    backend.copy_from_host(element, &bits);
  }
  try {
    check.run(2);
  } catch (const Error&) {
    return {.text = "equal copies pass, a flipped bit is found"};
  }
  return {.ok = false,
          .text = fmt::format(
              "a bit flipped on rank {} was not found by rank {}: the all-gather of {} is not to be trusted",
              grid.world().size() - 1, grid.world().rank(), backend.description())};
}

}  // namespace vqlm
