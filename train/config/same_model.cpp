#include "train/config/same_model.h"

#include "train/config/config_keys.h"

namespace vqlm {
namespace {

using config_keys::Identity;
using config_keys::Key;

bool matters(Identity identity, const HeadConfig& now, const HeadConfig& saved, Compared compared) {
  const bool of_model = compared == Compared::model, vq = saved.kind == HeadKind::vq;
  switch (identity) {
    case Identity::no:
      return false;
    case Identity::model:
      return of_model;
    case Identity::vq:
      return of_model && vq;
    case Identity::product_codes:
      return of_model && vq && saved.groups > 0;
    case Identity::embedding_members:
      return of_model && vq && saved.members == MemberVectors::embedding;
    case Identity::averages:
      return compared == Compared::averages && vq &&
             (now.learning == CodebookLearning::ema || saved.learning == CodebookLearning::ema);
    case Identity::samples:
      return compared == Compared::samples;
  }
  return false;
}

}  // namespace

std::optional<KeyDifference> first_difference(const Config& now, const Config& saved, Compared compared) {
  for (const Key& key : config_keys::all()) {
    if (!matters(key.identity, now.head, saved.head, compared)) continue;
    KeyDifference difference{key.full_name(), key.text(now), key.text(saved)};
    if (difference.now != difference.saved) return difference;
  }
  return std::nullopt;
}

}  // namespace vqlm
