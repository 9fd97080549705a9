"""A base with stacked experts, held as parameters (expert, in, out), between two linear layers."""

import torch


class Experts(torch.nn.Module):
    """Three gated experts, whose outputs are added up."""

    def __init__(self):
        super().__init__()
        self.gate_up_proj = torch.nn.Parameter(torch.zeros(3, 8, 12))
        self.down_proj = torch.nn.Parameter(torch.zeros(3, 6, 8))

    def forward(self, x):
        gate, up = torch.matmul(x.unsqueeze(1), self.gate_up_proj).chunk(2, dim=-1)
        return torch.matmul(torch.relu(gate) * up, self.down_proj).sum(1)


class Model(torch.nn.Module):
    """Takes (batch, positions, 8), gives (batch, positions, 5)."""

    def __init__(self):
        super().__init__()
        self.before = torch.nn.Linear(8, 8)
        self.experts = Experts()
        self.after = torch.nn.Linear(8, 5)

    def forward(self, x):
        return self.after(self.experts(self.before(x)))


def build():
    """The model, with whatever weights."""
    return Model()
