// The list of ops. A back end visits it; one that lacks an op does not link.
#pragma once

#include <variant>

#include "core/ops/adamw.h"
#include "core/ops/attention.h"
#include "core/ops/cluster_log_probs.h"
#include "core/ops/code_entropy.h"
#include "core/ops/cross_entropy.h"
#include "core/ops/documents.h"
#include "core/ops/elementwise.h"
#include "core/ops/embedding.h"
#include "core/ops/matmul.h"
#include "core/ops/member_entropy.h"
#include "core/ops/member_log_probs.h"
#include "core/ops/member_means.h"
#include "core/ops/member_part.h"
#include "core/ops/muon.h"
#include "core/ops/ngram_rows.h"
#include "core/ops/qk_norm.h"
#include "core/ops/rmsnorm.h"
#include "core/ops/rope.h"
#include "core/ops/scatter_add_rows.h"
#include "core/ops/silu.h"
#include "core/ops/swiglu.h"

namespace vqlm {

using Op = std::variant<  //
    const Matmul*, const AddColumnSums*, const AddBias*, const Add*, const Scale*, const SwapAxes*,
    const SwigluForward*, const SwigluBackward*, const GegluForward*, const GegluBackward*, const RmsnormForward*,
    const RmsnormBackward*, const QkSquares*, const QkNormForward*, const QkDots*, const QkNormBackward*,
    const RopeForward*, const RopeBackward*, const AttentionForward*, const AttentionBackward*, const AttentionCached*,
    const FindDocuments*, const NgramRows*, const EmbeddingForward*, const EmbeddingBackward*, const AddSumOfSquares*,
    const AdamW*, const AdamWRows*, const MovingAverage*, const MuonMomentum*, const AddScaled*, const MuonUpdate*,
    const SoftmaxStatistics*, const SoftmaxCombine*, const SoftmaxGradient*, const SoftmaxCrossEntropy*,
    const LogSoftmax*, const ScatterAddRows*, const CopyRows*, const SortRowsByCluster*, const Commitment*,
    const CodesFromAverages*, const MemberEntropy*, const MemberLogProbs*, const ClusterLogProbs*,
    const AddMemberMeans*, const AddMemberMeansBackward*, const MemberStatistics*, const MemberPartGradient*,
    const MemberMeansPart*, const SiluResidualForward*, const SiluResidualBackward*>;

}  // namespace vqlm
