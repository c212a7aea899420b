"""GENESIS, second stage: what an image shows inside each attention mask.

Axis legend: B batch, K slots, N = B*K, C component latent size, c channels, H W pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sri_cli.models.decoders import in_parts
from sri_cli.models.distributions import Gaussian, shifted_softplus
from sri_cli.models.layers import coordinate_grid, full_precision

HALVINGS = 4
MLP_WIDTH = 256
MLP_LAYERS = 4  # that end the encoder, after its convolutions
DECODER_LAYERS = 4  # valid 3x3 convolutions, each of which eats a pixel at every border


class BroadcastConvolutions(nn.Module):
    """Component latents [N,C] to colours [N,3,H,W] in [0,1], in float32.

    The latent is laid on a grid of H+8 with its coordinates, [z ; row ; column], and convolved
    without padding. The first convolution sees the same latent at every pixel and the same grid in
    every image, so it is applied to each once and the two are added.
    """

    grid: Tensor

    def __init__(self, image_size: int, latent_size: int, channels: int) -> None:
        super().__init__()
        self.latent_size = latent_size
        layers: list[nn.Module] = []
        for inputs in (latent_size + 2, *(channels for _ in range(DECODER_LAYERS - 1))):
            layers += [nn.Conv2d(inputs, channels, 3), nn.ELU()]
        self.layers = nn.Sequential(*layers, nn.Conv2d(channels, 3, 1))
        side = image_size + 2 * DECODER_LAYERS
        self.register_buffer("grid", coordinate_grid(side), persistent=False)

    def forward(self, latents: Tensor) -> Tensor:
        weight, bias = self.layers[0].parameters()
        everywhere = F.linear(latents, weight[:, : self.latent_size].sum(dim=(2, 3)), bias)
        places = F.conv2d(self.grid[None], weight[:, self.latent_size :])
        x = everywhere[..., None, None] + places
        x = x.contiguous(memory_format=torch.channels_last)
        return self.layers[1:](x).float().sigmoid()


def component_encoder(image_size: int, latent_size: int, channels: int) -> nn.Sequential:
    """[log-mask ; image] [N,4,H,W] to [mean ; u] [N,2C]; widths c, c, 2c, 2c."""
    widths = (4, channels, channels, 2 * channels, 2 * channels)
    layers: list[nn.Module] = []
    for i in range(HALVINGS):
        layers += [nn.Conv2d(widths[i], widths[i + 1], 3, stride=2, padding=1), nn.ELU()]
    flat = widths[-1] * (image_size // 2**HALVINGS) ** 2
    return nn.Sequential(
        *layers,
        nn.Flatten(),
        nn.Linear(flat, MLP_WIDTH),
        nn.ELU(),
        nn.Linear(MLP_WIDTH, 2 * latent_size),
    )


class ComponentVAE(nn.Module):
    """q(component | image, mask) and p(colours | component), the same for every slot."""

    def __init__(self, image_size: int, latent_size: int, channels: int) -> None:
        super().__init__()
        self.encoder = component_encoder(image_size, latent_size, channels)
        self.decoder = BroadcastConvolutions(image_size, latent_size, channels)

    def infer(self, images: Tensor, log_masks: Tensor) -> Gaussian:
        """images [B,3,H,W], log_masks [B,K,1,H,W] to a Gaussian [B,K,C]."""
        b, k = log_masks.shape[:2]
        repeated = images[:, None].expand(-1, k, -1, -1, -1)
        x = torch.cat([log_masks, repeated], dim=2).flatten(0, 1)
        x = self.encoder[:-MLP_LAYERS](x.contiguous(memory_format=torch.channels_last))
        with full_precision(x):
            parameters = self.encoder[-MLP_LAYERS:](x.float()).unflatten(0, (b, k))
            mean, u = parameters.chunk(2, dim=-1)
            return Gaussian(mean, shifted_softplus(u))

    def decode(self, latents: Tensor) -> Tensor:
        """Latents [B,K,C] to colours [B,K,3,H,W] in [0,1]; any K."""
        return in_parts(self.decoder, latents.flatten(0, 1)).unflatten(0, latents.shape[:2])
