"""vqlm's adaptive softmax (Grave et al., arXiv 1609.04309; docs/heads.md): the most frequent tokens and one class a tail in a first
softmax, a tail's tokens in a second one, from h projected to d / div, d / div^2, ... numbers. With tied=1 also the input is made of
these tables and projections (adaptive input, Baevski and Auli, arXiv 1809.10853), and there is no embedding table.

Biases start at the log unigram counts, as every head's. Classes of a band stand by rising id."""

import numpy as np
import torch

import parts


class Head(parts.Head):
    def __init__(self, *context, cuts="", div=0, tied=0):
        """cuts: where tails begin in the order of falling counts, with "/" between; default as the configuration says, or 1/8 and
        1/2 of the vocabulary."""
        super().__init__(*context)
        v = self.c.vocab_size
        cuts = list(map(int, str(cuts).split("/"))) if cuts else self.settings.get("head.cutoffs", [v // 8, v // 2])
        div = div or self.settings.get("head.tail_ratio", 4)
        self.bias, self.tied = self.settings.get("head.bias", True), tied
        self.bands = list(zip([0, *cuts], [*cuts, v], strict=True))
        self.widths = [max(1, self.c.d_model // div**i) for i in range(len(self.bands))]
        by_count = np.argsort(-self.counts, kind="stable")
        self.order = torch.from_numpy(np.concatenate([np.sort(by_count[begin:end]) for begin, end in self.bands]))
        self.rank = torch.empty_like(self.order)
        self.rank[self.order] = torch.arange(v)

    def table(self):
        return [] if self.tied else super().table()

    def parameters(self):
        """The first softmax has rows of the tails behind those of its tokens: in a table of their own where the others are the
        embedding's, too."""
        unigram, d = parts.log_unigram(self.counts)[self.order.numpy()], self.c.d_model
        masses = [np.exp(unigram[begin:end].astype(np.float64)).sum() for begin, end in self.bands]
        first, tails, count = unigram[: self.bands[0][1]], np.log(masses[1:]), len(self.bands) - 1
        if self.tied:
            found = [parts.Parameter("lm_head.weight", (len(first), d), "embedding", 0.02), parts.Parameter("lm_head.tail_classes", (count, d), "head", 0.02)]
        else:
            found = [parts.Parameter("lm_head.weight", (len(first) + count, d), "head", 0.02)]
        biases = [("lm_head.bias", np.concatenate([first, tails]))]
        for i, (begin, end) in enumerate(self.bands[1:]):
            # W A, and the first scores, are as large as with a matrix of 0.02.
            width, name = self.widths[i + 1], f"lm_head.tails.{i}"
            found += [parts.Parameter(f"{name}.weight", (end - begin, width), "embedding" if self.tied else "head", 0.02 * (d / width) ** 0.5),
                      parts.Parameter(f"{name}.projection.weight", (width, d), "head", d**-0.5)]
            biases.append((f"{name}.bias", unigram[begin:end] - tails[i]))
        if self.bias:
            found += [parts.Parameter(name, value.shape, "head", value=value) for name, value in biases]
        return found

    def scores(self, h, w, name):
        return torch.nn.functional.linear(h, w[f"{name}.weight"], w[f"{name}.bias"] if self.bias else None)

    def embed(self, ids, w):
        if not self.tied:
            return super().embed(ids, w)
        tails = [w[f"lm_head.tails.{i}.weight"] @ w[f"lm_head.tails.{i}.projection.weight"] for i in range(len(self.bands) - 1)]
        return torch.cat([w["lm_head.weight"], *tails])[self.rank[ids]] * self.c.embedding_scale

    def first(self, h, w):
        """(N, the first band's tokens and the tails)."""
        rows = torch.cat([w["lm_head.weight"], w["lm_head.tail_classes"]]) if self.tied else w["lm_head.weight"]
        return torch.log_softmax(torch.nn.functional.linear(h, rows, w["lm_head.bias"] if self.bias else None), -1)

    def inside(self, i, h, w):
        name = f"lm_head.tails.{i - 1}"
        return torch.log_softmax(self.scores(h @ w[f"{name}.projection.weight"].T, w, name), -1)

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
