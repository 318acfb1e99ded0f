#include "launch/commands/bench_op_commands.h"

#include <spdlog/fmt/fmt.h>

#include <cstdio>
#include <memory>
#include <string>

#include "core/error.h"
#include "data/files/atomic_file.h"
#include "launch/command_line.h"
#include "launch/environment.h"
#include "train/tools/bench/attention_bench.h"
#include "train/tools/bench/op_bench.h"
#include "train/tools/bench/product_bench.h"

namespace vqlm {
namespace {

/// Where to measure and what to write.
struct Place {
  DeviceKind device = DeviceKind::automatic;
  int threads = 1;
  std::string json;
};

void add_place(CLI::App& command, Place& place) {
  add_device_option(command, place.device);
  command.add_option("--threads", place.threads, "threads on the CPU; 0: all cores")
      ->check(CLI::Range(0, 4096))
      ->capture_default_str();
  command.add_option("--json", place.json, "write the result here too")->type_name("FILE");
}

template <class Run>
void bench_one_process(const char* name, const Place& place, const Run& run) {
  run_job([&](Environment& environment) {
    if (environment.mpi().size() != 1) {
      throw UsageError(fmt::format("bench {}: measures one process, but mpirun started {}; start it without mpirun",
                                   name, environment.mpi().size()));
    }
    const auto backend = environment.make_backend(place.device, place.threads);
    const auto result = run(*backend);
    std::fputs(to_text(result).c_str(), stdout);
    if (!place.json.empty()) write_file_atomically(place.json, to_json(result));
  });
}

}  // namespace

void add_attention_bench(CLI::App& bench) {
  CLI::App* command =
      bench.add_subcommand("attention", "Time causal attention, forward and backward, against matrix products");
  struct BenchOpArguments {
    AttentionBenchOptions sizes;
    Place place;
  };
  const auto options = std::make_shared<BenchOpArguments>();
  AttentionBenchOptions& sizes = options->sizes;
  command->add_option("--seq-len", sizes.seq_lens, "sequence lengths T")->delimiter(',')->capture_default_str();
  command->add_option("--head-dim", sizes.head_dims, "sizes of a head")->delimiter(',')->capture_default_str();
  const auto size = [&](const char* name, auto& target, const char* help) {
    command->add_option(name, target, help)->capture_default_str();
  };
  size("--width", sizes.width, "query heads * head-dim");
  size("--sharing", sizes.sharing, "query heads that share a key/value head");
  size("--tokens", sizes.tokens, "batch * T, rounded down to whole sequences");
  size("--seconds", sizes.seconds, "of timed calls, for each shape and direction");
  add_place(*command, options->place);
  command->footer(
      "The default sizes are a GPU's.\n"
      "Examples:\n"
      "  vqlm bench attention --device cuda --json attention.json\n"
      "  vqlm bench attention --seq-len 256,512 --head-dim 64 --width 512 --tokens 2048 --threads 0");
  command->callback([options] {
    bench_one_process("attention", options->place,
                      [&](Backend& backend) { return run_attention_bench(backend, options->sizes); });
  });
}

void add_ops_bench(CLI::App& bench) {
  CLI::App* command =
      bench.add_subcommand("ops", "Time the ops that move bytes against the rate at which the machine copies");
  struct BenchOpArguments {
    OpBenchOptions sizes;
    Place place;
  };
  const auto options = std::make_shared<BenchOpArguments>();
  OpBenchOptions& sizes = options->sizes;
  const auto size = [&](const char* name, auto& target, const char* help) {
    command->add_option(name, target, help)->capture_default_str();
  };
  size("--rows", sizes.rows, "tokens N");
  size("--seq-len", sizes.seq_len, "tokens of a sequence (positions)");
  size("--width", sizes.width, "model width d");
  size("--head-dim", sizes.head_dim, "size of a head (positions)");
  size("--d-ff", sizes.d_ff, "MLP width");
  size("--vocab", sizes.vocab_size, "vocabulary V (embedding, softmax)");
  size("--logit-rows", sizes.logit_rows, "rows of a chunk of logits (softmax)");
  size("--numbers", sizes.numbers, "length of flat arrays (copy, fill, AdamW)");
  size("--seconds", sizes.seconds, "of timed calls, for each op");
  add_place(*command, options->place);
  command->footer(
      "Choose arrays that no cache holds: several times the last level's size.\n"
      "Examples:\n"
      "  vqlm bench ops\n"
      "  vqlm bench ops --device cuda --rows 32768 --width 4096 --head-dim 128 --d-ff 11008 --vocab 50257 --numbers "
      "268435456 --json ops.json");
  command->callback([options] {
    bench_one_process("ops", options->place, [&](Backend& backend) { return run_op_bench(backend, options->sizes); });
  });
}

void add_products_bench(CLI::App& bench) {
  CLI::App* command = bench.add_subcommand(
      "products", "Time a training step's matrix products at a model's shapes, against square ones");
  struct BenchOpArguments {
    ProductBenchOptions sizes;
    Place place;
  };
  const auto options = std::make_shared<BenchOpArguments>();
  ProductBenchOptions& sizes = options->sizes;
  const auto size = [&](const char* name, auto& target, const char* help) {
    return command->add_option(name, target, help)->capture_default_str();
  };
  size("--rows", sizes.rows, "tokens N of a micro-batch");
  size("--width", sizes.width, "model width d");
  size("--d-ff", sizes.d_ff, "MLP width");
  size("--vocab", sizes.vocab_sizes, "vocabularies V of a dense head, each measured")->delimiter(',');
  size("--logit-rows", sizes.logit_rows, "rows of a chunk of logits");
  size("--seconds", sizes.seconds, "of timed calls, for each product");
  add_place(*command, options->place);
  command->footer(
      "A product that the device's library refuses is a line with the reason.\n"
      "Examples:\n"
      "  vqlm bench products --threads 0\n"
      "  vqlm bench products --device cuda --rows 32768 --vocab 50257,50304 --logit-rows 5336 --json "
      "products.json");
  command->callback([options] {
    bench_one_process("products", options->place,
                      [&](Backend& backend) { return run_product_bench(backend, options->sizes); });
  });
}

}  // namespace vqlm
