#!/usr/bin/python3
"""Golden values of the model: an independent implementation in PyTorch, in double precision.

Run   /usr/bin/python3 tests/parity/make_goldens.py     (Debian: python3-torch, python3-h5py; about 3 seconds)

It writes tests/parity/<case>.h5 for every case of cases.py; a second run gives the same bytes. Nothing here is derived from
the C++ code: reference_model.py has the decoder from the Llama definition and the VQ head from its formulas, gradients
come from autograd and the update from torch.optim.AdamW. README.md beside this file describes the HDF5 layout.

Notation: B batch, T sequence, N = B*T tokens, d width, V vocabulary, K clusters, G groups, Q codes per group.
"""

import argparse
import pathlib
import zlib

import h5py
import numpy as np
import torch

from cases import CASES, Case
from reference_model import adaptive_by_torch, band_ends, decoder, log_probs, loss_and_penalty, tail_width

BATCH, SEQ_LEN, STEPS = 2, 8, 3
LR, BETA1, BETA2, EPS, WEIGHT_DECAY, GRAD_CLIP = 1e-3, 0.9, 0.95, 1e-8, 0.1, 1.0

WORDS = {"qk_norm": ["none", "head", "width"], "norm_placement": ["pre", "post", "both"], "activation": ["swiglu", "geglu"]}

# Members per cluster: uneven, one cluster of a single token (whose member loss and gradients are exactly zero).
CLUSTER_SIZES = [1, 3, 6, 10, 17]


# ---- inputs --------------------------------------------------------------------------------------------------------


def random_state(name):
    """One stream per name, so that the cases share their decoder weights. RandomState's numbers are frozen (NEP 19)."""
    return np.random.RandomState(zlib.crc32(name.encode()))


def shapes(c):
    """Every parameter's Hugging Face name and shape; linear weights are (out, in)."""
    q, kv = c.n_heads * c.head_dim, c.n_kv_heads * c.head_dim
    out = {"model.embed_tokens.weight": (c.vocab_size, c.rank if c.rank and c.tie_embeddings else c.d_model)}
    for number, (_, rows) in enumerate(c.tables):
        out[f"model.ngram_tables.{number}.weight"] = (rows, c.d_model)
    for i in range(c.n_layers):
        layer = f"model.layers.{i}."
        if c.norm_placement != "post":
            out[layer + "input_layernorm.weight"] = (c.d_model,)
        if c.norm_placement == "both":
            out[layer + "pre_feedforward_layernorm.weight"] = (c.d_model,)
        if c.norm_placement != "pre":
            out[layer + "post_feedforward_layernorm.weight"] = (c.d_model,)
        for name, width in (("q", q), ("k", kv), ("v", kv)):
            if c.attention_bias:
                out[layer + f"self_attn.{name}_proj.bias"] = (width,)
            if c.qk_norm != "none" and name != "v":
                out[layer + f"self_attn.{name}_norm.weight"] = (c.head_dim if c.qk_norm == "head" else width,)
        out[layer + "self_attn.q_proj.weight"] = (q, c.d_model)
        out[layer + "self_attn.k_proj.weight"] = (kv, c.d_model)
        out[layer + "self_attn.v_proj.weight"] = (kv, c.d_model)
        out[layer + "self_attn.o_proj.weight"] = (c.d_model, q)
        out[layer + "post_attention_layernorm.weight"] = (c.d_model,)
        out[layer + "mlp.gate_proj.weight"] = (c.d_ff, c.d_model)
        out[layer + "mlp.up_proj.weight"] = (c.d_ff, c.d_model)
        out[layer + "mlp.down_proj.weight"] = (c.d_model, c.d_ff)
    out["model.norm.weight"] = (c.d_model,)
    if c.head == "adaptive":
        ends = band_ends(c)
        classes = [ends[0] + len(ends) - 1] + [end - begin for begin, end in zip(ends, ends[1:])]
        for band, count in enumerate(classes):
            prefix = f"lm_head.tails.{band - 1}." if band else "lm_head."
            out[prefix + "weight"] = (count, tail_width(c, band) if band else c.d_model)
            if band:
                out[prefix + "projection.weight"] = (tail_width(c, band), c.d_model)
            if c.bias:
                out[prefix + "bias"] = (count,)
    elif c.head != "vq":
        if not c.tie_embeddings:
            out["lm_head.weight"] = (c.vocab_size, c.rank or c.d_model)
        if c.rank:
            out["lm_head.projection.weight"] = (c.rank, c.d_model)
        if c.bias:
            out["lm_head.bias"] = (c.vocab_size,)
    else:
        out["vq_head.codebook"] = (c.clusters, c.d_model)
        out["vq_head.cluster_bias"] = (c.clusters,)
        if c.input_codes:
            out["vq_head.input_codebook"] = (c.clusters, c.d_model)
        if c.groups:
            out["vq_head.member_codebook"] = (c.groups, c.codes, c.d_model // c.groups)
        out["vq_head.token_bias"] = (c.vocab_size,)
    return out


def initial_weights(c):
    """float32 values: normal with deviation 0.2 (biases 0.5), gains around 1."""
    weights = {}
    for name, shape in shapes(c).items():
        x = random_state(name).standard_normal(shape)
        if "norm" in name:
            x = 1 + 0.2 * x
        elif "bias" in name:
            x = 0.5 * x
        else:
            x = 0.2 * x
        weights[name] = x.astype(np.float32)
    return weights


def code_map(c):
    """cluster_of_token (V) and member_codes (V, G), both by token id; unused by the dense head."""
    clusters = np.repeat(np.arange(len(CLUSTER_SIZES)), CLUSTER_SIZES).astype(np.int32)
    assert clusters.size == c.vocab_size
    random_state("cluster_of_token").shuffle(clusters)
    codes = random_state("member_codes").randint(0, max(c.codes, 1), (c.vocab_size, c.groups)).astype(np.uint8)
    return clusters, codes


def token_map(c):
    """(V): the band of every token for an adaptive head, any of the right sizes; else the cluster."""
    if c.head != "adaptive":
        return code_map(c)[0]
    ends = band_ends(c)
    bands = np.repeat(np.arange(len(ends)), np.diff([0, *ends])).astype(np.int32)
    random_state("band_of_token").shuffle(bands)
    return bands


def batches(c):
    """(3, B, T + 1) token ids: inputs are [..., :T], targets [..., 1:]. The token that is a cluster of its own is a
    target in every step; one batch leaves a cluster without any."""
    ids = random_state("batches").randint(0, c.vocab_size, (STEPS, BATCH, SEQ_LEN + 1)).astype(np.int32)
    clusters = code_map(c)[0]
    ids[:, 1, 3] = int(np.flatnonzero(clusters == CLUSTER_SIZES.index(1))[0])
    met = [len(set(clusters[step[:, 1:]].ravel())) for step in ids]
    assert min(met) == len(CLUSTER_SIZES) - 1 and max(met) == len(CLUSTER_SIZES), met
    return ids


# ---- training ------------------------------------------------------------------------------------------------------


def train(c, dtype):
    """Three AdamW steps. Returns everything that a golden file holds, computed in `dtype`."""
    w = {name: torch.tensor(x, dtype=dtype, requires_grad=True) for name, x in initial_weights(c).items()}
    cluster_of_token, codes = (torch.from_numpy(x.astype(np.int64)) for x in (token_map(c), code_map(c)[1]))
    optimizer = torch.optim.AdamW(
        [
            {"params": [x for x in w.values() if x.dim() >= 2], "weight_decay": WEIGHT_DECAY},
            {"params": [x for x in w.values() if x.dim() < 2], "weight_decay": 0.0},
        ],
        lr=LR, betas=(BETA1, BETA2), eps=EPS,
    )
    out = {"loss": [], "penalty": [], "grad_norm": []}
    for step, batch in enumerate(torch.from_numpy(batches(c).astype(np.int64))):
        inputs, targets = batch[:, :-1], batch[:, 1:].reshape(-1)
        h = decoder(inputs, w, c, cluster_of_token)
        loss, penalty = loss_and_penalty(h, targets, c, cluster_of_token, codes, w)
        optimizer.zero_grad()
        (loss + penalty).backward()
        norm = torch.sqrt(sum((x.grad ** 2).sum() for x in w.values()))
        with torch.no_grad():
            expanded = log_probs(h, c, cluster_of_token, codes, w)
            check(expanded, targets, loss, dtype)
            if c.head == "adaptive" and not c.bias:
                by_torch = adaptive_by_torch(h, c, cluster_of_token, w)
                assert (by_torch - expanded).abs().max() < 1e3 * torch.finfo(dtype).eps * expanded.abs().max()
            if step == 0:
                out["log_probs"] = expanded.numpy()
                out["grad"] = {name: x.grad.numpy().copy() for name, x in w.items()}
            for x in w.values():
                x.grad *= min(1.0, GRAD_CLIP / norm.item())
        optimizer.step()
        out["loss"].append(loss.item())
        out["penalty"].append(penalty.item())
        out["grad_norm"].append(norm.item())
    out["step3"] = {name: x.detach().numpy() for name, x in w.items()}
    return out


def check(expanded, targets, loss, dtype):
    """The probabilities sum to one over V, and -log of the targets' is the loss. 1e3 eps: sums of at most 37 terms."""
    bound = 1e3 * torch.finfo(dtype).eps
    total = expanded.exp().sum(-1)
    assert (total - 1).abs().max() < bound, total
    picked = -expanded[torch.arange(len(targets)), targets].mean()
    assert (picked - loss).abs() < bound * loss, (picked, loss)


# ---- files ---------------------------------------------------------------------------------------------------------


def write(path, c, golden):
    """track_times=False and contiguous storage (the values do not compress): the same bytes in every run."""
    with h5py.File(path, "w") as file:
        def put(name, value, dtype):
            file.create_dataset(name, data=np.asarray(value, dtype), track_times=False)

        for key in ("vocab_size", "d_model", "n_layers", "n_heads", "n_kv_heads", "d_ff", "tie_embeddings", "bias",
                    "clusters", "groups", "codes"):
            file.attrs[key] = np.int64(getattr(c, key))
        file.attrs["vq"] = np.int64(c.head == "vq")
        file.attrs["batch"], file.attrs["seq_len"], file.attrs["steps"] = map(np.int64, (BATCH, SEQ_LEN, STEPS))
        for key, value in {"rope_theta": c.rope_theta, "norm_eps": c.norm_eps, "commitment": c.commitment, "lr": LR,
                           "beta1": BETA1, "beta2": BETA2, "eps": EPS, "weight_decay": WEIGHT_DECAY,
                           "grad_clip": GRAD_CLIP}.items():
            file.attrs[key] = np.float64(value)
        for key in ("head_width", "attention_bias", "nope_every", "window", "window_pattern"):
            if getattr(c, key):
                file.attrs[key] = np.int64(getattr(c, key))
        if c.document_end >= 0:
            file.attrs["document_end"] = np.int64(c.document_end)
        if c.tables:
            file.attrs["ngram_tables"] = np.int64(len(c.tables))
        for number, (order, rows) in enumerate(c.tables):
            file.attrs[f"ngram_order_{number}"], file.attrs[f"ngram_rows_{number}"] = np.int64(order), np.int64(rows)
        for key in ("attention_scale", "window_rope_theta", "embedding_scale", "z_loss", "softcap"):
            if getattr(c, key) != getattr(Case, key):
                file.attrs[key] = np.float64(getattr(c, key))
        for key, words in WORDS.items():  # an enum's value, as the program counts them
            if getattr(c, key) != words[0]:
                file.attrs[key] = np.int64(words.index(getattr(c, key)))
        if c.cutoffs:
            file.attrs["tail_ratio"] = np.int64(c.tail_ratio)
            put("cutoffs", c.cutoffs, np.int32)
        if c.rank:
            file.attrs["rank"] = np.int64(c.rank)
        if c.embedding_members:
            file.attrs["embedding_members"] = np.int64(c.embedding_members)
        if c.input_codes:
            file.attrs["input_codes"] = np.int64(c.input_codes)
        if c.member_mean:
            file.attrs["member_mean"] = np.int64(c.member_mean)

        put("batches", batches(c), np.int32)
        for name, x in initial_weights(c).items():
            put("init/" + name, x, np.float32)
        if c.head == "adaptive":
            put("map/vq_head.cluster_of_token", token_map(c), np.int32)
        if c.head == "vq":
            cluster_of_token, codes = code_map(c)
            put("map/vq_head.cluster_of_token", cluster_of_token, np.int32)
            if c.groups:
                put("map/vq_head.member_codes", codes, np.uint8)
        for key in ("loss", "penalty", "grad_norm", "log_probs"):
            put(key, golden[key], np.float64)
        for group in ("grad", "step3"):
            for name, x in golden[group].items():
                put(f"{group}/{name}", x, np.float64)


def float32_distance(c, exact):
    """How far the same script in float32 lands: what a test may ask of a float32 implementation."""
    rounded = train(c, torch.float32)
    initial = initial_weights(c)

    def worst(pairs):  # the largest relative error of a tensor, in the 2-norm
        return max(np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-30) for a, b in pairs)

    return (
        max(abs(a / b - 1) for a, b in zip(rounded["loss"], exact["loss"])),
        worst((rounded["grad"][n], exact["grad"][n]) for n in initial),
        worst((rounded["step3"][n] - initial[n], exact["step3"][n] - initial[n]) for n in initial),
    )


def main():
    parser = argparse.ArgumentParser(description="Write tests/parity/<case>.h5.")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parent)
    parser.add_argument("--only", help="cases whose names begin so; default: all", default="")
    arguments = parser.parse_args()
    out = arguments.out
    torch.set_num_threads(1)  # one order of summation on every machine
    print("case            loss of steps 1-3         grad norms            float32: loss    grad     update")
    for c in CASES:
        if not c.name.startswith(arguments.only):
            continue
        golden = train(c, torch.float64)
        write(out / f"{c.name}.h5", c, golden)
        losses = " ".join(f"{x:.5f}" for x in golden["loss"])
        norms = " ".join(f"{x:.4f}" for x in golden["grad_norm"])
        print(f"{c.name:15s} {losses}   {norms}   " + "  ".join(f"{x:.1e}" for x in float32_distance(c, golden)))


if __name__ == "__main__":
    main()
