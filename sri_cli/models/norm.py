"""Norms: a GroupNorm with a fast backward pass, a BatchNorm whose statistics span processes.

PyTorch's own GroupNorm is slow in bf16 on the CPU, its SyncBatchNorm works on GPUs alone.
Axis legend: N batch, G groups, C channels, H W pixels. On 2 server cores the native backward of a
[128,32,32,32] channels_last tensor takes 12 ms, this one 4 ms: a few passes over memory. In
float32 the native one is the faster.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


class GroupNorm(nn.GroupNorm):
    """nn.GroupNorm, same parameters and same numbers."""

    def forward(self, input: Tensor) -> Tensor:
        streaming = (
            input.device.type == "cpu"
            and input.dtype == torch.bfloat16
            and not torch.compiler.is_compiling()
            and torch.is_grad_enabled()
            and input.is_contiguous(memory_format=torch.channels_last)
        )
        if not streaming:
            return super().forward(input)
        return _ChannelsLast.apply(input, self.weight, self.bias, self.num_groups, self.eps)


class _ChannelsLast(torch.autograd.Function):
    """Native forward, streaming backward."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float
    ) -> Tensor:
        n, c, h, w = x.shape
        y, mean, rstd = torch.native_group_norm(x, weight, bias, n, c, h * w, groups, eps)
        ctx.save_for_backward(x, weight, mean, rstd)
        ctx.groups = groups
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, weight, mean, rstd = ctx.saved_tensors
        n, c, h, w = x.shape
        grad = grads[0].contiguous(memory_format=torch.channels_last)
        # [N,HW,C]: a view of memory that is laid out so already.
        grad, x = (t.permute(0, 2, 3, 1).reshape(n, h * w, c) for t in (grad, x))
        mean, rstd = (t.float().repeat_interleave(c // ctx.groups, dim=1) for t in (mean, rstd))
        total = grad.sum(dim=1, dtype=torch.float32)  # [N,C]
        along = (grad * x).sum(dim=1, dtype=torch.float32)
        whitened = (along - total * mean) * rstd

        def over_group(value: Tensor) -> Tensor:
            grouped = value.unflatten(1, (ctx.groups, -1)).mean(dim=2) / (h * w)
            return grouped.repeat_interleave(c // ctx.groups, dim=1)

        slope = -over_group(whitened * weight) * rstd.square()
        offset = -over_group(total * weight) * rstd - slope * mean
        scale, slope, offset = (t[:, None].to(x.dtype) for t in (rstd * weight, slope, offset))
        dx = torch.addcmul(offset, grad, scale).addcmul_(x, slope)
        dx = dx.reshape(n, h, w, c).permute(0, 3, 1, 2)
        return dx, whitened.sum(dim=0), total.sum(dim=0), None, None


class BatchNorm2d(nn.BatchNorm2d):
    """nn.BatchNorm2d, same parameters, buffers and numbers.

    While `spread` is set, training takes the statistics over the batches of all processes, which
    must all call it. Their batches may differ in size.
    """

    spread = False

    def forward(self, input: Tensor) -> Tensor:
        if not (self.spread and self.training):
            return super().forward(input)
        with torch.autocast(input.device.type, enabled=False):
            return self._over_all(input.float()).to(input.dtype)

    def _over_all(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        number = _sum(torch.full((), float(n * h * w), device=x.device))
        mean = _sum(x.sum(dim=(0, 2, 3))) / number
        centred = x - mean[:, None, None]
        # In two passes: the mean of squares minus the squared mean loses digits.
        variance = _sum(centred.square().sum(dim=(0, 2, 3))) / number
        self._remember(mean.detach(), variance.detach() * number / (number - 1))
        scale = (variance + self.eps).rsqrt() * self.weight
        return torch.addcmul(self.bias[:, None, None], centred, scale[:, None, None])

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None and self.momentum is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)


class _SumOverRanks(torch.autograd.Function):
    """A sum over processes; the gradient of the sum of their losses sums back the same way."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        total = grads[0].clone()
        dist.all_reduce(total)
        return total


def _sum(x: Tensor) -> Tensor:
    total: Tensor = _SumOverRanks.apply(x)
    return total
