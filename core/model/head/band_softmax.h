// BandSoftmax: one of an adaptive head's softmaxes, x = W z + b over its classes, z = A h or, for the head words, h itself.
// Replicated over the tensor group.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "core/model/head/output_head.h"

namespace vqlm {

/// What the softmaxes of a head work in, one after the other: numbers for the largest chunk of any.
struct BandScratch {
  Tensor logits;      // A
  Tensor statistics;  // (R, 3), R the most rows of a chunk
  Tensor lse;         // (R)
  Tensor z, dz;       // A; dz in training
};

class BandSoftmax {
 public:
  struct Options {
    std::string prefix;    // of its parameters' names
    std::int64_t classes;  // C
    std::int64_t width;    // w, of z
    bool projected;        // z = A h; else w is d
    bool bias;
    std::int64_t rows_at_most;  // of one run()
  };
  /// Adds `PREFIXweight` (C, w), `PREFIXprojection.weight` (w, d) and `PREFIXbias` (C) to the replicated bucket.
  BandSoftmax(const HeadContext& context, const Options& options);

  std::int64_t classes() const { return options_.classes; }
  bool has_bias() const { return options_.bias; }
  /// Rows of a chunk, and numbers of its logits and z.
  std::int64_t chunk_rows() const { return chunk_rows_; }
  std::int64_t logit_numbers() const { return chunk_rows_ * logit_width(); }
  std::int64_t z_numbers() const { return options_.projected ? chunk_rows_ * options_.width : 0; }
  std::int64_t matrix_parameters() const;
  /// Of one token that asks for this softmax, forward.
  double multiply_adds() const { return static_cast<double>(matrix_parameters()); }

  /// bias (C); nothing where there is none.
  void initialize(const std::vector<float>& bias);
  /// nll (c) overwritten for h (c, d), c at most chunk_rows(), and classes (c) i32, -1: none. With dh (c, d) present, it is
  /// overwritten or accumulates, and parameter gradients of scale * sum(nll) accumulate.
  void run(Tensor nll, Tensor dh, Accumulate accumulate_dh, Tensor h, Tensor classes, float scale,
           const BandScratch& scratch);
  /// out (c, C) f32 overwritten; c at most chunk_rows().
  void log_probs(Tensor out, Tensor h, const BandScratch& scratch);

 private:
  std::int64_t logit_width() const { return backend_.padded_classes(options_.classes); }
  Tensor z_of(Tensor h, const BandScratch& scratch);
  Tensor bias() const { return bias_ ? parameters_.operand(*bias_) : Tensor{}; }

  Backend& backend_;
  ParameterStore& parameters_;
  Options options_;
  std::int64_t d_model_;
  std::int64_t chunk_rows_;
  ParameterId weight_ = 0;
  std::optional<ParameterId> projection_, bias_;
};

}  // namespace vqlm
