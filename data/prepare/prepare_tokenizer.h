// The tokenizer of a run of `vqlm prepare --train-tokenizer`.
#pragma once

#include <vector>

#include "data/prepare/encode_pipeline.h"
#include "data/prepare/prepare.h"
#include "data/prepare/prepare_folder.h"
#include "data/tokenizer/tokenizer.h"

namespace vqlm {

/// Returns those of the options that decide how a record is encoded.
EncodeOptions encode_options(const PrepareOptions& options);

/// The folder's tokenizer of the kind asked for where there is one, since its shards need it; otherwise one trained on a
/// sample of the training inputs without their held-out documents. Throws Error where the one that is there has another size.
Tokenizer trained_tokenizer(const PrepareOptions& options, const std::vector<PrepareInput>& inputs,
                            const PrepareFolder& folder);

}  // namespace vqlm
