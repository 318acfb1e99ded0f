// Muon's iteration against one in double precision, the homes of matrices, and runs that may not change their optimizer.
#include "train/engine/muon.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "core/cpu/cpu_backend.h"
#include "core/log.h"
#include "core/rng.h"
#include "tests/data/temporary_folder.h"
#include "tests/data/test_shards.h"
#include "tests/train/tiny_run.h"

namespace vqlm {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

using Matrix = std::vector<double>;  // row-major

Matrix product(const Matrix& a, const Matrix& b, std::int64_t rows, std::int64_t inner, std::int64_t columns) {
  Matrix c(static_cast<std::size_t>(rows * columns), 0.0);
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t k = 0; k < inner; ++k) {
      for (std::int64_t j = 0; j < columns; ++j)
        c[static_cast<std::size_t>(i * columns + j)] +=
            a[static_cast<std::size_t>(i * inner + k)] * b[static_cast<std::size_t>(k * columns + j)];
    }
  }
  return c;
}

Matrix transposed(const Matrix& a, std::int64_t rows, std::int64_t columns) {
  Matrix t(a.size());
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t j = 0; j < columns; ++j)
      t[static_cast<std::size_t>(j * rows + i)] = a[static_cast<std::size_t>(i * columns + j)];
  }
  return t;
}

/// X / |X|, then five times a X + b (X X^T) X + c (X X^T)^2 X, all in double and always by the side of the rows.
Matrix iterated(Matrix x, std::int64_t rows, std::int64_t columns) {
  double norm = 0;
  for (const double value : x) norm += value * value;
  for (double& value : x) value /= std::sqrt(norm);
  for (int step = 0; step < 5; ++step) {
    const Matrix gram = product(x, transposed(x, rows, columns), rows, columns, rows);
    const Matrix once = product(gram, x, rows, rows, columns), twice = product(gram, once, rows, rows, columns);
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = 3.4445 * x[i] - 4.7750 * once[i] + 2.0315 * twice[i];
  }
  return x;
}

std::vector<float> normal(std::int64_t count, const char* name) {
  const Philox rng(11, name);
  std::vector<float> values(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = rng.normal(i);
  return values;
}

/// What the class makes of a matrix that lies in `blocks` ranges of columns, as a whole.
Matrix orthogonalised(Backend& backend, const std::vector<float>& x, NewtonSchulz::Layout layout) {
  const std::int64_t width = layout.columns / layout.blocks;
  const auto place = [&](std::int64_t row, std::int64_t column) {
    return static_cast<std::size_t>(column / width * layout.rows * width + row * width + column % width);
  };
  const Buffer buffer = backend.allocate(x.size() * sizeof(float), MemoryUse::workspace);
  const Buffer norm = backend.allocate(sizeof(double), MemoryUse::workspace);
  const Tensor tensor = buffer.view({layout.rows * layout.columns}), norm_squared = norm.view({1}, DType::f64);
  *norm_squared.as<double>() = 0;
  for (std::int64_t i = 0; i < layout.rows; ++i) {
    for (std::int64_t j = 0; j < layout.columns; ++j)
      tensor.f32()[place(i, j)] = x[static_cast<std::size_t>(i * layout.columns + j)];
  }
  NewtonSchulz(backend, layout.rows * layout.columns, std::min(layout.rows, layout.columns))
      .run(tensor, layout, norm_squared);
  Matrix result;
  for (std::int64_t i = 0; i < layout.rows; ++i) {
    for (std::int64_t j = 0; j < layout.columns; ++j) result.push_back(tensor.f32()[place(i, j)]);
  }
  return result;
}

TEST(NewtonSchulzTest, IsTheIterationInDoubleWhateverTheBlocks) {
  const auto backend = make_cpu_backend(1);
  for (const auto& [rows, columns] :
       {std::pair<std::int64_t, std::int64_t>{24, 24}, {8, 40}, {40, 8}, {1, 16}, {16, 1}}) {
    SCOPED_TRACE(std::to_string(rows) + " x " + std::to_string(columns));
    const std::vector<float> x = normal(rows * columns, "x");
    const Matrix expected = iterated({x.begin(), x.end()}, rows, columns);
    const Matrix whole = orthogonalised(*backend, x, {.rows = rows, .columns = columns});
    for (std::size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(whole[i], expected[i], 2e-4) << i;
    for (const std::int64_t blocks : {2, 4}) {
      if (columns % blocks == 0) {
        EXPECT_EQ(orthogonalised(*backend, x, {.rows = rows, .columns = columns, .blocks = blocks}), whole);
      }
    }
  }
}

TEST(NewtonSchulzTest, SingularValuesComeNearOne) {
  const auto backend = make_cpu_backend(1);
  const std::vector<float> x = normal(16 * 48, "wide");
  const Matrix u = orthogonalised(*backend, x, {.rows = 16, .columns = 48});
  const Matrix gram = product(u, transposed(u, 16, 48), 16, 48, 16);
  double trace = 0, squares = 0;  // sums of squared singular values and of their squares
  for (std::size_t i = 0; i < gram.size(); ++i) {
    squares += gram[i] * gram[i];
    if (i % 17 == 0) trace += gram[i];
  }
  EXPECT_NEAR(trace / 16, 1.0, 0.35);
  EXPECT_LT(squares / 16, 1.6);
  EXPECT_EQ(orthogonalised(*backend, std::vector<float>(768, 0.0f), {.rows = 16, .columns = 48}), Matrix(768, 0.0));
}

TEST(MuonHomes, WorkIsEvenAndTheSameEverywhere) {
  std::vector<Shape> matrices;
  for (int layer = 0; layer < 12; ++layer) {
    for (int i = 0; i < 4; ++i) matrices.push_back({768, 768});
    for (int i = 0; i < 2; ++i) matrices.push_back({2048, 768});
    matrices.push_back({768, 2048});
  }
  for (const int ranks : {1, 3, 8}) {
    const std::vector<int> homes = homes_of(matrices, ranks);
    std::vector<double> load(static_cast<std::size_t>(ranks), 0.0);
    for (std::size_t i = 0; i < homes.size(); ++i)
      load[static_cast<std::size_t>(homes[i])] += static_cast<double>(matrices[i].numel()) * 768;
    const double mean = std::accumulate(load.begin(), load.end(), 0.0) / ranks;
    EXPECT_LT(*std::max_element(load.begin(), load.end()), 1.1 * mean) << ranks;
  }
}

TEST(MuonRuns, AnotherOptimizerIsRefusedAtAResumeAndMatricesHaveNoSecondMoments) {
  log::set_level(log::level::warn);
  const TemporaryFolder folder;
  testing::write_zipf_shards(folder.path(), "train", 40);
  testing::write_zipf_shards(folder.path(), "heldout", 6);
  const auto backend = make_cpu_backend(1);
  const ProcessGrid grid(*backend);
  Config config = testing::tiny_config(HeadKind::dense, folder.path(), folder.file("run"));
  config.optim.kind = OptimizerKind::muon;
  testing::train_run(*backend, grid, config, false, 6);
  {
    const h5::File file = h5::File::open(folder.file("run/checkpoints/step-00000006/checkpoint.h5"));
    EXPECT_TRUE(file.exists("optimizer.m.model.layers.0.mlp.up_proj.weight"));
    EXPECT_FALSE(file.exists("optimizer.v.model.layers.0.mlp.up_proj.weight"));
    EXPECT_TRUE(file.exists("optimizer.v.model.embed_tokens.weight"));
  }
  config.optim.kind = OptimizerKind::adamw;
  EXPECT_THAT(message_of([&] { testing::train_run(*backend, grid, config, true); }),
              AllOf(HasSubstr("optim.kind = \"adamw\""), HasSubstr("muon")));
}

}  // namespace
}  // namespace vqlm
