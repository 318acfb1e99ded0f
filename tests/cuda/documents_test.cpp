#include "tests/cuda/op_testing_cuda.h"

namespace vqlm::testing {
namespace {

TEST_F(CudaOpTest, FindDocumentsEqualsTheOracle) {
  for (const std::int64_t length : {1, 31, 32, 33, 100}) {
    for (const std::int32_t tokens_of : {0, 3, 40}) {  // every token ends one, many do, few do
      const std::int64_t capacity = length + 7;
      HostI32 tokens = random_integers<std::int32_t>({3, length}, "tokens", 0, tokens_of);
      HostI32 more = random_integers<std::int32_t>({3, 5}, "more", 0, tokens_of), expected({2, 3, capacity}, -1);
      const DeviceArray documents = output({2, 3, capacity}, DType::i32);  // -1
      oracle->run(FindDocuments{.documents = expected, .tokens = tokens, .end_of_text = 0});
      oracle->run(FindDocuments{.documents = expected, .tokens = more, .end_of_text = 0, .past = length});
      device->run(FindDocuments{.documents = documents, .tokens = upload(tokens), .end_of_text = 0});
      device->run(FindDocuments{.documents = documents, .tokens = upload(more), .end_of_text = 0, .past = length});
      expect_equal(documents.download<std::int32_t>(), expected, "documents");
    }
  }
}

TEST_F(CudaOpTest, FindDocumentsOfNothingIsNoWork) {
  const DeviceArray documents = output({2, 0, 4}, DType::i32), tokens = output({0, 4}, DType::i32);
  device->run(FindDocuments{.documents = documents, .tokens = tokens, .end_of_text = 0});
}

}  // namespace
}  // namespace vqlm::testing
