"""EfficientMORL's way of taking an image apart: a hierarchy of slot posteriors, then refinement.

Axis legend: B batch, K slots, D slot size, L layers, I refinement steps, N = H*W pixels.
Layer 0 is the bottom one, layer L-1 the top, inferred last and decoded.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sri_cli.models.base import Noise
from sri_cli.models.convolution import FEATURES, ConvEncoder
from sri_cli.models.distributions import Gaussian, kl_divergence, kl_to_standard, standard_like
from sri_cli.models.emorl_decoders import DECODERS
from sri_cli.models.emorl_layers import AttentionLayer, LayerPrior, Parameters
from sri_cli.models.layers import full_precision
from sri_cli.models.likelihood import ImageLikelihood
from sri_cli.models.refinement import Pass, Refinement
from sri_cli.models.segregation import Segregated
from sri_cli.rng import NoiseSpec

LAYERS = 3


class Found(NamedTuple):
    """All that is inferred: the layers' posteriors, attention [B,K,1,H,W], every pass.

    `upper_kl` [B]: the KL of the layers above the bottom, which the last pass leaves out.
    """

    layers: list[Parameters]
    log_masks: Tensor
    passes: list[Pass]
    upper_kl: Tensor


class EmorlSegregation(nn.Module):
    """Images to a slot posterior; the slots all start alike but for their noise."""

    trained_by_sri = False
    ordered = False
    geco = "emorl"  # also of what is built on it

    def __init__(
        self,
        *,
        image_size: int,
        slots: int,
        slot_size: int = 64,
        decoder: str = "iodine",
        likelihood: ImageLikelihood,
        refinements: int = 3,
    ) -> None:
        """`decoder`: iodine (any size) or big (a multiple of 16, else ValueError)."""
        super().__init__()
        self.shape = (slots, slot_size)
        self.image_size = image_size
        self.likelihood = likelihood
        start = torch.cat([torch.zeros(slot_size), torch.ones(slot_size)])
        self.start = nn.Parameter(start[None])
        self.encoder = ConvEncoder(image_size)
        self.layer = AttentionLayer(slot_size, FEATURES)
        self.prior = LayerPrior(slot_size)
        self.decoder = DECODERS[decoder](image_size, slot_size)
        self.refine = Refinement(slot_size, refinements)

    def noise(self) -> dict[str, NoiseSpec]:
        """Its shapes do not follow the number of refinement steps in use."""
        return {
            "initial_slots": NoiseSpec(self.shape),
            "layers": NoiseSpec((LAYERS, *self.shape)),
            "kl_layers": NoiseSpec((LAYERS - 1, *self.shape)),
            "refinement": NoiseSpec((self.refine.most, *self.shape)),
        }

    def forward(self, images: Tensor, noise: Noise) -> Segregated:
        found = self.infer(images, noise)
        last = found.passes[-1]
        return Segregated(
            last.posterior,
            last.slots,
            found.log_masks,
            last.scene,
            last.nll,
            last.kl,
            tuple((earlier.nll, earlier.kl) for earlier in found.passes[:-1]),
        )

    def infer(self, images: Tensor, noise: Noise) -> Found:
        """images [B,3,H,W] in [0,1]; works without gradients too, for it makes its own."""
        if torch.compiler.is_compiling() or not torch.is_inference_mode_enabled():
            return self._infer(images, noise)
        device = images.device.type
        # Tensors of inference mode, cached casts of weights among them, can have no gradient.
        with torch.inference_mode(False), torch.no_grad(), uncached_autocast(device):
            return self._infer(images.clone(), {name: n.clone() for name, n in noise.items()})

    def _infer(self, images: Tensor, noise: Noise) -> Found:
        layers, log_masks = self.hierarchy(images, noise)
        explain = partial(self.first_pass, images, noise, layers[:-1])
        found, memory = layers[-1], self.refine.start(layers[-1])
        passes: list[Pass] = []
        for fresh in noise["refinement"].unbind(dim=1)[: self.refine.steps]:
            seen, slope = self.refine.differentiate(explain, found)
            passes.append(seen)
            found, memory = self.refine(found, slope, memory)
            explain = partial(self.later_pass, images, fresh, passes[0].prior)
        passes.append(explain(found))
        return Found(layers, log_masks, passes, self._upper_kl(layers, passes))

    def _upper_kl(self, layers: list[Parameters], passes: list[Pass]) -> Tensor:
        """[B]; nothing when there was but one pass, whose KL is that of all layers."""
        if len(passes) == 1:
            return torch.zeros_like(passes[0].kl)
        with full_precision(passes[0].kl):
            bottom = kl_divergence(layers[0].gaussian(), passes[0].prior).sum(dim=1)
        return (passes[0].kl - bottom).detach()

    def hierarchy(self, images: Tensor, noise: Noise) -> tuple[list[Parameters], Tensor]:
        """The posterior of every layer, bottom first, and the last attention as log-masks."""
        features = self.encoder(images).float()
        with full_precision(features):
            pixels = self.layer.key(features), self.layer.value(features)
            mean, u = self.start[:, None].expand(len(images), self.shape[0], -1).chunk(2, dim=-1)
            state = Parameters(mean, u)
            slots = state.gaussian().sample(noise["initial_slots"])
            layers = []
            for fresh in noise["layers"].unbind(dim=1):
                state, log_attention = self.layer(slots, state, pixels)
                slots = state.gaussian().sample(fresh)
                layers.append(state)
        return layers, log_attention.unflatten(2, (1, *images.shape[-2:]))

    def first_pass(
        self, images: Tensor, noise: Noise, lower: list[Parameters], top: Parameters
    ) -> Pass:
        """Decode the top layer; the KL of the whole hierarchy under the reversed prior++."""
        with full_precision(images):
            q = top.gaussian()
            kl, prior = kl_to_standard(q), standard_like(q.mean)
            above = q
            for layer, fresh in zip(reversed(lower), noise["kl_layers"].unbind(dim=1), strict=True):
                prior = self.prior(above.sample(fresh))
                above = layer.gaussian()
                kl = kl + kl_divergence(above, prior)
        return self._explain(images, q, noise["layers"][:, -1], kl, prior)

    def later_pass(
        self, images: Tensor, fresh: Tensor, prior: Gaussian, refined: Parameters
    ) -> Pass:
        """Decode a refined posterior; its KL is to the prior of the bottom layer alone."""
        with full_precision(images):
            q = refined.gaussian()
            kl = kl_divergence(q, prior)
        return self._explain(images, q, fresh, kl, prior)

    def _explain(
        self, images: Tensor, q: Gaussian, fresh: Tensor, kl: Tensor, prior: Gaussian
    ) -> Pass:
        """Decode a sample; kl [B,K]."""
        slots = q.sample(fresh)
        scene = self.decoder(slots)
        nll = self.likelihood.nll(images, scene)
        return Pass(q, slots, scene, nll, kl.sum(dim=1), prior)

    def draw(self, noise: Tensor, temperature: float = 1.0) -> Tensor:
        """Slots [B,K,D] from the top prior down to the bottom one; noise [B,K,L,D]."""
        with full_precision(noise):
            top, *lower = noise.unbind(dim=2)
            slots = temperature * top
            for fresh in lower:
                slots = self.prior(slots).sample(fresh, temperature)
        return slots


def uncached_autocast(device: str) -> torch.autocast:
    """The autocast that is in force, without its cache of cast weights."""
    return torch.autocast(
        device,
        dtype=torch.get_autocast_dtype(device),
        enabled=torch.is_autocast_enabled(device),
        cache_enabled=False,
    )
