"""Layers of PyTorch, same parameters and same numbers, that train faster on a CPU.

On GPUs, under a compiler and where nothing is gained they are PyTorch's own.
Axis legend: N batch of any kind, C channels, G groups, H W pixels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from sri_cli.models.compiled import SUFFIXES, call, kernels

aten = torch.ops.aten
LANES, TILE, HEAD_OUTPUTS = 16, 64, 4  # of kernels.cpp


def trains_on_cpu(x: Tensor) -> bool:
    """Whether an eager CPU computation of `x` [N,C,H,W] is recorded for a gradient."""
    return x.device.type == "cpu" and torch.is_grad_enabled() and not torch.compiler.is_compiling()


def takes_kernels(x: Tensor) -> bool:
    """Whether `kernels.cpp` is compiled and can compute with x [N,C,H,W]."""
    return (
        not isinstance(x, FakeTensor)
        and x.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and x.dtype in SUFFIXES
        and x.is_contiguous(memory_format=torch.channels_last)
        and kernels() is not None
    )


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
        return _BroadcastSum.apply(slots, positions)
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
        return _Transposed.apply(x, weight, bias, *sizes)


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
        arguments = input, self.weight, self.bias, self.num_groups, self.eps
        channels_last = input.is_contiguous(memory_format=torch.channels_last)
        if self.weight.dtype == torch.float32 and channels_last:
            if takes_kernels(input):
                return _Compiled.apply(*arguments)
            if trains_on_cpu(input) and input.dtype == torch.bfloat16:
                return _Streamed.apply(*arguments)
        return F.relu(super().forward(input), inplace=True)


class _Compiled(torch.autograd.Function):
    """GroupNorm and ReLU; channels_last."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float
    ) -> Tensor:
        sizes = len(x), x.shape[2] * x.shape[3], x.shape[1], groups
        mean, rstd = x.new_empty(2, len(x), groups, dtype=torch.float32)
        y = torch.empty_like(x)
        call("norm_forward", x, *sizes, eps, x, weight, bias, mean, rstd, y)
        ctx.save_for_backward(x, weight, bias, mean, rstd)
        ctx.sizes = sizes
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, *parameters = ctx.saved_tensors
        grad = grads[0].contiguous(memory_format=torch.channels_last)
        dx = torch.empty_like(x)
        shares = x.new_empty(2, *x.shape[:2], dtype=torch.float32)  # of each image
        call("norm_backward", x, *ctx.sizes, grad, x, *parameters, dx, *shares)
        dweight, dbias = shares.sum(dim=1)
        return dx, dweight, dbias, None, None


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


def norm_head(x: Tensor, norm: GroupNormRelu, head: nn.Conv2d) -> Tensor:
    """head(norm(x)) of x [N,C,H,W] for a 1x1 convolution, [N,4,H,W].

    In float32 whatever the precision of x where it is compiled, and without a trip to memory for
    what lies between.
    """
    if (
        takes_kernels(x)
        and x.shape[1] % LANES == 0
        and head.out_channels == HEAD_OUTPUTS
        and norm.weight.dtype == torch.float32
    ):
        parameters = norm.weight, norm.bias, head.weight, head.bias
        return _NormHead.apply(x, *parameters, norm.num_groups, norm.eps)
    return head(norm(x))


class _NormHead(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        head: Tensor,
        head_bias: Tensor,
        groups: int,
        eps: float,
    ) -> Tensor:
        (n, c, h, w), outputs = x.shape, len(head)
        sizes = n, h * w, c, groups
        mean, rstd = x.new_empty(2, n, groups, dtype=torch.float32)
        planes = x.new_empty(n, outputs, h, w, dtype=torch.float32)
        parameters = weight, bias, head.contiguous()  # [4,C,1,1] in either format
        call("head_forward", x, *sizes, eps, x, *parameters, head_bias, mean, rstd, planes)
        ctx.save_for_backward(x, *parameters, mean, rstd)
        ctx.sizes = sizes
        return planes

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, *parameters = ctx.saved_tensors
        grad, head = grads[0].contiguous(), parameters[2]
        dx = torch.empty_like(x)
        shares = x.new_empty(2, *x.shape[:2], dtype=torch.float32)  # of each image
        of_head = x.new_empty(len(x), *head.shape, dtype=torch.float32)
        outputs = dx, *shares, of_head
        call("head_backward", x, *ctx.sizes, grad, x, *parameters, *outputs)
        dweight, dbias = shares.sum(dim=1)
        dhead, dhead_bias = of_head.sum(dim=0), grad.sum(dim=(0, 2, 3))
        return dx, dweight, dbias, dhead, dhead_bias, None, None


def broadcast_elu(slots: Tensor, positions: Tensor) -> Tensor:
    """ELU of slots [N,C] plus positions [1,C,H,W], [N,C,H,W] channels_last.

    Where it is compiled, the backward pass reads two images and writes sums alone.
    """
    rows = positions.contiguous(memory_format=torch.channels_last)
    if takes_kernels(rows) and slots.dtype == rows.dtype and slots.shape[1] % LANES == 0:
        return _BroadcastElu.apply(slots.contiguous(), rows)
    return F.elu(broadcast_sum(slots, positions), inplace=True)


class _BroadcastElu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, slots: Tensor, positions: Tensor) -> Tensor:
        _, c, h, w = positions.shape
        y = slots.new_empty(len(slots), h, w, c).permute(0, 3, 1, 2)
        call("broadcast_forward", y, len(slots), h * w, c, slots, positions, y)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (y,) = ctx.saved_tensors
        n, c, h, w = y.shape
        grad = grads[0].contiguous(memory_format=torch.channels_last)
        of_tiles = y.new_empty(-(-h * w // TILE), n, c, dtype=torch.float32)
        by_position = y.new_empty(1, h, w, c, dtype=torch.float32)
        sizes = n, h * w, c
        call("broadcast_backward", y, *sizes, grad, y, of_tiles, by_position)
        return of_tiles.sum(dim=0).to(y.dtype), by_position.permute(0, 3, 1, 2).to(y.dtype)


class Elu(nn.Module):
    """nn.ELU for [N,C,H,W] that may overwrite its input.

    72 images of 64 channels at 70 px in bf16 on one server core, forward and backward: PyTorch
    takes 34 and 64 ms, this 20 and 24 ms.
    """

    def forward(self, input: Tensor) -> Tensor:
        if takes_kernels(input):
            return _Elu.apply(input)
        return F.elu(input, inplace=True)


class _Elu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        # Not in place: in bf16 that is half as fast, from memory.
        y = torch.empty_like(x)
        call("elu_forward", x, x.numel(), x, y)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (y,) = ctx.saved_tensors
        grad = grads[0].contiguous(memory_format=torch.channels_last)
        dx = torch.empty_like(y)
        call("elu_backward", y, y.numel(), grad, y, dx)
        return dx


def gated_batch_norms(x: Tensor, norms: tuple[nn.BatchNorm2d, nn.BatchNorm2d]) -> Tensor | None:
    """h * sigmoid(g) of [h ; g] = x [N,2C,H,W], each half after its norm.

    None where the compiled kernels cannot do that. 144 images of 2 x 32 channels at 64 px in bf16
    on one server core, forward and backward: PyTorch's operations take 86 and 87 ms, these 38 and
    44 ms.
    """
    training = norms[0].training
    if (
        not takes_kernels(x)
        or (torch.is_grad_enabled() and not training)
        or norms[0].weight.dtype != torch.float32
    ):
        return None
    weight, bias = (torch.cat([getattr(n, name) for n in norms]) for name in ("weight", "bias"))
    if training:
        gated, mean, variance = _Gated.apply(x, weight, bias, norms[0].eps)
        number = x.numel() / x.shape[1]
        averages = mean.chunk(2), (variance * (number / (number - 1))).chunk(2)
        for norm, *values in zip(norms, *averages, strict=True):
            update_average(norm, *values)
        return gated
    mean, variance = (
        torch.cat([getattr(n, f"running_{m}") for n in norms]) for m in ("mean", "var")
    )
    scale = (variance + norms[0].eps).rsqrt() * weight
    return _gate(x, scale, bias - mean * scale)


@torch.no_grad()
def update_average(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor) -> None:
    """Move the running statistics of a norm towards those of a batch, as nn.BatchNorm2d does."""
    assert norm.running_mean is not None and norm.running_var is not None
    assert norm.num_batches_tracked is not None and norm.momentum is not None
    norm.num_batches_tracked.add_(1)
    norm.running_mean.lerp_(mean, norm.momentum)
    norm.running_var.lerp_(variance, norm.momentum)


def _gate(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    n, c, h, w = x.shape
    y = x.new_empty(n, h, w, c // 2).permute(0, 3, 1, 2)
    call("gate_forward", x, n * h * w, c // 2, x, scale, shift, y)
    return y


class _Gated(torch.autograd.Function):
    """The gated halves, and mean and variance of x [2C] each."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        n, c, h, w = x.shape
        # Sums of x - pivot: the mean of squares minus the squared mean would lose digits.
        pivot = x[0, :, 0, 0].float()
        sums = x.new_empty(2, n, c, dtype=torch.float32)
        call("gate_statistics", x, n, h * w, c, x, pivot, *sums)
        first, second = sums.double().sum(dim=1) / (n * h * w)
        mean, variance = (pivot + first).float(), (second - first.square()).clamp_(min=0).float()
        rstd = (variance + eps).rsqrt()
        scale = rstd * weight
        shift = bias - mean * scale
        ctx.save_for_backward(x, scale, shift, mean, rstd)
        ctx.mark_non_differentiable(mean, variance)
        return _gate(x, scale, shift), mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, scale, shift, mean, rstd = ctx.saved_tensors
        n, c, h, w = x.shape
        grad = grads[0].contiguous(memory_format=torch.channels_last)
        sums = x.new_empty(2, n, c, dtype=torch.float32)
        inputs = grad, x, scale, shift
        call("gate_sums", x, n, h * w, c // 2, *inputs, mean, *sums)
        total, along = sums.sum(dim=1)
        dweight = along * rstd
        slope = -scale * rstd * dweight / (n * h * w)
        offset = -scale * total / (n * h * w) - slope * mean
        dx = torch.empty_like(x)
        call("gate_backward", x, n * h * w, c // 2, *inputs, slope, offset, dx)
        return dx, dweight, total, None
