#!/usr/bin/env python3
"""The dense output head in PyTorch, forward and backward: what `vqlm bench head` is compared with.

    vqlm bench head --vocab 128000 --width 4096 --rows 16384 --json head.json
    python3 tests/bench/peer_head.py --like head.json

bf16 on CUDA: hidden states, matrix, bias and their gradients are bf16, the cross entropy is fp32. One pass is forward and
backward to all three. Variants, one JSON line each: all rows at once (plain), checkpointed chunks of rows (chunked), and the
package cut_cross_entropy, which makes no logits in memory (cut).
"""

import argparse
import sys

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

import peer

SIZES = ["vocab_size", "width", "rows"]


def plain(h, matrix, bias, targets):
    return F.cross_entropy(F.linear(h, matrix, bias).float(), targets, reduction="sum")


def cut_sum(cut, h, matrix, bias, targets):
    return cut(h, matrix, targets, bias=bias, reduction="sum").float()


def measure(device, s, options, chunk_rows, cut=None):
    device.forget()
    torch.manual_seed(1)

    def leaf(*shape, deviation):
        x = deviation * torch.randn(*shape, device=device.torch, dtype=device.dtype)
        return x.requires_grad_()

    h = leaf(s.rows, s.width, deviation=1.0)
    matrix = leaf(s.vocab_size, s.width, deviation=0.02)
    share = 1 / (torch.arange(s.vocab_size) + 2.7)  # word frequencies, as in vqlm's benchmark
    bias = torch.log(share / share.sum()).to(device.torch, device.dtype).requires_grad_()
    targets = torch.multinomial(share, s.rows, replacement=True).to(device.torch)
    compile_, compiled = peer.compiler(not options.eager)
    loss_of = (lambda *operands: cut_sum(cut, *operands)) if cut else compile_(plain)
    nll = []

    def forward_backward():
        h.grad = matrix.grad = bias.grad = None
        total = torch.zeros((), device=device.torch)
        if chunk_rows:
            # A backward pass for each chunk: what checkpointing comes to where the loss is the model's last part.
            for begin in range(0, s.rows, chunk_rows):
                rows = slice(begin, begin + chunk_rows)
                loss = loss_of(h[rows], matrix, bias, targets[rows])
                (loss / s.rows).backward()
                total += loss.detach()
        else:
            loss = loss_of(h, matrix, bias, targets)
            (loss / s.rows).backward()
            total += loss.detach()
        nll[:] = [total]

    seconds = peer.summary(peer.passes(device, forward_backward, options.repeats))
    memory = device.memory_bytes()
    operations = 6.0 * s.rows * s.width * s.vocab_size
    return {
        "peer": "pytorch", "machine": device.description(), "dtype": device.dtype_name, "compiled": compiled, **seconds,
        "flops_per_second": operations / seconds["seconds"], "matmul_peak_flops": peer.matmul_peak(device),
        "bytes": memory["peak_total"], "memory_bytes": memory, "matrix_parameters": matrix.numel(),
        "bias_parameters": bias.numel(), "mean_nll": nll[0].item() / s.rows,
    }


def compare(result, ours):
    if result["matrix_parameters"] != ours["dense"]["matrix_parameters"]:
        sys.exit(f"peer: {result['matrix_parameters']} matrix parameters here, {ours['dense']['matrix_parameters']} in "
                 "the vqlm result: not the same head")
    ratios = {f"{head}_over_peer": result["seconds"] / ours[head]["seconds"] for head in ("dense", "vq")}
    if result["bytes"]:
        ratios |= {f"{head}_bytes_over_peer": ours[head]["bytes"] / result["bytes"] for head in ("dense", "vq")}
    return {**result, **ratios}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    peer.add_common(parser)
    parser.add_argument("--vocab", dest="vocab_size", type=int, default=50000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--chunk-rows", type=int, default=2048, help="rows of a chunk of the chunked loss")
    options = parser.parse_args()
    ours = peer.load(options.like) if options.like else None
    s = argparse.Namespace(**{key: ours[key] if ours else getattr(options, key) for key in SIZES})
    device = peer.Device(options.device, options.dtype)

    def variant(chunk_rows, cut):
        result = measure(device, s, options, chunk_rows, peer.cut_cross_entropy(True) if cut else None)
        return compare(result, ours) if ours else result

    done = [peer.measure_or_report(name, lambda: variant(chunk_rows, name == "cut"))
            for name, chunk_rows in (("plain", 0), ("chunked", options.chunk_rows), ("cut", 0))]
    return 0 if any(done) else 1


if __name__ == "__main__":
    sys.exit(main())
