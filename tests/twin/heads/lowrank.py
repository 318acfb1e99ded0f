"""vqlm's low-rank head: a dense one whose matrix is W = U A, U (V, r), A (r, d)."""

import math

import heads.dense
import parts
import torch.nn.functional as F

PROJECTION = "lm_head.projection.weight"


class Head(heads.dense.Head):
    def __init__(self, *context, rank=0):
        super().__init__(*context)
        self.rank = rank or self.settings.get("head.rank", 32)

    def parameters(self):
        """A's rows have length 1, and U A the dense matrix's deviation, 0.02 (core/model/head/low_rank_head.cpp)."""
        d, bias = self.c.d_model, super().parameters()[1:]
        return [parts.Parameter("lm_head.weight", (self.c.vocab_size, self.rank), "head", 0.02 * math.sqrt(d / self.rank)),
                parts.Parameter(PROJECTION, (self.rank, d), "head", d**-0.5), *bias]

    def logits(self, h, w):
        return F.linear(h @ w[PROJECTION].T, w["lm_head.weight"], w["lm_head.bias"] if self.bias else None)
