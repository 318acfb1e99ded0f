// vqlm_log_probs MODEL IDS ROWS OUT: the log-probabilities that this program gives, for comparisons with other programs.
// IDS: int32, ROWS samples of equal length; OUT: float32 (ROWS, length, V), after every position.
#include <spdlog/fmt/fmt.h>

#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "core/cpu/cpu_backend.h"
#include "core/error.h"
#include "data/files/atomic_file.h"
#include "dist/process_grid.h"
#include "train/models/loaded_model.h"
#include "train/models/open_model.h"

namespace {

using namespace vqlm;

void run(const std::string& path, const std::string& ids_file, std::int64_t rows, const std::string& out_file) {
  const std::string ids = read_file(ids_file);
  const auto tokens = static_cast<std::int64_t>(ids.size() / sizeof(std::int32_t));
  if (rows < 1 || tokens < rows || tokens % rows != 0)
    throw Error(fmt::format("{}: {} ids are no {} rows", ids_file, tokens, rows));
  const auto source = open_model(path);
  const auto backend = make_cpu_backend(1);
  const ProcessGrid grid(*backend);
  const LoadedModel model = load_model(*source, *backend, grid.tensor(), {.batch = rows, .seq_len = tokens / rows});
  const Shape shape{tokens, source->model().vocab_size};
  std::vector<std::int32_t> id_values(static_cast<std::size_t>(tokens));
  std::memcpy(id_values.data(), ids.data(), id_values.size() * sizeof(std::int32_t));
  std::vector<float> values(static_cast<std::size_t>(shape.numel()));
  const Tensor out(values.data(), DType::f32, shape);
  model.transformer->log_probs(out, Tensor(id_values.data(), DType::i32, {tokens}));
  write_file_atomically(out_file, {static_cast<const char*>(out.data()), out.bytes()});
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) {
    std::fputs("usage: vqlm_log_probs MODEL IDS ROWS OUT\n", stderr);
    return 2;
  }
  try {
    run(argv[1], argv[2], std::stoll(argv[3]), argv[4]);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "vqlm_log_probs: %s\n", error.what());
    return 1;
  }
  return 0;
}
