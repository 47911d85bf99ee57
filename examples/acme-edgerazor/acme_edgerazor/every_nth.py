"""Evenly spaced layers."""

import torch

from edgerazor import LayerSelector


class EveryNth(LayerSelector):
    """Equal weights on the layers L, L-n, L-2n and so on, the embedding output left out."""

    def weights(self, hidden_states, mask):
        """float32 `[L+1]`, on the device of the mask."""
        layers = len(hidden_states) - 1
        chosen = torch.zeros(layers + 1)
        chosen[range(layers, 0, -self.params.n)] = 1.0
        return (chosen / chosen.sum()).to(mask.device)
