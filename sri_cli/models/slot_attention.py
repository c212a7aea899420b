"""Slot Attention, and SRI on it: a first stage without a loss of its own (SRI-SA*).

There every slot starts from a learned Gaussian of its own, so that it may specialise and keep its
position.
Axis legend: B batch, K slots, D slot size, F features, N pixels of a feature map, H W pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sri_cli.models.base import Noise, Segregated, Segregation
from sri_cli.models.distributions import Gaussian, sqrt_softplus
from sri_cli.models.layers import FEATURES, ConvEncoder, full_precision, init_default
from sri_cli.rng import NoiseSpec

ITERATIONS = 3
MLP_WIDTH = 128
ATTENTION_EPSILON = 1e-8


class SlotCompetition(nn.Module):
    """Slots compete for the pixels of a feature map, and gather what they win.

    ITERATIONS times: a = softmax_k(q_k . k_n / sqrt(D)),
    slot_k <- GRU(sum_n a_kn v_n / sum_n a_kn, slot_k), slot_k += MLP(slot_k).
    """

    def __init__(self, slot_size: int, features: int) -> None:
        super().__init__()
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

    def compete(self, features: Tensor, slots: Tensor) -> tuple[Tensor, Tensor]:
        """features [B,N,F] and initial slots [B,K,D], in full precision.

        Returns the slots [B,K,D] and the last log-attention [B,K,N], a softmax over slots.
        """
        features = self.input_norm(features.float())
        keys, values = self.key(features).transpose(1, 2), self.value(features)
        for _ in range(ITERATIONS):
            query = self.query(self.slot_norm(slots)) / slots.shape[-1] ** 0.5
            log_attention = torch.bmm(query, keys).log_softmax(dim=1)
            attention = log_attention.exp() + ATTENTION_EPSILON
            gathered = torch.bmm(attention / attention.sum(dim=-1, keepdim=True), values)
            slots = self.gru(gathered.flatten(0, 1), slots.flatten(0, 1)).view_as(slots)
            slots = slots + self.mlp(slots)
        return slots, log_attention


class SlotAttention(SlotCompetition):
    """From learned initial Gaussians; what each slot gathers becomes its posterior."""

    def __init__(self, starts: int, slot_size: int) -> None:
        """`starts`: number of learned initial Gaussians: one per slot, or 1 for all of them."""
        # Far enough apart that slots with a start of their own differ from the first step.
        mean = torch.randn(starts, slot_size)
        super().__init__(slot_size, FEATURES)
        self.initial_mean = nn.Parameter(mean)
        self.initial_u = nn.Parameter(torch.ones(starts, slot_size))
        self.head = nn.Linear(slot_size, 2 * slot_size)

    def forward(self, features: Tensor, noise: Tensor) -> tuple[Gaussian, Tensor]:
        """features [B,N,F], noise [B,K,D] of the initial slots.

        Returns the posterior [B,K,D] and the last log-attention [B,K,N], a softmax over slots.
        """
        with full_precision(noise):
            start = Gaussian(self.initial_mean, sqrt_softplus(self.initial_u)).sample(noise)
            slots, log_attention = self.compete(features, start)
            mean, u = self.head(slots).chunk(2, dim=-1)
            return Gaussian(mean, sqrt_softplus(u)), log_attention


class SlotAttentionSegregation(Segregation):
    """EMORL's convolutional encoder, then Slot Attention; SRI's losses train both."""

    end_to_end = True
    ordered = True

    def __init__(self, *, image_size: int, slots: int, slot_size: int) -> None:
        super().__init__()
        self.shape, self.image_size = (slots, slot_size), image_size
        self.encoder = ConvEncoder(image_size)
        # EMORL's small weights leave 1e-7 of the image beside the position code, less than float32
        # resolves of their sum; with PyTorch's own, slots see the image at once.
        init_default(self.encoder)
        self.attention = SlotAttention(slots, slot_size)

    def noise(self) -> dict[str, NoiseSpec]:
        return {"initial": NoiseSpec(self.shape), "segregation": NoiseSpec(self.shape)}

    def forward(
        self, images: Tensor, noise: Noise, gaussian_likelihood: bool = False
    ) -> Segregated:
        posterior, log_attention = self.attention(self.encoder(images), noise["initial"])
        log_masks = log_attention.unflatten(2, (1, self.image_size, self.image_size))
        return Segregated(posterior, posterior.sample(noise["segregation"]), log_masks)
