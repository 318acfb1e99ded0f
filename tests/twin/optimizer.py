"""vqlm's AdamW and schedule: train/engine/optimizer.cpp, core/ops/adamw.h, train/config/schedule.cpp."""

import math

import numpy as np
import torch


def learning_rate(settings, step):
    """Of step 1, 2, ...; float32 as vqlm's."""
    lr, steps, warmup = single(settings["optim.lr"]), settings["train.steps"], settings["optim.warmup_steps"]
    last, kind = lr * single(settings["optim.min_lr_ratio"]), settings["optim.schedule"]
    if step <= warmup:
        return single(lr * step / warmup)
    progress = lambda begin: 0.0 if steps <= begin else min(max((step - begin) / (steps - begin), 0.0), 1.0)
    if kind == "constant":
        return lr
    if kind == "cosine":
        return single(last + (lr - last) * 0.5 * (1 + math.cos(math.pi * progress(warmup))))
    decay = math.floor(single(settings["optim.decay_fraction"]) * steps + 0.5)
    return single(lr + (last - lr) * progress(steps - decay))


def single(x):
    return float(np.float32(x))


class AdamW:
    """Decay is decoupled, of matrices alone; the rate and decay follow the role; clipped by the norm of all gradients. Tables at the
    input may change in the rows that have a gradient alone (docs/inputs.md)."""

    def __init__(self, settings, parameters, w):
        self.settings, self.w = settings, w
        self.numbers = {p.name: (single(settings[f"optim.{p.role}_lr_ratio"]), single(settings[f"optim.{p.role}_decay_ratio"]) if p.decays else 0.0)
                        for p in parameters}
        by_rows = settings.get("optim.input_tables_update", "dense") == "rows"
        self.by_rows = {p.name for p in parameters if by_rows and p.role == "input_tables"}
        self.m = {name: torch.zeros_like(x) for name, x in w.items()}
        self.v = {name: torch.zeros_like(x) for name, x in w.items()}

    @torch.no_grad()
    def step(self, step):
        """Returns the gradient's norm before clipping; an infinite or undefined one skips the update."""
        settings = self.settings
        norm = math.sqrt(sum(float((x.grad.double() ** 2).sum()) for x in self.w.values() if x.grad is not None))
        if not math.isfinite(norm):
            return norm
        clip, lr = single(settings["train.grad_clip"]), learning_rate(settings, step)
        scale = single(clip / norm) if 0 < clip < norm else 1.0
        beta1, beta2, eps = (single(settings[f"optim.{key}"]) for key in ("beta1", "beta2", "eps"))
        root_scale = 1 / math.sqrt(1 - beta2**step)
        for name, x in self.w.items():
            g = torch.zeros_like(x) if x.grad is None else x.grad * scale
            rate, decay = self.numbers[name]
            rate *= lr
            touched = (g != 0).any(1, keepdim=True) if name in self.by_rows else True
            m = self.m[name] * beta1 + g * (1 - beta1)
            v = self.v[name] * beta2 + g * g * (1 - beta2)
            update = m / v.sqrt().mul_(root_scale).add_(eps)
            updated = x * (1 - rate * decay * single(settings["optim.weight_decay"])) - update * (rate / (1 - beta1**step))
            for kept, new in ((self.m[name], m), (self.v[name], v), (x, updated)):
                kept.copy_(new if touched is True else torch.where(touched, new, kept))
        return norm
