# mypy: ignore-errors
"""The configuration of a model that Transformers does not have."""

from transformers import PretrainedConfig


class TinyConfig(PretrainedConfig):
    """A few layers."""

    model_type = "tinyown"

    def __init__(self, vocab_size=400, hidden_size=32, num_hidden_layers=4, **more):
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        super().__init__(**more)
