// The checks of a command that examines the machine: each runs on every rank, and one line says how it went.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "launch/environment.h"
#include "train/tools/selftest/doctor.h"

namespace vqlm {

class CheckList {
 public:
  /// `command`: for the last line. The environment must outlive the list.
  CheckList(Environment& environment, std::string command) : environment_(environment), command_(std::move(command)) {}

  /// One line on standard output, by one rank, at once, so that a hang or a crash shows after what.
  void say(const std::string& subject, const std::string& text) const;
  enum class Alone { yes, no };
  /// Runs a check on every rank; true where it passed on all. What it throws is its failure, unless ranks work together
  /// in it (Alone::no): then the others are waiting, and the job ends. Rates of Alone::yes are added up. Collective.
  bool run(const std::string& name, Alone alone, const std::function<DoctorCheck()>& check);
  void skip(const std::string& name, const std::string& why) const;
  /// Writes the report to `json_file` (none where empty); throws Error naming the checks that failed.
  void conclude(const std::string& json_file);

  /// What the JSON file will hold; "checks" and "ok" are the list's.
  nlohmann::json& report() { return report_; }

 private:
  Environment& environment_;
  std::string command_;
  nlohmann::json report_ = nlohmann::json::object();
  int passed_ = 0;
  std::vector<std::string> failed_;
};

}  // namespace vqlm
