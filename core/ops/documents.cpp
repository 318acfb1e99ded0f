#include "core/ops/documents.h"

namespace vqlm {

void FindDocuments::check(DType /*a*/) const {
  check_dtype(DType::i32, {documents, tokens});
  VQLM_ASSERT(documents.rank() == 3 && documents.extent(0) == 2 && tokens.rank() == 2);
  VQLM_ASSERT(documents.extent(1) == tokens.extent(0) && end_of_text >= 0);
  VQLM_ASSERT(past >= 0 && past + tokens.extent(1) <= documents.extent(2));
}

OpCost FindDocuments::cost() const {
  const auto bytes = static_cast<double>(tokens.bytes());
  return {.bytes_read = bytes, .bytes_written = 2 * bytes};
}

}  // namespace vqlm
