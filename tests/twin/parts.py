"""Parameters and how they start, the body, and what heads and inputs have in common. w: tensors by name.
Notation: B batch, T sequence, N = B*T tokens, d width, V vocabulary."""

import dataclasses
import math
import os
import pathlib
import sys

import numpy as np
import torch

from philox import normals

SOURCE = pathlib.Path(os.environ.get("VQLM_SOURCE_DIR", pathlib.Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(SOURCE / "tests" / "parity"))

import reference_model  # noqa: E402

TABLE = "model.embed_tokens.weight"


@dataclasses.dataclass
class Parameter:
    """Starts as value + stddev * the draws of its name. Its role says its rate and decay (docs/optimizers.md)."""

    name: str
    shape: tuple
    role: str  # blocks, embedding, head, tables, input_tables, gains
    stddev: float = 0.0
    value: object = 0.0  # a number, or an array

    @property
    def decays(self):  # gains: by gains_decay_ratio, 0 by default
        return len(self.shape) >= 2 or self.role == "gains"

    def start(self, seed):
        data = np.zeros(self.shape, dtype=np.float32) + np.asarray(self.value, dtype=np.float32)
        if self.stddev:
            data += np.float32(self.stddev) * normals(seed, self.name, data.size).reshape(self.shape)
        return torch.from_numpy(data)


def body_parameters(c):
    output = 0.0 if getattr(c, "zero_init_outputs", False) else float(np.float32(0.02) / np.sqrt(np.float32(2 * c.n_layers)))
    d, query, kv = c.d_model, c.n_heads * c.head_dim, c.n_kv_heads * c.head_dim
    found = []
    for i in range(c.n_layers):
        matrices = {"self_attn.q_proj": (query, d), "self_attn.k_proj": (kv, d), "self_attn.v_proj": (kv, d), "self_attn.o_proj": (d, query),
                    "mlp.gate_proj": (c.d_ff, d), "mlp.up_proj": (c.d_ff, d), "mlp.down_proj": (d, c.d_ff)}
        for name, shape in matrices.items():
            stddev = output if name in ("self_attn.o_proj", "mlp.down_proj") else 0.02
            found.append(Parameter(f"model.layers.{i}.{name}.weight", shape, "blocks", stddev))
        for name in ("input_layernorm", "post_attention_layernorm"):
            found.append(Parameter(f"model.layers.{i}.{name}.weight", (d,), "gains", value=1.0))
    return [*found, Parameter("model.norm.weight", (d,), "gains", value=1.0)]


def hidden_states(x, w, c):
    """x (B, T, d), the input's vectors -> (N, d), the output of the final norm."""
    for i in range(c.n_layers):
        x = reference_model.block(x, reference_model.below(w, f"model.layers.{i}."), c, i, None)
    return reference_model.rmsnorm(x, w["model.norm.weight"], c.norm_eps).reshape(-1, c.d_model)


def log_unigram(counts):
    """(V): log((count + 1) / (total + V)), which biases start at."""
    return np.log((counts + 1.0) / (counts.sum() + len(counts)))


class Head:
    """A row of the comparison: heads/NAME.py has a class `Head` of its own. c: the model's sizes; counts (V): of the training
    text; settings, folder: the run's configuration and the shards' folder. log_probs() says what the head is; nll() may be quicker."""

    embedding_stddev = 0.02

    def __init__(self, c, counts, settings, folder):
        self.c, self.counts, self.settings, self.folder = c, counts, settings, folder

    def parameters(self):
        """The head's own; the embedding table is among them only where table() leaves it out."""
        raise NotImplementedError

    def table(self):
        return [Parameter(TABLE, (self.c.vocab_size, self.c.d_model), "embedding", self.embedding_stddev)]

    def embed(self, ids, w):
        """ids (B, T) -> (B, T, d)."""
        return w[TABLE][ids] * self.c.embedding_scale

    def log_probs(self, h, w):
        """h (N, d) -> (N, V), over the whole vocabulary."""
        raise NotImplementedError

    def nll(self, h, targets, w):
        """(N): minus the targets' log-probabilities."""
        return -self.log_probs(h, w).gather(1, targets[:, None])[:, 0]


class Input:
    """What inputs/NAME.py has a class `Input` of: changes the vectors that go into the body."""

    def __init__(self, c, counts):
        self.c, self.counts = c, counts

    def parameters(self):
        return []

    def apply(self, x, ids, w):
        raise NotImplementedError


def first_scores(c):
    """The table's deviation where a head scores tokens with its rows (core/model/transformer.cpp)."""
    return min(0.02, 0.5 / math.sqrt(c.d_model))
