"""How much of the loss's gradient by the logits a head passes on to h (arXiv 2603.10145).

For a token with target y let z(h) be the logits and g = dL/dz = p - [y], V numbers. h receives J^T g, J = dz/dh (V, d), so that
only g's part in the span of J's columns counts. Reported is the root of sum |Q Q^T g|^2 / sum |g|^2 over tokens, Q an orthonormal
basis of that span. z is log p: what softmax ignores, a constant for all tokens, is left out of J, and g sums to zero anyway. For a
dense head J is W less its column means; for other heads J differs from token to token."""

import torch


class Probe:
    def __init__(self, twin, rows=32):
        self.twin, self.rows = twin, rows

    def measure(self):
        settings, twin = self.twin.settings, self.twin
        ids, targets = map(torch.from_numpy, twin.train.training_batch(settings["train.steps"], settings["train.micro_batch"],
                                                                       settings["data.seq_len"], settings["train.seed"]))
        with torch.no_grad():
            h = twin.hidden(ids)
        chosen = torch.linspace(0, len(h) - 1, self.rows).long()
        passed = [shares(twin.head, h[n], int(targets.reshape(-1)[n]), twin.w) for n in chosen]
        inside, whole = torch.tensor(passed, dtype=torch.float64).sum(0)
        return {"gradient_share": float((inside / whole).sqrt()), "gradient_share_rows": self.rows}


def shares(head, h, target, w):
    """(|Q Q^T g|^2, |g|^2) of one token."""
    fixed = {name: x.detach().double() for name, x in w.items()}
    of_h = lambda x: head.log_probs(x[None], fixed)[0]
    h = h.double()
    columns = torch.stack([torch.autograd.functional.jvp(of_h, h, e)[1] for e in torch.eye(len(h), dtype=h.dtype)], 1)  # (V, d)
    q = basis(columns - columns.mean(0))
    g = of_h(h).exp()
    g[target] -= 1
    return float((q.T @ g).square().sum()), float(g.square().sum())


def basis(columns):
    """An orthonormal basis of the columns' span; what rounding leaves of columns that depend on others is no direction."""
    u, s, _ = torch.linalg.svd(columns, full_matrices=False)
    return u[:, s > s[0] * 1e-9]
