#include "train/engine/learned_map.h"

#include <spdlog/fmt/fmt.h>
#include <spdlog/fmt/ranges.h>

#include <numeric>

#include "core/log.h"
#include "core/host_collectives.h"
#include "train/engine/head_access.h"
#include "train/engine/stopwatch.h"

namespace vqlm {
namespace {

constexpr int root = 0;

VqHead& vq_head_of(Transformer& model) {
  auto* const head = dynamic_cast<VqHead*>(&model.head());
  VQLM_ASSERT(head != nullptr);
  return *head;
}

/// FNV-1a of the map's numbers.
std::uint64_t map_fingerprint(const CodeMap& map) {
  std::uint64_t hash = 0xcbf29ce484222325u;
  const auto add = [&](std::uint64_t value) { hash = (hash ^ value) * 0x100000001b3u; };
  for (const std::int32_t cluster : map.cluster_of_token) add(static_cast<std::uint64_t>(cluster));
  for (const std::uint8_t code : map.member_codes) add(code);
  return hash;
}

}  // namespace

bool refits_after(const Config& config, std::int64_t step) {
  const HeadConfig& head = config.head;
  return head.map_is_learned() && step > 0 && step % head.refit_every == 0 && step <= head.refit_until;
}

bool in_refit_window(const Config& config, std::int64_t step) {
  const HeadConfig& head = config.head;
  return head.map_is_learned() && step <= head.refit_until / head.refit_every * head.refit_every;
}

LearnedMap::LearnedMap(Parts parts, std::int64_t step, const std::optional<ClassSums>& sums)
    : parts_(parts),
      head_(vq_head_of(parts.model)),
      rows_(parts.backend, parts.model, parts.config.model, parts.config.head,
            parts.accumulator.micro_batches(), static_cast<std::uint64_t>(parts.config.train.seed)),
      sums_(parts.config.model.vocab_size, rows_.dims()) {
  if (sums && in_refit_window(parts.config, step + 1)) {
    if (sums->dims != sums_.dims || sums->vocab_size != sums_.vocab_size) {
      throw UsageError(
          fmt::format("head.refit_dims = {} projects to {} dimensions, but the checkpoint's unfinished "
                      "window has {}: set "
                      "refit_dims = {}, or start another run.dir",
                      parts.config.head.refit_dims, sums_.dims, sums->dims, sums->dims));
    }
    if (parts_.grid.world().rank() == root) sums_ = *sums;  // they are all ranks' sum
  }
  gather_rows(step + 1);
}

void LearnedMap::gather_rows(std::int64_t next_step) {
  parts_.accumulator.keep_hidden(in_refit_window(parts_.config, next_step) ? &rows_ : nullptr);
}

void LearnedMap::add_step(std::int64_t step) {
  if (!in_refit_window(parts_.config, step)) return;
  const std::span<const float> rows = rows_.rows();
  const auto local = static_cast<std::size_t>(parts_.model.local_rows());
  const auto width = static_cast<std::size_t>(rows_.dims());
  for (std::int64_t number = 0; number < parts_.accumulator.micro_batches(); ++number) {
    const std::span<const std::int32_t> targets = parts_.accumulator.targets(number);
    sums_.add(rows.subspan(static_cast<std::size_t>(number) * local * width, local * width),
              targets.subspan(static_cast<std::size_t>(parts_.grid.tensor_rank()) * local, local));
  }
}

double LearnedMap::micro_batch_loss() const {
  std::vector<double> sums = {parts_.accumulator.last_micro_batch_loss(),
                              static_cast<double>(parts_.model.local_rows())};
  sum_over(parts_.backend, parts_.grid.world(), sums);
  return sums[0] / sums[1];
}

void LearnedMap::broadcast(Refit& fit) const {
  Backend& backend = parts_.backend;
  Communicator& world = parts_.grid.world();
  broadcast_from(backend, world, root, fit.map.cluster_of_token);
  broadcast_from(backend, world, root, fit.map.member_codes);
  std::vector<std::uint8_t> text(fit.map.provenance.begin(), fit.map.provenance.end());
  broadcast_from(backend, world, root, text);
  fit.map.provenance.assign(text.begin(), text.end());
  broadcast_head(backend, world, root, fit.head);
  std::vector<double> moved = {fit.moved_tokens, fit.moved_mass};  // zeros on other ranks
  sum_over(backend, world, moved);
  fit.moved_tokens = moved[0];
  fit.moved_mass = moved[1];
}

RefitReport LearnedMap::refit(std::int64_t step) {
  const double begun = wall_seconds();
  Backend& backend = parts_.backend;
  Communicator& world = parts_.grid.world();
  const auto wait = world.expect_long_wait("re-fitting the code map");
  RefitReport report{.loss_before = micro_batch_loss()};
  const ClassSums total = total_over(backend, world, sums_);
  report.rows =
      static_cast<double>(std::accumulate(total.counts.begin(), total.counts.end(), std::int64_t{0}));
  if (report.rows == 0) {  // every step of the window was skipped: there is nothing to fit to
    log::warn("step {}: the code map stays as it is, no step since the last re-fit had a finite gradient",
              step);
    gather_rows(step + 1);
    report.loss_after = report.loss_before;
    report.seconds = wall_seconds() - begun;
    return report;
  }
  Refit fit{.map = parts_.map,
            .head = read_head(backend, parts_.grid, parts_.model.parameters(), parts_.optimizer)};
  if (world.rank() == root) {
    fit = refit_map(parts_.map, fit.head, total, parts_.counts,
                    {.own_tokens = parts_.config.head.own_tokens,
                     .seed = static_cast<std::uint64_t>(parts_.config.train.seed),
                     .step = step},
                    backend);
  }
  broadcast(fit);
  parts_.map = std::move(fit.map);
  head_.set_map(parts_.map);
  write_head(backend, parts_.model.parameters(), parts_.optimizer, fit.head);
  check_copies(step);
  sums_.clear();
  parts_.accumulator.record_again();
  gather_rows(step + 1);
  report.loss_after = micro_batch_loss();
  report.moved_tokens = fit.moved_tokens;
  report.moved_mass = fit.moved_mass;
  report.seconds = wall_seconds() - begun;
  return report;
}

void LearnedMap::check_copies(std::int64_t step) const {
  const std::vector<std::uint64_t> own = {map_fingerprint(parts_.map),
                                          head_fingerprint(parts_.backend, parts_.model.parameters())};
  const std::vector<std::uint64_t> all = gather_from_all(parts_.backend, parts_.grid.world(), own);
  std::vector<std::size_t> others;
  for (std::size_t rank = 0; rank < all.size() / own.size(); ++rank) {
    if (all[2 * rank] != all[0] || all[2 * rank + 1] != all[1]) others.push_back(rank);
  }
  if (others.empty()) return;
  throw Error(fmt::format(
      "step {}: after the code map was re-fit, map or codebooks of rank {} are not those of rank 0; memory, "
      "processor or a link there is suspect: leave that machine out and continue with --resume",
      step, fmt::join(others, ", ")));
}

std::optional<ClassSums> LearnedMap::unfinished(std::int64_t step) const {
  if (refits_after(parts_.config, step) || !in_refit_window(parts_.config, step + 1)) return std::nullopt;
  ClassSums total = total_over(parts_.backend, parts_.grid.world(), sums_);
  if (parts_.grid.world().rank() != root) return std::nullopt;
  return total;
}

}  // namespace vqlm
