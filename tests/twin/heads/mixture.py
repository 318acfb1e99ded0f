"""Mixture of softmaxes (Yang et al., arXiv 1711.03953): p = sum_m pi_m softmax(W tanh(P_m h) + b), pi = softmax(h G^T)."""

import torch

import heads.dense
import parts


class Head(heads.dense.Head):
    def __init__(self, *context, mixtures=4, tied=0):
        super().__init__(*context, tied=tied)
        self.mixtures = mixtures

    def parameters(self):
        m, d = self.mixtures, self.c.d_model
        return [*super().parameters(), parts.Parameter("mixture.gate", (m, d), "head", 0.02),
                parts.Parameter("mixture.projections", (m * d, d), "head", d**-0.5)]

    def log_probs(self, h, w):
        gate = torch.log_softmax(h @ w["mixture.gate"].T, -1)
        contexts = torch.tanh(h @ w["mixture.projections"].T).split(self.c.d_model, 1)
        found = [gate[:, m, None] + torch.log_softmax(self.logits(x, w), -1) for m, x in enumerate(contexts)]
        return torch.logsumexp(torch.stack(found), 0)

    def nll(self, h, targets, w):
        gate = torch.log_softmax(h @ w["mixture.gate"].T, -1)
        contexts = torch.tanh(h @ w["mixture.projections"].T).split(self.c.d_model, 1)
        found = [gate[:, m] - heads.dense.Head.nll(self, x, targets, w) for m, x in enumerate(contexts)]
        return -torch.logsumexp(torch.stack(found), 0)
