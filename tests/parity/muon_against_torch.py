#!/usr/bin/env python3
"""How far docs/optimizers.md's formulas in double precision and torch.optim.Muon, which iterates in bf16, come apart.

    pip install 'torch>=2.9' && tests/parity/muon_against_torch.py

By hand, not in CI: Debian 12's PyTorch has no Muon. tests/train/muon_test.cpp compares the program's iteration with the same
formulas in double."""

import torch

RATE, DECAY, MOMENTUM, STEPS = 0.02, 0.1, 0.95, 10
A, B, C = 3.4445, -4.7750, 2.0315


def update(weight, gradient, momentum):
    """One step of docs/optimizers.md, in place."""
    momentum.mul_(MOMENTUM).add_(gradient, alpha=1 - MOMENTUM)
    x = (1 - MOMENTUM) * gradient + MOMENTUM * momentum
    x = x / x.norm()
    for _ in range(5):
        gram = x @ x.T
        x = A * x + (B * gram + C * gram @ gram) @ x
    weight.mul_(1 - RATE * DECAY).add_(x, alpha=-RATE * 0.2 * max(weight.shape) ** 0.5)


def main():
    torch.manual_seed(0)
    for shape in ((64, 64), (48, 128), (128, 48)):
        weight = torch.randn(shape, dtype=torch.float64) * 0.02
        momentum = torch.zeros_like(weight)
        theirs = torch.nn.Parameter(weight.float())
        optimizer = torch.optim.Muon([theirs], lr=RATE, weight_decay=DECAY, momentum=MOMENTUM, nesterov=True,
                                     adjust_lr_fn="match_rms_adamw")
        for _ in range(STEPS):
            gradient = torch.randn(shape, dtype=torch.float64)
            before = theirs.detach().clone()
            theirs.grad = gradient.float()
            optimizer.step()
            update(weight, gradient, momentum)
        step = (theirs.detach() - before).norm()
        apart = ((theirs.detach().double() - weight).norm() / step).item()
        print(f"PyTorch {torch.__version__}, {shape}: {100 * apart:.1f} % of a step apart after {STEPS} steps")


if __name__ == "__main__":
    main()
