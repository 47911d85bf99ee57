"""A quantizer written from the contract alone: codes -1 and 1 times the mean magnitude of a group."""

import torch

from edgerazor import QuantizedTensor
from edgerazor.errors import PlanError


class Binary:
    rows_independent = True

    def __init__(self, params):
        self.params = params

    def check_shape(self, shape):
        if self.params.group_size and shape[-1] % self.params.group_size:
            raise PlanError(f"{shape[-1]} columns are not a multiple of group_size {self.params.group_size}")

    def widths(self, shape):
        return {1: torch.Size(shape).numel()}

    def quantize(self, x):
        columns = x.shape[-1]
        group_size = self.params.group_size or columns
        groups = x.detach().float().reshape(*x.shape[:-1], columns // group_size, group_size)
        scale = (groups.abs().mean(dim=-1) * self.params.shrink).half()
        codes = torch.where(groups < 0, -1, 1).to(torch.int8).reshape(x.shape)
        rows = x.shape[:-1].numel()
        return QuantizedTensor(codes, scale, torch.ones(rows, dtype=torch.int8), group_size)

    def fake_quantize(self, x):
        quantized = self.quantize(x).dequantize(x.dtype)
        return quantized + (x - x.detach())
