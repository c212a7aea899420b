"""Layers of PyTorch, same parameters and same numbers, that train faster on a CPU.

On GPUs, under a compiler and where nothing is gained they are PyTorch's own.
Axis legend: N batch of any kind, C channels, G groups, H W pixels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn import functional as F

from sri_cli.models.compiled import SUFFIXES, Kernels, kernels

aten = torch.ops.aten


def trains_on_cpu(x: Tensor) -> bool:
    """Whether an eager CPU computation of `x` [N,C,H,W] is recorded for a gradient."""
    return x.device.type == "cpu" and torch.is_grad_enabled() and not torch.compiler.is_compiling()


def pixel_rows(x: Tensor) -> Tensor:
    """[N,C,H,W] to [N,H*W,C], a view of memory that is laid out so already (channels_last)."""
    return x.permute(0, 2, 3, 1).reshape(len(x), -1, x.shape[1])


def sum_pixels(rows: Tensor) -> Tensor:
    """[N,P,C] to the sums [N,C]; as a product with ones, which is several times faster than sum."""
    ones = rows.new_ones(1, 1, rows.shape[1]).expand(len(rows), 1, -1)
    return torch.bmm(ones, rows)[:, 0]


def broadcast_sum(slots: Tensor, positions: Tensor) -> Tensor:
    """slots [N,C] plus positions [1,C,H,W] to [N,C,H,W], channels_last.

    The gradients are sums over pixels and over slots; on a CPU they are matrix products.
    """
    if trains_on_cpu(slots):
        result: Tensor = _BroadcastSum.apply(slots, positions)
        return result
    x = slots[:, :, None, None] + positions
    return x.contiguous(memory_format=torch.channels_last)


class _BroadcastSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, slots: Tensor, positions: Tensor) -> Tensor:
        ctx.types = slots.dtype, positions.dtype
        x = slots[:, :, None, None] + positions
        return x.contiguous(memory_format=torch.channels_last)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        n, c, h, w = grads[0].shape
        rows = pixel_rows(grads[0])
        by_position = sum_pixels(rows.reshape(1, n, -1)).view(1, h, w, c).permute(0, 3, 1, 2)
        return sum_pixels(rows).to(ctx.types[0]), by_position.to(ctx.types[1])


class ConvTranspose2d(nn.ConvTranspose2d):
    """nn.ConvTranspose2d; its backward pass on a CPU takes a fifth of the time.

    PyTorch spends four fifths of it on the gradient of the bias: 235 of 295 ms for 96 images of
    64 channels at 64 px in bf16 on one core, where a product with ones takes 5 ms.
    """

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        if output_size is not None or self.bias is None or not trains_on_cpu(input):
            return super().forward(input, output_size)
        x, weight, bias = input, self.weight, self.bias
        if torch.is_autocast_enabled("cpu"):
            dtype = torch.get_autocast_dtype("cpu")
            x, weight, bias = x.to(dtype), weight.to(dtype), bias.to(dtype)
        sizes = self.stride, self.padding, self.output_padding, self.groups, self.dilation
        result: Tensor = _Transposed.apply(x, weight, bias, *sizes)
        return result


class _Transposed(torch.autograd.Function):
    """F.conv_transpose2d(x, weight, bias, *sizes)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, *sizes: Any) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.sizes = sizes
        return F.conv_transpose2d(x, weight, bias, *sizes)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (grad,), (x, weight) = grads, ctx.saved_tensors
        stride, padding, output_padding, groups, dilation = ctx.sizes
        wanted = [*ctx.needs_input_grad[:2], False]
        dx, dweight, _ = aten.convolution_backward(
            grad, x, weight, None, stride, padding, dilation, True, output_padding, groups, wanted
        )
        dbias = sum_pixels(pixel_rows(grad)).sum(dim=0) if ctx.needs_input_grad[2] else None
        return dx, dweight, dbias, None, None, None, None, None


class GroupNormRelu(nn.GroupNorm):
    """nn.GroupNorm and ReLU; on a CPU in two passes over memory each way, where it is compiled.

    96 images of 64 channels at 64 px in bf16 on one server core, forward and backward: PyTorch's
    operations take 34 and 150 ms, `compiled` 15 and 27 ms; without a compiler bf16 takes 34 and
    71 ms, and float32 is left to PyTorch.
    """

    def forward(self, input: Tensor) -> Tensor:
        if (
            not isinstance(input, FakeTensor)
            and input.device.type == "cpu"
            and not torch.compiler.is_compiling()
            and input.dtype in SUFFIXES
            and self.weight.dtype == torch.float32
            and input.is_contiguous(memory_format=torch.channels_last)
        ):
            arguments = input, self.weight, self.bias, self.num_groups, self.eps
            if compiled := kernels():
                fast: Tensor = _Compiled.apply(compiled, *arguments)
                return fast
            if torch.is_grad_enabled() and input.dtype == torch.bfloat16:
                streamed: Tensor = _Streamed.apply(*arguments)
                return streamed
        return F.relu(super().forward(input), inplace=True)


class _Compiled(torch.autograd.Function):
    """kernels.cpp; channels_last."""

    @staticmethod
    def forward(
        ctx: Any,
        compiled: Kernels,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        groups: int,
        eps: float,
    ) -> Tensor:
        sizes = len(x), x.shape[2] * x.shape[3], x.shape[1], groups
        mean, rstd = x.new_empty(2, len(x), groups, dtype=torch.float32)
        y = torch.empty_like(x)
        compiled.call("forward", x, *sizes, eps, x, weight, bias, mean, rstd, y)
        ctx.save_for_backward(x, y, weight, mean, rstd)
        ctx.compiled, ctx.sizes = compiled, sizes
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, y, weight, mean, rstd = ctx.saved_tensors
        grad = grads[0].contiguous(memory_format=torch.channels_last)
        dx = torch.empty_like(x)
        shares = x.new_empty(2, *x.shape[:2], dtype=torch.float32)  # of each image
        arguments = grad, x, y, weight, mean, rstd, dx, *shares
        ctx.compiled.call("backward", x, *ctx.sizes, *arguments)
        dweight, dbias = shares.sum(dim=1)
        return None, dx, dweight, dbias, None, None


class _Streamed(torch.autograd.Function):
    """PyTorch's forward pass, and a backward pass of matrix products; bf16, channels_last."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float
    ) -> Tensor:
        n, c, h, w = x.shape
        y, mean, rstd = torch.native_group_norm(x, weight, bias, n, c, h * w, groups, eps)
        y.relu_()
        ctx.save_for_backward(x, y, weight, mean, rstd)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, y, weight, mean, rstd = ctx.saved_tensors
        (n, c, h, w), groups = x.shape, mean.shape[1]
        grad = grads[0].contiguous(memory_format=torch.channels_last)
        grad, rows = pixel_rows(aten.threshold_backward(grad, y, 0)), pixel_rows(x)
        mean, rstd = (t.float().repeat_interleave(c // groups, dim=1) for t in (mean, rstd))
        # Matrix products sum in float32; sum(dtype=float32) would first write a float32 copy.
        total = sum_pixels(grad).float()  # [N,C]
        along = torch.bmm(grad.transpose(1, 2), rows).diagonal(dim1=1, dim2=2).float()
        whitened = (along - total * mean) * rstd

        def over_group(value: Tensor) -> Tensor:
            grouped = value.unflatten(1, (groups, -1)).mean(dim=2) / (h * w)
            return grouped.repeat_interleave(c // groups, dim=1)

        slope = -over_group(whitened * weight) * rstd.square()
        offset = -over_group(total * weight) * rstd - slope * mean
        scale, slope, offset = (t[:, None].to(x.dtype) for t in (rstd * weight, slope, offset))
        dx = torch.addcmul(offset, grad, scale)
        dx = torch.addcmul(dx, rows, slope, out=grad)
        dx = dx.reshape(n, h, w, c).permute(0, 3, 1, 2)
        return dx, whitened.sum(dim=0), total.sum(dim=0), None, None
