#include "train/tools/convert/gguf.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <array>
#include <chrono>

#include "core/error.h"
#include "core/log.h"
#include "data/files/atomic_file.h"
#include "data/files/python_script.h"
#include "train/config/model_text.h"
#include "train/models/multiplied_head.h"
#include "train/tools/convert/expanded_head.h"
#include "train/tools/convert/gguf_scripts.h"
#include "train/tools/convert/hf_tokenizer.h"
#include "train/tools/convert/hf_writer.h"
#include "train/tools/convert/output_folder.h"

namespace vqlm {

namespace {

void check_head(const ModelSource& source) {
  if (kind_of(source.head()) == HeadKind::vq) {
    throw Error(
        fmt::format("{}: --to gguf: has a VQ head, which llama.cpp cannot compute; --to hf writes it for transformers, "
                    "and with --expand as stock Llama where one equals it, which --from hf --to gguf takes",
                    source.path().string()));
  }
  if (adaptive_of(source.head()) != nullptr) {
    throw Error(fmt::format(
        "{}: --to gguf: has an adaptive head, which llama.cpp cannot compute; --to hf writes it for transformers",
        source.path().string()));
  }
  if (const float cap = softcap_of(source.head()); cap > 0) {
    throw Error(fmt::format(
        "{}: --to gguf: the head caps its logits (head.softcap = {}), which llama.cpp's Llama does not; write "
        "it for transformers by --to hf",
        source.path().string(), cap));
  }
  const std::vector<double> bias = expand_head(source).constants;
  const auto other = std::find_if(bias.begin(), bias.end(), [](double value) { return value != 0; });
  if (other == bias.end()) return;
  throw Error(
      fmt::format("{}: --to gguf: the head has a token bias ({:.6g} for token {}), which has no place in llama.cpp's "
                  "Llama; train with head.bias = false, or write it for transformers by --to hf",
                  source.path().string(), *other, other - bias.begin()));
}

void check_llama(const ModelSource& source) {
  const std::string body = body_text(source.model());
  if (body.empty()) return;
  throw Error(
      fmt::format("{}: --to gguf: is written for Llama's body alone, and this one differs by{}; --to hf writes it for "
                  "transformers",
                  source.path().string(), body.substr(1)));
}

/// Runs the script and logs what it says, line by line.
void run_script(const std::vector<std::string>& arguments, const std::string& name,
                const std::function<void()>& check) {
  PythonScript script(std::string(gguf_vocabulary_py) + std::string(gguf_writer_py), arguments,
                      name + ": is written by Python's gguf");
  std::string lines;
  std::array<char, 4096> piece{};
  for (;;) {
    check();
    if (!script.wait_for_output(std::chrono::milliseconds(200))) continue;
    const std::size_t n = script.read(piece);
    if (n == 0) break;
    lines.append(piece.data(), n);
    for (std::size_t end = lines.find('\n'); end != std::string::npos; end = lines.find('\n')) {
      log::info("{}: {}", name, lines.substr(0, end));
      lines.erase(0, end + 1);
    }
  }
  if (const std::string failure = script.end(); !failure.empty()) throw Error(fmt::format("{}: {}", name, failure));
}

}  // namespace

void write_gguf(const ModelSource& source, const std::filesystem::path& out, const GgufOptions& options,
                const std::function<void()>& check) {
  if (low_rank_of(source.head()) != nullptr) return write_gguf(MultipliedHead(source), out, options, check);
  check_llama(source);
  check_head(source);
  if (std::filesystem::is_directory(out))
    throw UsageError(fmt::format("--out {}: is a folder; name a file", out.string()));
  const OutputFolder work(out);  // of which only the file gets a name
  const std::filesystem::path folder = work.partial() / "hf";
  const std::filesystem::path file = work.partial() / "model.gguf";
  const std::string tokenizer = options.tokenizer ? "yes" : "no";
  std::filesystem::create_directory(folder);
  write_hf_tokenizer(source, folder);
  run_script({"tokenizer", folder.string(), tokenizer}, out.string(), check);  // refusals before anything large
  write_hf(source, folder, {.dtype = "float32"});
  run_script({"model", folder.string(), file.string(), options.dtype, tokenizer}, out.string(), check);
  publish_file(file.string(), out.string());
}

}  // namespace vqlm
