#include "tests/cuda/op_testing_cuda.h"

namespace vqlm::testing {
namespace {

TEST_F(CudaOpTest, NgramRowsEqualTheOracles) {
  for (const std::int64_t length : {1, 2, 33, 300}) {
    for (const int order : {1, 2, 5}) {
      HostI32 tokens = random_integers<std::int32_t>({3, length}, "tokens", -1, 40), expected({3, length});
      const DeviceArray rows = output({3, length}, DType::i32);
      oracle->run(NgramRows{.rows = expected, .tokens = tokens, .order = order, .table = 1, .table_rows = 977});
      device->run(NgramRows{.rows = rows, .tokens = upload(tokens), .order = order, .table = 1, .table_rows = 977});
      expect_equal(rows.download<std::int32_t>(), expected, "rows");
    }
  }
}

TEST_F(CudaOpTest, NgramRowsGoOnInParts) {
  const std::int64_t capacity = 50;
  HostI32 expected_history({2, capacity}, -1), expected_documents({2, 2, capacity}, -1);
  const DeviceArray history = output({2, capacity}, DType::i32), documents = output({2, 2, capacity}, DType::i32);  // -1
  std::int64_t past = 0;
  for (const std::int64_t count : {1, 30, 2, 17}) {
    HostI32 tokens = random_integers<std::int32_t>({2, count}, "tokens", 0, 5), expected({2, count});
    const DeviceArray part = upload(tokens), rows = output({2, count}, DType::i32);
    const auto run = [&](Backend& on, Tensor out, Tensor ids, Tensor before, Tensor cuts) {
      on.run(FindDocuments{.documents = cuts, .tokens = ids, .end_of_text = 0, .past = past});
      on.run(NgramRows{.rows = out,
                       .tokens = ids,
                       .history = before,
                       .documents = cuts,
                       .past = past,
                       .order = 3,
                       .table = 0,
                       .table_rows = 1 << 20});
    };
    run(*oracle, expected, tokens, expected_history, expected_documents);
    run(*device, rows, part, history, documents);
    expect_equal(rows.download<std::int32_t>(), expected, "rows");
    past += count;
  }
  expect_equal(history.download<std::int32_t>(), expected_history, "history");
}

TEST_F(CudaOpTest, NgramRowsOfNothingAreNoWork) {
  const DeviceArray rows = output({0, 4}, DType::i32), tokens = output({0, 4}, DType::i32);
  device->run(NgramRows{.rows = rows, .tokens = tokens, .order = 2, .table = 0, .table_rows = 3});
}

}  // namespace
}  // namespace vqlm::testing
