"""Slot Attention as a segregation model without a loss of its own (SRI-SA*).

Every slot starts from a learned Gaussian of its own, so that it may specialise and keep its place.
Axis legend: B batch, K slots, D slot size, F features, N places of a feature map, H W pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sri_cli.models.base import Noise
from sri_cli.models.convolution import FEATURES, ConvEncoder
from sri_cli.models.distributions import Gaussian, sqrt_softplus
from sri_cli.models.layers import full_precision, init_default
from sri_cli.models.segregation import Segregated
from sri_cli.rng import NoiseSpec

ITERATIONS = 3
MLP_WIDTH = 128
ATTENTION_EPSILON = 1e-8


class SlotAttention(nn.Module):
    """Slots compete for the places of a feature map; what each has won becomes its posterior.

    `starts`: how many learned initial Gaussians there are: one for each of the slots, or one for
    all of them (1), which makes slots alike but for their noise.
    """

    def __init__(self, starts: int, slot_size: int, features: int = FEATURES) -> None:
        super().__init__()
        # Far enough apart that slots with a start of their own differ from the first step.
        self.initial_mean = nn.Parameter(torch.randn(starts, slot_size))
        self.initial_u = nn.Parameter(torch.ones(starts, slot_size))
        # Features of any scale.
        self.input_norm = nn.LayerNorm(features)
        self.key = nn.Linear(features, slot_size, bias=False)
        self.value = nn.Linear(features, slot_size, bias=False)
        self.slot_norm = nn.LayerNorm(slot_size)
        self.query = nn.Linear(slot_size, slot_size, bias=False)
        self.gru = nn.GRUCell(slot_size, slot_size)
        self.mlp = nn.Sequential(
            nn.LayerNorm(slot_size),
            nn.Linear(slot_size, MLP_WIDTH),
            nn.ReLU(),
            nn.Linear(MLP_WIDTH, slot_size),
        )
        self.head = nn.Linear(slot_size, 2 * slot_size)

    def forward(self, features: Tensor, noise: Tensor) -> tuple[Gaussian, Tensor]:
        """features [B,N,F], noise [B,K,D] of the initial slots.

        Returns the posterior [B,K,D] and the last log-attention [B,K,N], a softmax over slots.
        """
        with full_precision(noise):
            features = self.input_norm(features.float())
            keys, values = self.key(features).transpose(1, 2), self.value(features)
            initial = Gaussian(self.initial_mean, sqrt_softplus(self.initial_u))
            slots, log_attention = self._iterate(initial.sample(noise), keys, values)
            for _ in range(ITERATIONS - 1):
                slots, log_attention = self._iterate(slots, keys, values)
            mean, u = self.head(slots).chunk(2, dim=-1)
            return Gaussian(mean, sqrt_softplus(u)), log_attention

    def _iterate(self, slots: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """slots [B,K,D], keys [B,D,N], values [B,N,D] to the next slots and the log-attention."""
        query = self.query(self.slot_norm(slots)) / slots.shape[-1] ** 0.5
        log_attention = torch.bmm(query, keys).log_softmax(dim=1)
        attention = log_attention.exp() + ATTENTION_EPSILON
        gathered = torch.bmm(attention / attention.sum(dim=-1, keepdim=True), values)
        updated = self.gru(gathered.flatten(0, 1), slots.flatten(0, 1)).view_as(slots)
        return updated + self.mlp(updated), log_attention


def attention_noise(slots: int, slot_size: int) -> dict[str, NoiseSpec]:
    """Where the slots start, and their sample."""
    spec = NoiseSpec((slots, slot_size))
    return {"initial": spec, "segregation": spec}


class SlotAttentionSegregation(nn.Module):
    """EMORL's convolutional encoder, then Slot Attention; SRI's losses train both."""

    trained_by_sri = True
    ordered = True

    def __init__(self, *, image_size: int, slots: int, slot_size: int) -> None:
        super().__init__()
        self.slots, self.slot_size, self.image_size = slots, slot_size, image_size
        self.encoder = ConvEncoder(image_size)
        # EMORL's small weights leave 1e-7 of the image beside the position code, less than what
        # float32 keeps of their sum; here, with PyTorch's own, slots see the image at once.
        init_default(self.encoder)
        self.attention = SlotAttention(slots, slot_size)

    def noise(self) -> dict[str, NoiseSpec]:
        return attention_noise(self.slots, self.slot_size)

    def forward(self, images: Tensor, noise: Noise) -> Segregated:
        posterior, log_attention = self.attention(self.encoder(images), noise["initial"])
        log_masks = log_attention.unflatten(2, (1, self.image_size, self.image_size))
        return Segregated(posterior, posterior.sample(noise["segregation"]), log_masks)
