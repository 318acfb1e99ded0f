// Whether a configuration goes on with what a trained model or a run was made with: the table of keys says what matters
// (Identity in config_keys.h).
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "train/config/config.h"

namespace vqlm {

/// A key on which two configurations differ; the values as a configuration file writes them.
struct KeyDifference {
  std::string key;
  std::string now;
  std::string saved;
};

/// What two configurations are compared in.
enum class Compared {
  model,     // what gives a tensor its shape or its meaning
  averages,  // what a checkpoint holds beside the model: moving averages of codes, moments of an optimizer
  samples,   // which samples a run reads, and in which order
};

/// The first key, in the table's order, of those that matter to the saved model or run; none where all agree. Both must be
/// resolved.
std::optional<KeyDifference> first_difference(const Config& now, const Config& saved, Compared compared);

/// All keys that both have and whose values differ.
std::vector<KeyDifference> differences(const Config& now, const Config& saved);

}  // namespace vqlm
