#include "launch/commands/check_list.h"

#include <spdlog/fmt/fmt.h>
#include <spdlog/fmt/ranges.h>

#include <cstdio>

#include "core/error.h"
#include "data/files/atomic_file.h"

namespace vqlm {

using nlohmann::json;

void CheckList::say(const std::string& subject, const std::string& text) const {
  if (environment_.is_root()) std::printf("%-8s%s\n", subject.c_str(), text.c_str());
  std::fflush(stdout);
}

bool CheckList::run(const std::string& name, Alone alone, const std::function<DoctorCheck()>& check) {
  const MpiSession& mpi = environment_.mpi();
  DoctorCheck mine;
  try {
    mine = check();
  } catch (const std::exception& error) {
    if (alone == Alone::no && mpi.size() > 1) throw;
    mine = {.ok = false, .text = error.what()};
  }
  const json of_this_rank = {{"ok", mine.ok}, {"text", mine.text}, {"rate", mine.rate}};
  constexpr auto replace = json::error_handler_t::replace;  // paths may hold any bytes
  json all = {{"name", name}, {"ok", true}, {"rate", 0.0}, {"unit", mine.unit}};
  for (const std::string& text : mpi.gather_texts(of_this_rank.dump(-1, ' ', false, replace))) {
    const json of_rank = json::parse(text);
    // The text of the first failure, or of rank 0.
    if (!all.contains("text") || (all["ok"] && !of_rank["ok"])) all["text"] = of_rank["text"];
    all["ok"] = all["ok"] && of_rank["ok"];
    if (alone == Alone::yes) all["rate"] = all["rate"].get<double>() + of_rank["rate"].get<double>();
  }
  if (alone == Alone::no) all["rate"] = mine.rate;
  const bool ok = all["ok"];
  say(ok ? "ok" : "FAILED", fmt::format("{:<20}{}", name, all["text"].get<std::string>()));
  report_["checks"].push_back(std::move(all));
  if (ok) {
    ++passed_;
  } else {
    failed_.push_back(name);
  }
  return ok;
}

void CheckList::skip(const std::string& name, const std::string& why) const {
  say("skipped", fmt::format("{:<20}{}", name, why));
}

void CheckList::conclude(const std::string& json_file) {
  report_["ok"] = failed_.empty();
  if (environment_.is_root() && !json_file.empty())
    write_file_atomically(json_file, report_.dump(2, ' ', false, json::error_handler_t::replace) + "\n");
  if (!failed_.empty()) {
    throw Error(fmt::format("{}: {} of {} checks failed: {}", command_, failed_.size(),
                            passed_ + static_cast<int>(failed_.size()), fmt::join(failed_, ", ")));
  }
  say(command_ + " ", fmt::format("all {} checks passed", passed_));  // a long name fills the column
}

}  // namespace vqlm
