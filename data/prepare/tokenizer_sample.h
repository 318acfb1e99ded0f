// The documents that a tokenizer is trained on.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "data/prepare/encode_pipeline.h"

namespace vqlm {

struct SampleOptions {
  std::uint64_t bytes = std::uint64_t{16} << 20;  // of text; BPE merges hardly change with more, the time does
  std::uint64_t seed = 0;
  EncodeOptions encode;  // held-out documents are not drawn
};

/// Documents from all files, about the same amount of text from each: of the first `8 * bytes / files` bytes of text of a
/// file those whose hash (keyed by seed) is smallest. The same files give the same sample. Bad records are left out here
/// and reported when the files are encoded. Throws Error for unreadable and damaged files. `read` is told, where it is one, how many files are done.
std::vector<std::string> sample_documents(const std::vector<std::string>& paths, const SampleOptions& options,
                                          const std::function<void(std::size_t)>& read = {});

}  // namespace vqlm
