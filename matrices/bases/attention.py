"""A base with `torch.nn.MultiheadAttention`, between two linear layers."""

import torch


class Model(torch.nn.Module):
    """Takes (batch, positions, 8), gives (batch, positions, 5)."""

    def __init__(self):
        super().__init__()
        self.before = torch.nn.Linear(8, 12)
        self.attention = torch.nn.MultiheadAttention(12, 3, batch_first=True)
        self.after = torch.nn.Linear(12, 5)

    def forward(self, x):
        x = self.before(x)
        x, _ = self.attention(x, x, x)
        return self.after(x)


def build():
    """The model, with whatever weights."""
    return Model()
