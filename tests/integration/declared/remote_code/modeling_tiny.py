# mypy: ignore-errors
"""A model that Transformers does not have."""

import torch
from transformers import PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from .configuration_tiny import TinyConfig


class TinyLayer(torch.nn.Module):
    """A feed-forward layer."""

    def __init__(self, width):
        super().__init__()
        self.up_proj = torch.nn.Linear(width, 2 * width)
        self.down_proj = torch.nn.Linear(2 * width, width)

    def forward(self, x):
        return x + self.down_proj(torch.tanh(self.up_proj(x)))


class TinyForCausalLM(PreTrainedModel):
    """Embedding, layers and head."""

    config_class = TinyConfig

    def __init__(self, config):
        super().__init__(config)
        self.embed_tokens = torch.nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = torch.nn.ModuleList([TinyLayer(config.hidden_size) for _ in range(config.num_hidden_layers)])
        self.lm_head = torch.nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def _init_weights(self, module):
        pass

    def get_input_embeddings(self):
        return self.embed_tokens

    def prepare_inputs_for_generation(self, input_ids, **_):
        return {"input_ids": input_ids}

    def forward(self, input_ids=None, **_):
        x = self.embed_tokens(input_ids)
        for layer in self.layers:
            x = layer(x)
        return CausalLMOutput(logits=self.lm_head(x))
