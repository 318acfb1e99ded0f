"""The shards as vqlm reads them: one stream, samples in the run's order, held-out samples, counts (docs/data.md)."""

import glob
import json
import pathlib

import h5py
import numpy as np

from philox import permuted
from settings import TwinError

COUNTED_TOKENS = 200_000_000  # beyond these vqlm counts a part (train/run/token_counts.cpp)


class Stream:
    def __init__(self, pattern):
        paths = sorted(glob.glob(str(pathlib.Path(pattern).expanduser())))
        if not paths:
            raise TwinError(f"{pattern}: no shards; vqlm prepare makes them")
        parts = []
        for path in paths:
            with h5py.File(path) as file:
                parts.append(file["tokens"][:].astype(np.int32))
        self.pattern, self.folder = pattern, pathlib.Path(paths[0]).parent
        self.tokens = np.concatenate(parts)

    def counts(self, vocab_size):
        if len(self.tokens) > COUNTED_TOKENS:
            raise TwinError(f"{self.pattern}: {len(self.tokens)} tokens; the twin counts at most {COUNTED_TOKENS}, name fewer shards")
        return np.bincount(self.tokens, minlength=vocab_size)

    def trained_counts(self, vocab_size, steps, batch, length, seed):
        """Of the targets of a run's samples, each once however many epochs read it (docs/heads.md, What is counted)."""
        numbers = np.unique(self.samples(0, steps * batch, length, seed))
        if len(numbers) * length > COUNTED_TOKENS:
            raise TwinError(f"{self.pattern}: the run trains on {len(numbers) * length} tokens; the twin counts at most {COUNTED_TOKENS}")
        return np.bincount(self.tokens[numbers[:, None] * length + np.arange(1, length + 1)].ravel(), minlength=vocab_size)

    def samples(self, first, count, length, seed):
        """The numbers of the samples that the run reads from its `first` on."""
        samples = (len(self.tokens) - 1) // length
        if samples < 1:
            raise TwinError(f"{self.pattern}: {len(self.tokens)} tokens, fewer than data.seq_len + 1 = {length + 1}")
        turns = np.arange(first, first + count)
        return np.concatenate([permuted(samples, seed, int(e), turns[turns // samples == e] % samples) for e in np.unique(turns // samples)])

    def training_batch(self, step, batch, length, seed):
        """(ids, targets), each (batch, length): the samples of optimizer step `step`, from 0."""
        numbers = self.samples(step * batch, batch, length, seed)
        rows = self.tokens[numbers[:, None] * length + np.arange(length + 1)]
        return rows[:, :-1].astype(np.int64), rows[:, 1:].astype(np.int64)

    def heldout_batches(self, rows, length, max_tokens):
        """(ids, targets) in order, every token but the first a target once; targets of -1 have nothing to predict."""
        targets = len(self.tokens) - 1
        samples = -(-targets // length)
        if max_tokens > 0:
            samples = min(samples, -(-max_tokens // length))
        padded = np.zeros((-(-samples // rows) * rows, length, 2), dtype=np.int64)
        padded[:, :, 1] = -1
        for i in range(samples):
            piece = self.tokens[i * length : (i + 1) * length + 1]
            padded[i, : len(piece) - 1] = np.stack([piece[:-1], piece[1:]], -1)
        return [(padded[i : i + rows, :, 0], padded[i : i + rows, :, 1]) for i in range(0, len(padded), rows)]


def append_line(path, record):
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")
