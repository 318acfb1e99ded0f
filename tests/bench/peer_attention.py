#!/usr/bin/env python3
"""Causal attention in PyTorch (scaled_dot_product_attention): what `vqlm bench attention` is compared with.

    vqlm bench attention --json attention.json; python3 tests/bench/peer_attention.py --like attention.json

One JSON line for each shape and kernel: PyTorch's own choice (auto), and each kernel that it can be told to take: flash,
cudnn, efficient, math. Operations: 2 B T^2 heads head_dim forward (half of the scores exist), 2.5 times that backward (five products to
two), as published figures count. Rotary positions are not part of it on either side.
"""

import argparse
import contextlib
import sys

import torch
import torch.nn.functional as F

import peer

SHAPE = ["batch", "seq_len", "heads", "kv_heads", "head_dim"]


def kernels():
    """Name and context manager of each kernel that PyTorch can be made to take."""
    found = {"auto": contextlib.nullcontext}
    with contextlib.suppress(ImportError, AttributeError):
        from torch.nn.attention import SDPBackend, sdpa_kernel

        for name, backend in (("flash", "FLASH_ATTENTION"), ("cudnn", "CUDNN_ATTENTION"),
                              ("efficient", "EFFICIENT_ATTENTION"), ("math", "MATH")):
            if hasattr(SDPBackend, backend):
                found[name] = lambda chosen=getattr(SDPBackend, backend): sdpa_kernel(chosen)
    return found


def check_scores(s, limit=2**32):
    """The math kernel holds all scores, in fp32: 4 GiB of them are enough to see what it is."""
    if 4 * s["batch"] * s["heads"] * s["seq_len"] ** 2 > limit:
        raise RuntimeError(f"left out: T x T scores of T {s['seq_len']} fill more than {limit >> 30} GiB")


def measure(device, s, repeats, context):
    device.forget()

    def leaf(heads):
        # (B, T, heads, head_dim) in memory, as a projection leaves it.
        x = torch.randn(s["batch"], s["seq_len"], heads, s["head_dim"], device=device.torch, dtype=device.dtype)
        return x.transpose(1, 2).requires_grad_()

    q, k, v = leaf(s["heads"]), leaf(s["kv_heads"]), leaf(s["kv_heads"])
    extra = {"enable_gqa": True} if s["heads"] != s["kv_heads"] else {}
    with context():
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, **extra)
        dout = torch.randn_like(out)
        forward = peer.passes(
            device, lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True, **extra), repeats)
        backward = peer.passes(
            device, lambda: torch.autograd.grad(out, (q, k, v), dout, retain_graph=True), repeats)
    operations = 2.0 * s["batch"] * s["seq_len"] ** 2 * s["heads"] * s["head_dim"]
    peak = peer.matmul_peak(device)
    result = {"peer": "pytorch", "machine": device.description(), "dtype": device.dtype_name, **s,
              "matmul_peak_flops": peak}
    for name, seconds, count in (("forward", forward, operations), ("backward", backward, 2.5 * operations)):
        typical = peer.summary(seconds)
        rate = count / typical["seconds"]
        result[name] = {**typical, "flops_per_second": rate, "share_of_peak": rate / peak}
    return result


def compare(result, ours):
    return {**result, **{f"{part}_vqlm_over_peer": result[part]["seconds"] / ours[part]["seconds"]
                         for part in ("forward", "backward")}}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    peer.add_common(parser)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--seq-len", type=int, default=2048)
    parser.add_argument("--heads", type=int, default=16)
    parser.add_argument("--kv-heads", type=int, default=0)
    parser.add_argument("--head-dim", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=10)
    options = parser.parse_args()
    if not hasattr(F, "scaled_dot_product_attention"):
        peer.notice(f"PyTorch {torch.__version__} has no scaled_dot_product_attention: nothing to measure")
        return 0
    device = peer.Device(options.device, options.dtype)
    options.kv_heads = options.kv_heads or options.heads
    ours = peer.load(options.like)["shapes"] if options.like else [{key: getattr(options, key) for key in SHAPE}]

    def variant(name, shape, context):
        if name == "math":
            check_scores(shape)
        result = measure(device, {key: shape[key] for key in SHAPE}, options.repeats, context)
        return compare(result, shape) if options.like else result

    done = [peer.measure_or_report(name, lambda: variant(name, shape, context))
            for shape in ours for name, context in kernels().items()]
    return 0 if any(done) else 1


if __name__ == "__main__":
    sys.exit(main())
