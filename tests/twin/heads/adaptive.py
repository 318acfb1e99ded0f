"""Adaptive softmax (Grave et al., arXiv 1609.04309): the most frequent tokens and one class a tail in a first softmax, a tail's tokens
in a second one, from h projected to d / div, d / div^2, ... numbers. With tied=1 also the input is made of these tables and
projections (adaptive input, Baevski and Auli, arXiv 1809.10853), and there is no embedding table.

Biases start at the log unigram counts, as every head's."""

import numpy as np
import torch

import parts


class Head(parts.Head):
    def __init__(self, *context, cuts="", div=4, tied=0):
        """cuts: where tails begin in the order of falling counts, with "/" between; default 1/8 and 1/2 of the vocabulary."""
        super().__init__(*context)
        v, d = self.c.vocab_size, self.c.d_model
        bounds = [0, *(map(int, str(cuts).split("/")) if cuts else (v // 8, v // 2)), v]
        self.order = torch.from_numpy(np.argsort(-self.counts, kind="stable").copy())
        self.tied, self.bands = tied, list(zip(bounds[:-1], bounds[1:], strict=True))
        self.widths = [max(1, d // div**i) for i in range(len(self.bands))]
        self.rank = torch.empty_like(self.order)
        self.rank[self.order] = torch.arange(v)

    def table(self):
        return [] if self.tied else super().table()

    def parameters(self):
        unigram, d = parts.log_unigram(self.counts)[self.order.numpy()], self.c.d_model
        role = "embedding" if self.tied else "head"
        tails = [np.log(np.exp(unigram[begin:end]).sum()) for begin, end in self.bands[1:]]
        found = [parts.Parameter("adaptive.tails", (len(tails), d), "head", 0.02), parts.Parameter("adaptive.tail_bias", (len(tails),), "head", value=tails)]
        for i, ((begin, end), width) in enumerate(zip(self.bands, self.widths, strict=True)):
            found += [parts.Parameter(f"adaptive.{i}.weight", (end - begin, width), role, 0.02),
                      parts.Parameter(f"adaptive.{i}.bias", (end - begin,), "head", value=unigram[begin:end])]
            if i > 0:  # a vector's numbers keep their deviation on the way up
                found.append(parts.Parameter(f"adaptive.{i}.projection", (width, d), "head", width**-0.5))
        return found

    def embed(self, ids, w):
        if not self.tied:
            return super().embed(ids, w)
        bands = [w[f"adaptive.{i}.weight"] @ w[f"adaptive.{i}.projection"] if i else w["adaptive.0.weight"] for i in range(len(self.bands))]
        return torch.cat(bands)[self.rank[ids]] * self.c.embedding_scale

    def first(self, h, w):
        """(N, the first band's tokens and the tails)."""
        rows, bias = torch.cat([w["adaptive.0.weight"], w["adaptive.tails"]]), torch.cat([w["adaptive.0.bias"], w["adaptive.tail_bias"]])
        return torch.log_softmax(h @ rows.T + bias, -1)

    def inside(self, i, h, w):
        return torch.log_softmax(h @ w[f"adaptive.{i}.projection"].T @ w[f"adaptive.{i}.weight"].T + w[f"adaptive.{i}.bias"], -1)

    def log_probs(self, h, w):
        first, shared = self.first(h, w), self.bands[0][1]
        found = [first[:, :shared]] + [first[:, shared + i - 1, None] + self.inside(i, h, w) for i in range(1, len(self.bands))]
        return torch.cat(found, 1)[:, self.rank]

    def nll(self, h, targets, w):
        first, shared, rank = self.first(h, w), self.bands[0][1], self.rank[targets]
        tail = sum((rank >= begin).long() for begin, _ in self.bands[1:])
        told = first.gather(1, torch.where(tail == 0, rank, shared + tail - 1)[:, None])[:, 0]
        for i, (begin, _) in list(enumerate(self.bands))[1:]:
            rows = (tail == i).nonzero()[:, 0]
            own = self.inside(i, h[rows], w).gather(1, rank[rows, None] - begin)[:, 0]
            told = told.index_add(0, rows, own)
        return -told
