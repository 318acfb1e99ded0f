// Ops on rows and flat ranges: a model of width 768 with 12 query and 4 key heads, and one of width 2,048.
#include "tests/core/scattered_rows.h"
#include "tests/cuda/accesses/access_case.h"

namespace vqlm::testing {
namespace {

constexpr std::int64_t rows = 24, d = 768, wide = 2048;
constexpr AttentionShape heads{.batch = 2, .seq_len = 12, .heads = 12, .kv_heads = 4, .head_dim = 64};

using RowCase = AccessCase;

TEST_F(RowCase, Elementwise) {
  device->run(AddColumnSums{.out = reals({d}), .x = activations({rows, d})});
  device->run(AddBias{.x = activations({rows, d}), .bias = reals({d})});
  device->run(Add{.out = room({rows, d}, DType::bf16), .a = activations({rows, d}), .b = activations({rows, d})});
  device->run(Scale{.x = activations({rows, d}), .factor = 0.5f});
  device->run(SwapAxes{.dst = room({rows, 4, d}, DType::bf16), .src = activations({4, rows, d})});
  device->fill(room({rows, d}, DType::bf16), 1);
  device->fill(room({rows, d}, DType::f32), 1);
  device->round_to_activation(room({rows, d}, DType::bf16), reals({rows, d}));
  device->fingerprint(activations({rows, d}));
  device->fingerprint(reals({rows, d}));
}

TEST_F(RowCase, Rmsnorm) {
  // The last two are rmsnorm_by_element.cu's.
  for (const std::int64_t width : {d, std::int64_t{1024}, wide, std::int64_t{771}}) {
    for (const bool with_branch : {false, true}) {
      const Tensor x = activations({rows, width}), rstd = room({rows}, DType::f32);
      device->run(RmsnormForward{.y = room({rows, width}, DType::bf16),
                                 .rstd = rstd,
                                 .sum = with_branch ? room({rows, width}, DType::bf16) : Tensor{},
                                 .x = x,
                                 .branch = with_branch ? activations({rows, width}) : Tensor{},
                                 .gain = reals({width}),
                                 .eps = 1e-5f});
      device->run(RmsnormBackward{.dx = activations({rows, width}),
                                  .dgain = reals({width}),
                                  .dy = activations({rows, width}),
                                  .x = x,
                                  .gain = reals({width}),
                                  .rstd = rstd,
                                  .accumulate_dx = with_branch ? Accumulate::yes : Accumulate::no});
    }
  }
}

TEST_F(RowCase, QkNorm) {
  const std::int64_t n = heads.batch * heads.seq_len;
  for (const bool of_heads : {true, false}) {  // gains and groups: each head, or all of them
    const std::int64_t groups = of_heads ? heads.heads + heads.kv_heads : 2;
    const std::int64_t q = of_heads ? 64 : 64 * heads.heads, k = of_heads ? 64 : 64 * heads.kv_heads;
    const Tensor x = activations({n, heads.row()}), gradient = activations({n, heads.row()}), q_gain = reals({q}),
                 k_gain = reals({k}), squares = room({n, groups}, DType::f32), dots = room({n, groups}, DType::f32);
    device->run(QkSquares{.squares = squares, .x = x, .shape = heads});
    device->run(QkNormForward{.qkv = room({n, heads.row()}, DType::bf16),
                              .x = x,
                              .squares = squares,
                              .q_gain = q_gain,
                              .k_gain = k_gain,
                              .shape = heads,
                              .ranks = 1,
                              .eps = 1e-6f});
    device->run(QkDots{.dots = dots, .dqkv = gradient, .x = x, .q_gain = q_gain, .k_gain = k_gain, .shape = heads});
    device->run(QkNormBackward{.dqkv = gradient,
                               .q_dgain = reals({q}),
                               .k_dgain = reals({k}),
                               .x = x,
                               .squares = squares,
                               .dots = dots,
                               .q_gain = q_gain,
                               .k_gain = k_gain,
                               .shape = heads,
                               .ranks = 1,
                               .eps = 1e-6f});
  }
}

TEST_F(RowCase, Rope) {
  const RopePositions positions{.frequencies = doubles({32}, 0.01)};
  const Tensor qkv = activations({heads.batch, heads.seq_len, heads.row()});
  device->run(RopeForward{.qkv = qkv, .shape = heads, .positions = positions});
  device->run(RopeBackward{.dqkv = qkv, .shape = heads, .positions = positions});
}

TEST_F(RowCase, GatedUnits) {
  const Tensor gate_up = activations({rows, 2 * wide}), y = room({rows, wide}, DType::bf16),
               dy = activations({rows, wide}), dgate_up = room({rows, 2 * wide}, DType::bf16);
  device->run(SwigluForward{.y = y, .gate_up = gate_up});
  device->run(SwigluBackward{.dgate_up = dgate_up, .dy = dy, .gate_up = gate_up});
  device->run(GegluForward{.y = y, .gate_up = gate_up});
  device->run(GegluBackward{.dgate_up = dgate_up, .dy = dy, .gate_up = gate_up});
}

TEST_F(RowCase, SiluBranch) {
  const Tensor x = activations({rows, d}), z = activations({rows, d}), out = room({rows, d}, DType::bf16);
  device->run(SiluResidualForward{.y = out, .x = x, .z = z});
  device->run(SiluResidualBackward{.dz = out, .dy = x, .z = z});
}

TEST_F(RowCase, Embedding) {
  constexpr std::int64_t vocabulary = 1000, tokens = 320;
  const Tensor table = activations({vocabulary, d}), out = activations({rows, d}), some = ids({rows}, 0, 999);
  device->run(EmbeddingForward{.out = out, .ids = some, .table = table, .first_row = 0});
  device->run(EmbeddingForward{.out = out, .ids = some, .table = table, .base = out, .first_row = 0});
  // Most tokens several times, and some of them over several pieces.
  for (const std::int64_t last : {std::int64_t{2}, vocabulary - 1}) {
    device->run(EmbeddingBackward{.dtable = reals({vocabulary, d}),
                                  .dout = activations({tokens, d}),
                                  .ids = ids({tokens}, 0, last),
                                  .first_row = 0});
  }
}

TEST_F(RowCase, RowsOfTables) {
  const ScatteredRows size{rows, 100, d};
  const Tensor some = copy_of(size.rows());
  device->run(ScatterAddRows{.dtable = reals({100, d}), .dout = reals({rows, d}), .rows = some});
  device->run(CopyRows{.table = activations({100, d}), .from = activations({rows, d}), .rows = some});
  device->run(AdamWRows{.param = reals({100, d}),
                        .rounded = room({100, d}, DType::bf16),
                        .m = reals({100, d}),
                        .v = positive({100, d}),
                        .grad = reals({rows, d}),
                        .rows = some,
                        .norm_squared = doubles({1}, 5),
                        .step = {.lr = 0.01f, .max_norm = 1}});
}

TEST_F(RowCase, Optimizers) {
  constexpr std::int64_t n = 1 << 14;
  const Tensor param = reals({n}), m = reals({n}), v = positive({n}), gradient = reals({n}),
               rounded = room({n}, DType::bf16), norm = doubles({1}, 5);
  device->run(AddSumOfSquares{.out = norm, .x = gradient});
  device->run(AdamW{.param = param,
                    .rounded = rounded,
                    .m = m,
                    .v = v,
                    .grad = gradient,
                    .norm_squared = norm,
                    .step = {.lr = 0.01f, .max_norm = 1}});
  device->run(MovingAverage{.average = v, .x = param, .norm_squared = norm, .decay = 0.99f});
  const Tensor direction = room({n}, DType::f32);
  device->run(MuonMomentum{
      .m = m, .direction = direction, .grad = gradient, .norm_squared = norm, .momentum = 0.95f, .max_norm = 1});
  device->run(AddScaled{.out = rounded, .x = direction, .y = m, .norm_squared = norm, .x_scale = 2, .y_scale = 3});
  device->run(AddScaled{.out = direction, .x = rounded});
  device->run(MuonUpdate{.param = param,
                         .rounded = rounded,
                         .direction = direction,
                         .norm_squared = norm,
                         .keep_param = 0.9f,
                         .step_size = 0.1f});
}

TEST_F(RowCase, TokensOfSequences) {
  constexpr std::int64_t batch = 2, length = 1024;
  const Tensor tokens = ids({batch, length}, 0, 40), documents = room({2, batch, length}, DType::i32);
  device->run(FindDocuments{.documents = documents, .tokens = tokens, .end_of_text = 7});
  device->run(NgramRows{.rows = room({batch, length}, DType::i32),
                        .tokens = tokens,
                        .documents = documents,
                        .order = 3,
                        .table = 1,
                        .table_rows = 1000});
}

}  // namespace
}  // namespace vqlm::testing
