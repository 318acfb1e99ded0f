// What is said to a configuration that is refused.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "core/error.h"
#include "train/config/config.h"

namespace vqlm {

/// The message of the UsageError that `call` throws; empty where it throws none.
template <class Call>
std::string usage_error(Call call) {
  try {
    call();
  } catch (const UsageError& error) {
    EXPECT_EQ(error.exit_code(), 2);
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos) << "one line";
    return error.what();
  }
  return "";
}

inline std::string override_error(const std::string& text) {
  return usage_error([&] { load_config({}, {text}); });
}

/// What resolve says to the defaults with these overrides, for a vocabulary of 1,000.
inline std::string resolve_error(const std::vector<std::string>& overrides, int ranks = 1) {
  Config config = load_config({}, overrides);
  return usage_error([&] { resolve(config, 1000, ranks); });
}

}  // namespace vqlm
