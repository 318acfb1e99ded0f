"""Tables of n-grams at the input: x_t = E[id_t] + sum over tables n of B_n[hash(the last n ids) mod rows].

They start at zero, so that a model starts as the one without them. Before a sample's first token stands an id of its own, V."""

import torch

import parts

ODD = 0x9E3779B97F4A7C15 - (1 << 64)  # 2^64 / golden ratio, as a signed number: Fibonacci hashing (Knuth, vol. 3, 6.4)


def hashed(ids, n, rows, vocab_size):
    """ids (B, T) -> (B, T), of each place's last n ids."""
    key = torch.zeros_like(ids)
    for back in range(n - 1, -1, -1):
        before = torch.full_like(ids, vocab_size)
        before[:, back:] = ids[:, : ids.shape[1] - back]
        key = (key ^ before) * ODD  # wraps
        key = key ^ (key >> 29)
    return (key >> 20 & (1 << 40) - 1) % rows


class Input(parts.Input):
    def __init__(self, *context, rows=8192, most=2, least=2, role="embedding"):
        super().__init__(*context)
        self.rows, self.lengths, self.role = rows, range(least, most + 1), role

    def parameters(self):
        return [parts.Parameter(f"ngram.{n}.weight", (self.rows, self.c.d_model), self.role) for n in self.lengths]

    def apply(self, x, ids, w):
        for n in self.lengths:
            x = x + w[f"ngram.{n}.weight"][hashed(ids, n, self.rows, self.c.vocab_size)]
        return x
