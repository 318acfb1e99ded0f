#!/usr/bin/env python3
"""A training step of the same decoder in PyTorch: what `vqlm bench step --head dense` is compared with.

    python3 tests/bench/peer_step.py --d-model 768 --layers 12 --heads 12 --d-ff 2048 --vocab 50257 --seq-len 1024 --batch 16
    vqlm bench step ... --head dense --json step.json; python3 tests/bench/peer_step.py --like step.json

The model (the same as vqlm's: peer_test.py checks it against tests/parity): RMSNorm, rotary positions in half-split order, causal grouped-query attention (scaled_dot_product_attention),
SwiGLU, untied dense head with bias. The query, key and value projections are one product and so are gate and up, as in
vqlm. Forward and loss are one torch.compile region. The optimizer is fused AdamW after clipping the global norm.

Variants, one JSON line each:
  bf16 + master    bf16 parameters and gradients; fp32 master copies and moments in fused AdamW; gradients are copied up
                   before it and parameters down after it. What vqlm does, except that vqlm sums gradients in fp32.
  autocast         fp32 parameters and gradients under torch.autocast(bf16), the usual recipe.
each with the dense cross entropy over all rows at once (plain), over checkpointed chunks of rows (chunked), and, of bf16
parameters, by the package cut_cross_entropy, which makes no logits in memory (cut).
"""

import argparse
import contextlib
import math
import sys

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

import peer

SIZES = ["vocab_size", "d_model", "n_layers", "n_heads", "n_kv_heads", "d_ff", "seq_len", "micro_batch",
         "micro_batches"]


def rmsnorm(x, gain, eps):
    y = x.float()
    return (y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + eps) * gain.float()).to(x.dtype)


def rotate(x, cosine, sine):
    """x (B, heads, T, head_dim); tables (T, head_dim / 2) in fp32."""
    first, second = x.float().chunk(2, -1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], -1).to(x.dtype)


def attend(q, k, v):
    """Causal attention of (B, heads, T, head_dim), keys and values with fewer heads where queries share them."""
    shared = q.shape[1] // k.shape[1]
    if hasattr(F, "scaled_dot_product_attention"):
        try:
            if shared > 1:
                return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
            return F.scaled_dot_product_attention(q, k, v, is_causal=True)
        except TypeError:  # enable_gqa came with PyTorch 2.5
            k, v = (x.repeat_interleave(shared, 1) for x in (k, v))
            return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    k, v = (x.repeat_interleave(shared, 1) for x in (k, v))
    scores = q @ k.transpose(2, 3) / math.sqrt(q.shape[-1])
    future = torch.ones(q.shape[2], q.shape[2], dtype=torch.bool, device=q.device).triu(1)
    return torch.softmax(scores.masked_fill(future, -math.inf).float(), -1).to(q.dtype) @ v


class Block(torch.nn.Module):
    def __init__(self, s):
        super().__init__()
        self.heads, self.kv_heads, self.head_dim, self.eps = s.n_heads, s.n_kv_heads, s.d_model // s.n_heads, s.norm_eps
        qkv = (s.n_heads + 2 * s.n_kv_heads) * self.head_dim

        def matrix(rows, columns, deviation=0.02):
            return torch.nn.Parameter(deviation * torch.randn(rows, columns))

        branch = 0.02 / math.sqrt(2 * s.n_layers)  # of what adds to the residual stream
        self.attention_gain = torch.nn.Parameter(torch.ones(s.d_model))
        self.qkv = matrix(qkv, s.d_model)
        self.out = matrix(s.d_model, s.n_heads * self.head_dim, branch)
        self.mlp_gain = torch.nn.Parameter(torch.ones(s.d_model))
        self.gate_up = matrix(2 * s.d_ff, s.d_model)
        self.down = matrix(s.d_model, s.d_ff, branch)

    def forward(self, x, cosine, sine):
        b, t, _ = x.shape
        qkv = F.linear(rmsnorm(x, self.attention_gain, self.eps), self.qkv).view(b, t, -1, self.head_dim)
        q, k, v = qkv.transpose(1, 2).split([self.heads, self.kv_heads, self.kv_heads], 1)
        y = attend(rotate(q, cosine, sine), rotate(k, cosine, sine), v)
        x = x + F.linear(y.transpose(1, 2).reshape(b, t, -1), self.out)
        gate, up = F.linear(rmsnorm(x, self.mlp_gain, self.eps), self.gate_up).chunk(2, -1)
        return x + F.linear(F.silu(gate) * up, self.down)


class Decoder(torch.nn.Module):
    def __init__(self, s, chunk_rows, cut=None):
        super().__init__()
        self.sizes, self.chunk_rows, self.cut = s, chunk_rows, cut
        self.table = torch.nn.Parameter(0.02 * torch.randn(s.vocab_size, s.d_model))
        self.blocks = torch.nn.ModuleList(Block(s) for _ in range(s.n_layers))
        self.gain = torch.nn.Parameter(torch.ones(s.d_model))
        self.head = torch.nn.Parameter(0.02 * torch.randn(s.vocab_size, s.d_model))
        self.bias = torch.nn.Parameter(torch.zeros(s.vocab_size)) if s.bias else None
        half = s.d_model // s.n_heads // 2
        frequency = s.rope_theta ** (-torch.arange(half, dtype=torch.float64) / half)
        angle = torch.outer(torch.arange(s.seq_len, dtype=torch.float64), frequency)
        # Plain attributes: .to(bfloat16) must not round them.
        self.cosine, self.sine = angle.cos().float(), angle.sin().float()

    def place_tables(self, device):
        self.cosine, self.sine = self.cosine.to(device), self.sine.to(device)

    def summed_nll(self, h, targets):
        return F.cross_entropy(F.linear(h, self.head, self.bias).float(), targets, reduction="sum")

    def forward(self, tokens, targets):
        """Mean of -log p over tokens (B, T)."""
        x = F.embedding(tokens, self.table)
        if torch.is_autocast_enabled():
            x = x.to(torch.bfloat16)  # or the residual stream would be fp32 throughout
        for block in self.blocks:
            x = block(x, self.cosine, self.sine)
        h, targets = rmsnorm(x, self.gain, self.sizes.norm_eps).flatten(0, 1), targets.flatten()
        if self.cut:
            bias = {} if self.bias is None else {"bias": self.bias}
            return self.cut(h, self.head, targets, reduction="mean", **bias)
        if not self.chunk_rows:
            return self.summed_nll(h, targets) / targets.numel()
        total = torch.zeros((), device=h.device)
        for begin in range(0, targets.numel(), self.chunk_rows):
            rows = slice(begin, begin + self.chunk_rows)
            total = total + checkpoint(self.summed_nll, h[rows], targets[rows], use_reentrant=False)
        return total / targets.numel()

    def flops_per_token(self):
        """As vqlm counts: 6 per weight of every product, 6 T heads head_dim a layer for causal attention."""
        s = self.sizes
        weights = sum(x.numel() for block in self.blocks for x in block.parameters() if x.dim() == 2)
        return 6.0 * (weights + self.head.numel()) + 6.0 * s.seq_len * s.d_model * s.n_layers


class Training:
    """Forward, backward, clip, AdamW. master: the model holds bf16 copies of fp32 parameters that AdamW owns."""

    def __init__(self, model, lr, fused, master):
        self.parameters = list(model.parameters())
        self.owned = [x.detach().float().clone().requires_grad_() for x in self.parameters] if master \
            else self.parameters
        groups = [{"params": [x for x in self.owned if x.dim() >= 2], "weight_decay": 0.1},
                  {"params": [x for x in self.owned if x.dim() < 2], "weight_decay": 0.0}]
        extra = {"fused": True} if fused else {}
        self.optimizer = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95), eps=1e-8, **extra)
        self.master = master

    def update(self):
        """Returns the global norm before clipping."""
        if self.master:
            for owned in self.owned:
                owned.grad = torch.empty_like(owned) if owned.grad is None else owned.grad
            copy_all([x.grad for x in self.owned], [x.grad for x in self.parameters])
        norm = torch.nn.utils.clip_grad_norm_(self.owned, 1.0)
        self.optimizer.step()
        if self.master:
            copy_all(self.parameters, self.owned)
        for x in self.parameters:
            x.grad = None
        return norm


@torch.no_grad()
def copy_all(into, out_of):
    if hasattr(torch, "_foreach_copy_"):
        torch._foreach_copy_(into, out_of)
        return
    for x, y in zip(into, out_of):
        x.copy_(y)


def measure(device, s, options, recipe, loss):
    cut = peer.cut_cross_entropy(s.bias) if loss == "cut" else None
    if cut and recipe != "bf16 + master":
        raise RuntimeError("cut_cross_entropy takes parameters of the hidden states' dtype: bf16 + master alone")
    device.forget()
    torch.manual_seed(1)
    model = Decoder(s, options.chunk_rows if loss == "chunked" else 0, cut)
    share = 1 / (torch.arange(s.vocab_size) + 2.7)  # word frequencies, as in vqlm's benchmark
    if model.bias is not None:
        model.bias.data = torch.log(share / share.sum())
    master = recipe == "bf16 + master"
    model = model.to(device.torch, device.dtype if master else torch.float32)
    model.place_tables(device.torch)
    training = Training(model, 1e-3, device.cuda, master)
    compile_, compiled = peer.compiler(not options.eager)
    by_block = options.compile_blocks or cut is not None  # kernels by hand are nothing to compile a model through
    if by_block and compiled:
        for block in model.blocks:
            block.forward = compile_(block.forward)
        model.summed_nll = compile_(model.summed_nll)
    loss_of = model if by_block else compile_(model)
    text = torch.multinomial(share, s.micro_batch * s.seq_len + 1, replacement=True).to(device.torch)
    tokens, targets = (x.view(s.micro_batch, s.seq_len) for x in (text[:-1], text[1:]))
    losses = []

    def autocast():
        wanted = recipe == "autocast" and device.dtype_name == "bf16"
        return torch.autocast(device.torch.type, torch.bfloat16) if wanted else contextlib.nullcontext()

    def step():
        for _ in range(s.micro_batches):
            with autocast():
                loss = loss_of(tokens, targets)
            (loss / s.micro_batches).backward()
        losses.append(loss.detach())
        training.update()

    seconds = peer.passes(device, step, options.steps, options.warmup)
    memory = device.memory_bytes()
    tokens_per_step = s.micro_batch * s.micro_batches * s.seq_len
    typical = peer.summary(seconds)
    peak = peer.matmul_peak(device)
    return {
        "peer": "pytorch", "machine": device.description(), "dtype": device.dtype_name, "compiled": compiled,
        "compiled_by_block": compiled and by_block, "parameters": sum(x.numel() for x in model.parameters()),
        "tokens_per_step": tokens_per_step,
        "flops_per_token": model.flops_per_token(), "seconds_per_step": typical["seconds"],
        "seconds_per_step_min": typical["seconds_min"], "tokens_per_second": tokens_per_step / typical["seconds"],
        "matmul_peak_flops": peak,
        "mfu": tokens_per_step / typical["seconds"] * model.flops_per_token() / peak,
        "memory_bytes": memory, "loss_first": losses[0].item(), "loss_last": losses[-1].item(),
    }


def compare(result, ours):
    """The same work, or there is no ratio. A VQ result has another head: only the tokens of a step must agree."""
    same = ["tokens_per_step"] + (["parameters", "flops_per_token"] if ours["shape"]["head"] == "dense" else [])
    for key in same:
        if result[key] != ours[key]:
            sys.exit(f"peer: {key} is {result[key]} here and {ours[key]} in the vqlm result: not the same model")
    return {**result, "vqlm_over_peer": ours["tokens_per_second"] / result["tokens_per_second"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    peer.add_common(parser)
    for key, flag, default in zip(SIZES, ["--vocab", "--d-model", "--layers", "--heads", "--kv-heads", "--d-ff",
                                          "--seq-len", "--batch", "--micro-batches"],
                                  [16000, 512, 8, 8, 0, 0, 512, 8, 1]):
        parser.add_argument(flag, dest=key, type=int, default=default)
    parser.add_argument("--no-bias", dest="bias", action="store_false")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--recipe", action="append", choices=["bf16 + master", "autocast"], help="default: both")
    parser.add_argument("--loss", action="append", choices=["plain", "chunked", "cut"],
                        help="default: plain and chunked")
    parser.add_argument("--chunk-rows", type=int, default=2048, help="rows of a chunk of the chunked loss")
    parser.add_argument("--compile-blocks", action="store_true",
                        help="compile one block and the loss, not the whole model: minutes less for deep models")
    options = parser.parse_args()
    ours = peer.load(options.like) if options.like else None
    s = argparse.Namespace(**{key: getattr(options, key) for key in SIZES}, bias=options.bias)
    if ours:
        s = argparse.Namespace(**{key: ours["shape"][key] for key in SIZES + ["bias"]})
    s.n_kv_heads = s.n_kv_heads or s.n_heads
    s.d_ff = s.d_ff or -(-8 * s.d_model // 3 // 64) * 64
    s.rope_theta, s.norm_eps = 10000.0, 1e-5
    device = peer.Device(options.device, options.dtype)
    if not hasattr(F, "scaled_dot_product_attention"):
        peer.notice(f"PyTorch {torch.__version__} has no scaled_dot_product_attention; scores are written out")

    def variant(recipe, loss):
        result = measure(device, s, options, recipe, loss)
        return compare(result, ours) if ours else result

    done = [peer.measure_or_report(f"{recipe}, {loss}", lambda: variant(recipe, loss))
            for recipe in options.recipe or ["bf16 + master", "autocast"]
            for loss in options.loss or ["plain", "chunked"]]
    return 0 if any(done) else 1


if __name__ == "__main__":
    sys.exit(main())
