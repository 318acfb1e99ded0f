#include <numeric>

#include "tests/cuda/op_testing_cuda.h"

namespace vqlm::testing {
namespace {

class CudaEmbeddingTest : public CudaOpTest {
 protected:
  struct Size {
    std::int64_t tokens, rows, width;
  };
  /// Several pieces of sorted rows, several slices of columns, packs and single elements; from 32,769 tokens on pieces are longer.
  const std::vector<Size> sizes{{1, 1, 1},     {7, 3, 65},      {65, 997, 7},  {1000, 67, 130}, {0, 4, 3},
                                {300, 17, 16}, {260, 13, 1040}, {64, 997, 24}, {33'000, 50, 2}};

  /// Small integers are exact in bf16, and their sums in float.
  void check_backward(HostI32& ids, std::int64_t rows, std::int64_t width, std::int64_t first_row) {
    HostF32 dout = random_integers({ids.size(), width}, "dout", -50, 50);
    HostF32 expected = random_integers({rows, width}, "dtable", -50, 50);
    const DeviceArray dtable = upload(expected);
    device->run(EmbeddingBackward{.dtable = dtable, .dout = bf16(dout), .ids = upload(ids), .first_row = first_row});
    oracle->run(EmbeddingBackward{.dtable = expected, .dout = dout, .ids = ids, .first_row = first_row});
    expect_equal(dtable.download(), expected, "dtable");
  }
};

TEST_F(CudaEmbeddingTest, ForwardCopiesRowsAndZeroesOthers) {
  for (const auto& [tokens, rows, width] : sizes) {
    for (const std::int64_t first_row : {std::int64_t{0}, rows / 2, rows + 5}) {
      // Ids below, in and above this shard's rows.
      HostI32 ids = random_integers<std::int32_t>({tokens}, "ids", 0, 2 * rows);
      HostF32 table = random_bf16({rows, width}, "table"), expected({tokens, width});
      const DeviceArray out = output({tokens, width});
      device->run(EmbeddingForward{
          .out = out, .ids = upload(ids), .table = bf16(table, first_row == 0 ? 0 : 1), .first_row = first_row});
      oracle->run(EmbeddingForward{.out = expected, .ids = ids, .table = table, .first_row = first_row});
      expect_equal(out.download(), expected, "out");
    }
  }
}

// Sums of integers up to 100 are exact in bf16. The second base begins at an odd address.
TEST_F(CudaEmbeddingTest, ForwardAddsRowsToTheBase) {
  for (const auto& [tokens, rows, width] : sizes) {
    for (const std::int64_t offset : {0, 1}) {
      HostI32 ids = random_integers<std::int32_t>({tokens}, "ids", -rows, 2 * rows);
      HostF32 table = random_integers({rows, width}, "table", -50, 50), base = random_integers({tokens, width}, "base", -50, 50);
      HostF32 expected({tokens, width});
      const DeviceArray out = output({tokens, width}), sums = bf16(base, offset);
      oracle->run(EmbeddingForward{.out = expected, .ids = ids, .table = table, .base = base, .first_row = 0});
      device->run(EmbeddingForward{.out = out, .ids = upload(ids), .table = bf16(table), .base = sums, .first_row = 0});
      expect_equal(out.download(), expected, "out");
      device->run(EmbeddingForward{.out = sums, .ids = upload(ids), .table = bf16(table), .base = sums, .first_row = 0});
      expect_equal(sums.download(), expected, "in place");
    }
  }
}

TEST_F(CudaEmbeddingTest, BackwardAccumulatesExactlyOnIntegers) {
  for (const auto& [tokens, rows, width] : sizes) {
    for (const std::int64_t first_row : {std::int64_t{0}, rows / 2, rows + 5, 2 * rows + 1}) {
      HostI32 ids = random_integers<std::int32_t>({tokens}, "ids", 0, 2 * rows);
      check_backward(ids, rows, width, first_row);
    }
  }
}

TEST_F(CudaEmbeddingTest, BackwardSumsATokenThatFillsTheBatch) {
  for (const std::int64_t tokens : {31, 32, 33, 64, 65, 700}) {
    HostI32 ids({tokens}, 4);
    check_backward(ids, 7, 24, 0);
    check_backward(ids, 3, 5, 2);
    check_backward(ids, 3, 5, 5);  // no row of this shard
  }
}

TEST_F(CudaEmbeddingTest, BackwardSumsRunsThatBeginAndEndAtPieces) {
  // Sorted runs of these lengths: inside a piece of 32, up to its end, from its begin, over several, with their ends.
  for (const std::vector<int>& lengths :
       {std::vector{32, 32, 32}, {31, 2, 31}, {1, 63, 32, 5}, {33, 95, 1, 1, 130}, {5, 27, 64, 3}, {96, 1, 31, 1}}) {
    HostI32 ids({std::accumulate(lengths.begin(), lengths.end(), std::int64_t{0})});
    std::int64_t n = 0;
    for (std::size_t token = 0; token < lengths.size(); ++token) {
      for (int i = 0; i < lengths[token]; ++i) ids[n++] = static_cast<std::int32_t>(token);
    }
    check_backward(ids, 5, 16, 0);
    check_backward(ids, 4, 3, 1);  // the first run is another shard's, and sorts behind the others
  }
}

TEST_F(CudaEmbeddingTest, BackwardAddsInFloatAndTheSameInEveryRun) {
  const std::int64_t tokens = 700, rows = 11, width = 40;
  HostI32 ids = random_integers<std::int32_t>({tokens}, "ids", 0, rows - 1);
  HostF32 dout = random_bf16({tokens, width}, "dout"), expected({rows, width});
  std::vector<double> bound(static_cast<std::size_t>(rows * width));
  for (std::int64_t i = 0; i < dout.size(); ++i) {
    // The CPU adds one row after the other: at most `tokens` roundings, on the GPU fewer.
    bound[static_cast<std::size_t>(ids[i / width] * width + i % width)] +=
        2 * static_cast<double>(tokens) * u32 * std::abs(static_cast<double>(dout[i]));
  }
  const DeviceArray dtable = upload(expected), again = upload(expected);
  device->run(EmbeddingBackward{.dtable = dtable, .dout = bf16(dout), .ids = upload(ids), .first_row = 0});
  device->run(EmbeddingBackward{.dtable = again, .dout = bf16(dout), .ids = upload(ids), .first_row = 0});
  oracle->run(EmbeddingBackward{.dtable = expected, .dout = dout, .ids = ids, .first_row = 0});
  expect_close(dtable.download(), expected.doubles(), bound, "dtable");
  expect_equal(again.download(), dtable.download(), "second run");
}

}  // namespace
}  // namespace vqlm::testing
