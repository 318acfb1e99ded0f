// A configuration: TOML up to the first zero byte, then overrides as of --set, a zero byte between them.
#include "tests/fuzz/fuzz.h"
#include "train/config/config.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const vqlm::fuzz::Folder folder;
  std::string_view rest(reinterpret_cast<const char*>(data), size);
  const auto next = [&] {
    const std::string_view part = rest.substr(0, rest.find('\0'));
    rest.remove_prefix(std::min(part.size() + 1, rest.size()));
    return part;
  };
  const std::string path = folder.write("run.toml", next());
  std::vector<std::string> overrides;
  while (!rest.empty()) overrides.emplace_back(next());
  vqlm::fuzz::expect_success_or_error([&] {
    vqlm::Config config = vqlm::load_config(path, overrides);
    // What was read can be written, and means the same.
    const std::string text = vqlm::to_toml(config);
    if (vqlm::to_toml(vqlm::load_config(folder.write("again.toml", text))) != text) abort();
    vqlm::resolve(config, 50257, 8);
  });
  return 0;
}
