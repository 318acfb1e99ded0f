#include "launch/run_log.h"

#include <spdlog/fmt/fmt.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/dist_sink.h>
#include <spdlog/sinks/ringbuffer_sink.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <fstream>
#include <iterator>

#include "core/error.h"
#include "core/log.h"
#include "launch/environment.h"
#include "launch/version.h"

namespace vqlm {
namespace {

constexpr std::size_t most_lines = 1000;  // before a run begins there are a dozen
constexpr const char* pattern = "[%Y-%m-%d %H:%M:%S] %l: %v";

using Ring = spdlog::sinks::ringbuffer_sink_mt;

/// The program's one sink, which others may join while threads log.
spdlog::sinks::dist_sink_mt& all_sinks() {
  auto* const all = dynamic_cast<spdlog::sinks::dist_sink_mt*>(spdlog::default_logger()->sinks().front().get());
  VQLM_ASSERT(all != nullptr);
  return *all;
}

/// This process's words, as they were given.
std::string command_line() {
  std::ifstream file("/proc/self/cmdline", std::ios::binary);
  std::string words{std::istreambuf_iterator<char>(file), {}};
  while (!words.empty() && words.back() == '\0') words.pop_back();
  std::ranges::replace(words, '\0', ' ');
  return words;
}

}  // namespace

RunLog::RunLog() : kept_(std::make_shared<Ring>(most_lines)) {
  kept_->set_pattern(pattern);
  all_sinks().add_sink(kept_);
}

RunLog::~RunLog() {
  all_sinks().remove_sink(kept_);
  if (!written_) return;
  written_->flush();
  all_sinks().remove_sink(written_);
}

void RunLog::begin(const std::filesystem::path& file, const std::string& job) {
  try {
    {
      std::ofstream begun(file, std::ios::app);
      begun << one_line(fmt::format("vqlm {}; {}; {}", version_text(), job, command_line())) << '\n';
      for (const std::string& line : std::static_pointer_cast<Ring>(kept_)->last_formatted()) begun << line;
      begun.flush();
      if (!begun) throw spdlog::spdlog_ex("no space, or not allowed");
    }
    auto sink = std::make_shared<spdlog::sinks::basic_file_sink_mt>(file.string());
    sink->set_pattern(pattern);
    written_ = sink;
    all_sinks().add_sink(written_);
    spdlog::default_logger()->flush_on(spdlog::level::debug);
  } catch (const spdlog::spdlog_ex& error) {
    log::warn("{}: cannot be written: {}; the run's lines are on standard error only", file.string(), error.what());
  }
  all_sinks().remove_sink(kept_);
}

void RunLog::note(const std::string& error) {
  if (!written_) return;
  const std::string line = one_line(error);
  written_->log({spdlog::source_loc{}, "vqlm", spdlog::level::err, line});
  written_->flush();
}

}  // namespace vqlm
