#include "train/config/same_model.h"

#include "train/config/config_keys.h"

namespace vqlm {
namespace {

using config_keys::Identity;
using config_keys::Key;

bool averages(const Config& config) {
  const auto* vq = vq_of(config.head);
  return vq != nullptr && vq->averages();
}

bool matters(const Key& key, const Config& now, const Config& saved, Compared compared) {
  switch (key.identity) {
    case Identity::no:
      return false;
    case Identity::model:
      return compared == Compared::model;
    case Identity::averages:
      return compared == Compared::averages && averages(now) != averages(saved);
    case Identity::optimizer:
      return compared == Compared::averages;
    case Identity::samples:
      return compared == Compared::samples;
  }
  return false;
}

}  // namespace

std::optional<KeyDifference> first_difference(const Config& now, const Config& saved, Compared compared) {
  for (const Key& key : config_keys::all()) {
    if (!matters(key, now, saved, compared)) continue;
    // Where one lacks it, the choice that the key needs differs, and is named.
    if (key.missing(now) != nullptr || key.missing(saved) != nullptr) continue;
    KeyDifference difference{key.full_name(), key.text(now), key.text(saved)};
    if (difference.now != difference.saved) return difference;
  }
  return std::nullopt;
}

std::vector<KeyDifference> differences(const Config& now, const Config& saved) {
  std::vector<KeyDifference> found;
  for (const Key& key : config_keys::all()) {
    if (key.missing(now) != nullptr || key.missing(saved) != nullptr || key.text(now) == key.text(saved)) continue;
    found.push_back({key.full_name(), key.text(now), key.text(saved)});
  }
  return found;
}

}  // namespace vqlm
