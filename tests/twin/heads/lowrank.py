"""A dense head of low rank: W = U A, U (V, r), A (r, d)."""

import heads.dense
import parts
import torch.nn.functional as F


class Head(heads.dense.Head):
    def __init__(self, *context, rank=32):
        super().__init__(*context)
        self.rank = rank

    def parameters(self):
        """A's rows are such that W starts with the dense matrix's deviation, 0.02."""
        bias = super().parameters()[1:]
        return [parts.Parameter("lm_head.left", (self.c.vocab_size, self.rank), "head", 0.02),
                parts.Parameter("lm_head.right", (self.rank, self.c.d_model), "head", self.rank**-0.5), *bias]

    def logits(self, h, w):
        return F.linear(h @ w["lm_head.right"].T, w["lm_head.left"], w["lm_head.bias"] if self.bias else None)
