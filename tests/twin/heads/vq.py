"""vqlm's recommended head: clusters of a code map, members by rows of the embedding, means and input codes (docs/heads.md)."""

import pathlib

import h5py
import numpy as np
import torch

import parts
from settings import TwinError


class Head(parts.Head):
    def __init__(self, *context, map="", mean=None, input_codes=None):
        super().__init__(*context)
        path = pathlib.Path(map or self.settings.path.parent / "code_map.h5")
        if not path.exists():
            raise TwinError(f"{path}: no code map; name one as --head vq:map=FILE (vqlm codes make, or a VQ run's code_map.h5)")
        with h5py.File(path) as file:
            self.set_map(file["cluster_of_token"][:])
        self.embedding_stddev = parts.first_scores(self.c)
        self.bias = self.settings.get("head.bias", True)
        self.mean = bool(self.settings.get("head.member_mean", True) if mean is None else mean)
        self.input_codes = bool(self.settings.get("head.input_codes", True) if input_codes is None else input_codes)

    def set_map(self, cluster_of_token):
        if len(cluster_of_token) != self.c.vocab_size:
            raise TwinError(f"the code map is of {len(cluster_of_token)} tokens, model.vocab_size = {self.c.vocab_size}; make one of these shards")
        self.cluster = torch.from_numpy(cluster_of_token.astype(np.int64))
        self.order = torch.sort(self.cluster, stable=True).indices
        self.sizes = torch.bincount(self.cluster)
        self.clusters = len(self.sizes)
        self.place = torch.empty_like(self.order)  # of a token among its cluster's members
        begin = torch.cumsum(self.sizes, 0) - self.sizes
        self.place[self.order] = torch.arange(len(self.order)) - begin[self.cluster[self.order]]

    def parameters(self):
        d, unigram = self.c.d_model, parts.log_unigram(self.counts).astype(np.float32)
        mass = np.bincount(self.cluster.numpy(), weights=np.exp(unigram.astype(np.float64)))
        found = [parts.Parameter("vq_head.codebook", (self.clusters, d), "tables", 0.02),
                 parts.Parameter("vq_head.cluster_bias", (self.clusters,), "head", value=np.log(mass))]
        if self.bias:
            found.append(parts.Parameter("vq_head.token_bias", unigram.shape, "head", value=unigram))
        if self.input_codes:
            found.append(parts.Parameter("vq_head.input_codebook", (self.clusters, d), "tables", self.embedding_stddev))
        return found

    def embed(self, ids, w):
        x = super().embed(ids, w)
        return x + w["vq_head.input_codebook"][self.cluster[ids]] if self.input_codes else x

    def vectors(self, w):
        """(V, d) in the order of members."""
        return w[parts.TABLE][self.order]

    def cluster_log_probs(self, h, vectors, w):
        codes = w["vq_head.codebook"]
        if self.mean:
            sums = torch.zeros_like(codes).index_add(0, self.cluster[self.order], vectors)
            codes = codes + sums / self.sizes[:, None]
        return torch.log_softmax(h @ codes.T + w["vq_head.cluster_bias"], -1)

    def biases(self, w):
        return (w["vq_head.token_bias"] if self.bias else torch.zeros(len(self.order), dtype=w[parts.TABLE].dtype))[self.order]

    def log_probs(self, h, w):
        vectors, sizes = self.vectors(w), self.sizes.tolist()
        scores = (h @ vectors.T + self.biases(w)).split(sizes, 1)
        clusters = self.cluster_log_probs(h, vectors, w)
        inside = torch.cat([torch.log_softmax(s, -1) + clusters[:, k : k + 1] for k, s in enumerate(scores)], 1)
        return torch.empty_like(inside).index_copy(1, self.order, inside)

    def nll(self, h, targets, w):
        """One product a cluster that has targets."""
        cluster, vectors = self.cluster[targets], self.vectors(w)
        rows = torch.sort(cluster, stable=True).indices
        counts, sizes = torch.bincount(cluster, minlength=self.clusters).tolist(), self.sizes.tolist()
        groups = zip(h[rows].split(counts), self.place[targets[rows]].split(counts), vectors.split(sizes), self.biases(w).split(sizes), strict=True)
        found = [torch.nn.functional.cross_entropy(torch.addmm(b, x, u.T), place, reduction="none") for x, place, u, b in groups if len(place)]
        members = torch.empty_like(h[:, 0]).index_copy(0, rows, torch.cat(found))
        return members - self.cluster_log_probs(h, vectors, w).gather(1, cluster[:, None])[:, 0]
