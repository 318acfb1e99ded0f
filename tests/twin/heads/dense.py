"""vqlm's dense head: a matrix of its own, or the embedding table."""

import torch
import torch.nn.functional as F

import parts


class Head(parts.Head):
    def __init__(self, *context, tied=0):
        super().__init__(*context)
        self.matrix = parts.TABLE if tied else "lm_head.weight"
        self.bias = self.settings.get("head.bias", True)

    def parameters(self):
        v, d = self.c.vocab_size, self.c.d_model
        own = [] if self.matrix == parts.TABLE else [parts.Parameter(self.matrix, (v, d), "head", 0.02)]
        return own + ([parts.Parameter("lm_head.bias", (v,), "head", value=parts.log_unigram(self.counts))] if self.bias else [])

    def logits(self, h, w):
        return F.linear(h, w[self.matrix], w["lm_head.bias"] if self.bias else None)

    def log_probs(self, h, w):
        return torch.log_softmax(self.logits(h, w), -1)

    def nll(self, h, targets, w):
        return F.cross_entropy(self.logits(h, w), targets, reduction="none")
