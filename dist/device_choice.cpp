#include "dist/device_choice.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <set>
#include <sstream>

#include "core/error.h"

namespace vqlm {
namespace {

[[noreturn]] void refuse_sharing(const std::vector<std::vector<std::string>>& visible, std::size_t rank) {
  std::set<std::string> gpus;
  for (const auto& ids : visible) gpus.insert(ids.begin(), ids.end());
  const bool slices =
      std::any_of(gpus.begin(), gpus.end(), [](const std::string& gpu) { return gpu.ends_with(mig_mark); });
  if (slices) {
    throw UsageError(fmt::format(
        "{} ranks on this node, but the GPUs that they see ({}) are MIG slices of fewer cards: slices of one card cannot "
        "exchange tensors (NCCL); start one rank, switch MIG off (nvidia-smi -mig 0), or use run.device = \"cpu\"",
        visible.size(), fmt::join(gpus, ", ")));
  }
  const char* setting = std::getenv("CUDA_VISIBLE_DEVICES");
  throw UsageError(fmt::format(
      "{} ranks on this node, {} GPU{} visible ({}): every rank needs a GPU of its own, and those that number {} sees "
      "({}) are taken; start at most {} ranks a node, let each see all GPUs of its node or one of its own (srun "
      "--gpus-per-task=1), or use run.device = \"cpu\"",
      visible.size(), gpus.size(), gpus.size() == 1 ? "" : "s",
      setting != nullptr ? fmt::format("CUDA_VISIBLE_DEVICES={}", setting) : "CUDA_VISIBLE_DEVICES not set", rank,
      fmt::join(visible[rank], ", "), gpus.size()));
}

}  // namespace

std::vector<int> choose_devices(const std::vector<std::vector<std::string>>& visible) {
  std::vector<int> chosen(visible.size(), 0);
  std::set<std::string> taken;
  for (std::size_t rank = 0; rank < visible.size(); ++rank) {
    const std::vector<std::string>& ids = visible[rank];
    if (ids.empty()) continue;
    const auto free = std::find_if(ids.begin(), ids.end(), [&](const std::string& id) { return !taken.contains(id); });
    if (free == ids.end()) refuse_sharing(visible, rank);
    taken.insert(*free);
    chosen[rank] = static_cast<int>(free - ids.begin());
  }
  return chosen;
}

int choose_device(const MpiSession& session, const std::vector<std::string>& visible) {
  std::vector<std::vector<std::string>> all;
  for (const std::string& text : session.gather_texts_of_node(fmt::format("{}", fmt::join(visible, " ")))) {
    std::istringstream words(text);
    all.emplace_back(std::istream_iterator<std::string>(words), std::istream_iterator<std::string>());
  }
  return choose_devices(all)[static_cast<std::size_t>(session.local_rank())];
}

}  // namespace vqlm
