"""GENESIS, first stage: one latent per slot, and the attention masks that the latents decode to.

Axis legend: B batch, K slots, D mask latent size, F = 256 features, H W pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sri_cli.models.decoders import in_parts
from sri_cli.models.distributions import Gaussian, shifted_softplus
from sri_cli.models.layers import Lstm, full_precision
from sri_cli.models.norm import BatchNorm2d

FEATURES = 256
ENCODER_CHANNELS = (32, 32, 64, 64, 64)
DECODER_CHANNELS = (64, 32, 32, 32, 32)  # after the 64 that a latent is first spread to
SPREAD_CHANNELS = 64
HIDDEN_PER_LATENT_SIZE = 2

# Strides of the encoder; the decoder undoes them from the last to the first.
STRIDES = {
    32: (1, 2, 1, 2, 1),
    64: (1, 2, 1, 2, 1),
    96: (1, 2, 1, 2, 1),
    128: (2, 2, 2, 1, 1),
}


class Transposed5(nn.ConvTranspose2d):
    """A transposed 5x5 convolution that multiplies the side by its stride.

    At stride 1 it is an ordinary convolution with the kernel turned round: same parameters, same
    numbers, and a bf16 backward pass on the CPU in half the time.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__(inputs, outputs, 5, stride, padding=2, output_padding=stride - 1)

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        if self.stride != (1, 1):
            return super().forward(input, output_size)
        weight = self.weight.flip(2, 3).transpose(0, 1)
        weight = weight.contiguous(memory_format=torch.channels_last)
        return F.conv2d(input, weight, self.bias, padding=2)


class Gated(nn.Module):
    """A convolution to twice the channels [h ; g], each half normed on its own: h * sigmoid(g)."""

    def __init__(self, conv: nn.Conv2d | nn.ConvTranspose2d, norm: bool = True) -> None:
        super().__init__()
        channels = conv.out_channels // 2
        self.conv = conv
        self.h_norm = BatchNorm2d(channels) if norm else nn.Identity()
        self.g_norm = BatchNorm2d(channels) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        halves = self.conv(x).chunk(2, dim=1)
        # Halves of the channels lie scattered, and there the CPU's BatchNorm is 6 times slower.
        h, g = (half.contiguous(memory_format=torch.channels_last) for half in halves)
        return self.h_norm(h) * self.g_norm(g).sigmoid()


def gated_encoder(image_size: int) -> nn.Sequential:
    """Images [B,3,H,W] to features [B,F,1,1]."""
    strides = STRIDES[image_size]
    channels = (3, *ENCODER_CHANNELS)
    layers = [
        Gated(nn.Conv2d(channels[i], 2 * channels[i + 1], 5, stride=strides[i], padding=2))
        for i in range(len(strides))
    ]
    whole = nn.Conv2d(channels[-1], 2 * FEATURES, remaining_size(image_size))
    return nn.Sequential(*layers, Gated(whole, norm=False))


def gated_decoder(image_size: int, latent_size: int) -> nn.Sequential:
    """Latents [N,D,1,1] to [N,32,H,W]."""
    strides = STRIDES[image_size][::-1]
    channels = (SPREAD_CHANNELS, *DECODER_CHANNELS)
    whole = nn.ConvTranspose2d(latent_size, 2 * SPREAD_CHANNELS, remaining_size(image_size))
    layers = [
        Gated(Transposed5(channels[i], 2 * channels[i + 1], strides[i]))
        for i in range(len(strides))
    ]
    return nn.Sequential(Gated(whole, norm=False), *layers)


def remaining_size(image_size: int) -> int:
    """What the strides leave of a side: 8 of 32, 16 of 64, 24 of 96, 16 of 128."""
    for stride in STRIDES[image_size]:
        image_size //= stride
    return image_size


def stick_breaking(logits: Tensor) -> Tensor:
    """Mask logits [B,K,...] to log-masks that sum to 1 over K.

    Each slot takes sigmoid(logit) of the scope that the slots before it left, and the last one
    all that remains: its logits go unused.
    """
    taken, left = F.logsigmoid(logits[:, :-1]), F.logsigmoid(-logits[:, :-1])
    nothing = torch.zeros_like(logits[:, :1])
    log_scope = torch.cat([nothing, left.cumsum(dim=1)], dim=1)
    return log_scope + torch.cat([taken, nothing], dim=1)


class MaskAttention(nn.Module):
    """q(mask latents | image), autoregressive, and the latents' masks."""

    def __init__(self, image_size: int, latent_size: int) -> None:
        """Raises ValueError for an `image_size` that the convolutions are not made for."""
        super().__init__()
        if image_size not in STRIDES:
            raise ValueError(f"no GENESIS for images of {image_size} pixels: use 32, 64, 96 or 128")
        self.encoder = gated_encoder(image_size)
        self.mean = nn.Linear(FEATURES, latent_size)
        self.spread = nn.Linear(FEATURES, latent_size)
        hidden = HIDDEN_PER_LATENT_SIZE * latent_size
        self.lstm = Lstm(FEATURES + latent_size, hidden)
        self.linear = nn.Linear(hidden, 2 * latent_size)
        self.decoder = gated_decoder(image_size, latent_size)
        self.logits = nn.Conv2d(DECODER_CHANNELS[-1], 1, 1)

    def infer(self, images: Tensor, noise: Tensor) -> tuple[Gaussian, Tensor]:
        """images [B,3,H,W], noise [B,K,D] to q(z_k | z_<k, image) and its samples z, [B,K,D].

        The image is read once; every later latent sees its features and the latents before.
        """
        features = self.encoder(images.contiguous(memory_format=torch.channels_last)).flatten(1)
        features = features.float()
        with full_precision(features):
            first = Gaussian(self.mean(features), shifted_softplus(self.spread(features)))
            posteriors, draws = [first], [first.sample(noise[:, 0])]
            state = self.lstm.start(len(features), features)
            for step_noise in noise[:, 1:].unbind(dim=1):
                state = self.lstm.step(torch.cat([features, draws[-1]], dim=1), state)
                mean, u = self.linear(state[0]).chunk(2, dim=1)
                posteriors.append(Gaussian(mean, shifted_softplus(u)))
                draws.append(posteriors[-1].sample(step_noise))
            mean = torch.stack([posterior.mean for posterior in posteriors], dim=1)
            std = torch.stack([posterior.std for posterior in posteriors], dim=1)
            return Gaussian(mean, std), torch.stack(draws, dim=1)

    def log_masks(self, latents: Tensor) -> Tensor:
        """Latents [B,K,D] to log-masks [B,K,1,H,W], for any K.

        All K latents are one batch, that of the last slot too: batch statistics run over them all.
        """
        flat = latents.flatten(0, 1)
        logits = self._logits(flat) if self.training else in_parts(self._logits, flat)
        return stick_breaking(logits.unflatten(0, latents.shape[:2]))

    def _logits(self, latents: Tensor) -> Tensor:
        """[N,D] -> [N,1,H,W] in float32."""
        grown = latents[..., None, None].contiguous(memory_format=torch.channels_last)
        return self.logits(self.decoder(grown)).float()
