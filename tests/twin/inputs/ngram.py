"""Tables at the input (docs/inputs.md): x_t = E[id_t] + sum over tables i of B_i[row_i(the last n_i ids)]. Where fewer than n_i are
there, a table adds nothing. `--input ngram:order=2,rows=8192` adds a table behind those of the configuration."""

import torch

import parts

ODD = 0x9E3779B97F4A7C15 - (1 << 64)  # as a signed number


def table_rows(ids, number, order, rows):
    """ids (B, T) -> (B, T): rows of table `number`, -1 where there is none."""
    key = torch.full_like(ids, number + 1)
    for back in range(order - 1, -1, -1):
        before = torch.zeros_like(ids)
        before[:, back:] = ids[:, : ids.shape[1] - back]
        key = (key ^ before) * ODD  # wraps
        key = key ^ ((key >> 32) & 0xFFFFFFFF)
    row = ((key >> 33) & 0x7FFFFFFF) % rows
    row[:, : order - 1] = -1
    return row


class Input(parts.Input):
    def __init__(self, *context, rows=8192, order=2, number=0, stddev=0.02, role="input_tables"):
        super().__init__(*context)
        self.rows, self.order, self.number, self.stddev, self.role = rows, order, number, stddev, role
        self.name = f"model.ngram_tables.{number}.weight"

    def parameters(self):
        return [parts.Parameter(self.name, (self.rows, self.c.d_model), self.role, self.stddev)]

    def apply(self, x, ids, w):
        rows = table_rows(ids, self.number, self.order, self.rows)
        return x + w[self.name][rows.clamp(min=0)] * (rows >= 0).unsqueeze(-1)
