"""EfficientMORL on its own: a hierarchical slot VAE that refines what it found.

Axis legend: B batch, K slots, D slot size, L layers, H W pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sri_cli.models.base import Losses, Noise, Objective, Reconstruction, Scene
from sri_cli.models.emorl_segregation import LAYERS, EmorlSegregation
from sri_cli.rng import NoiseSpec


class Emorl(nn.Module):
    """The complete generative model (`output.SlotVAE`).

    `refinements` is the number of refinement steps in use; training may lower it.
    """

    objective_names = ("emorl",)

    def __init__(self, segregation: EmorlSegregation) -> None:
        super().__init__()
        self.image_size = segregation.image_size
        self.num_slots, self.slot_size = segregation.shape
        self.likelihood = segregation.likelihood
        self.segregate = segregation

    @property
    def refinements(self) -> int:
        """Refinement steps in use."""
        return self.segregate.refine.steps

    @refinements.setter
    def refinements(self, steps: int) -> None:
        self.segregate.refine.steps = steps

    def training_noise(self) -> dict[str, NoiseSpec]:
        return self.segregate.noise()

    def sampling_noise(self, slots: int) -> dict[str, NoiseSpec]:
        # The slot axis comes first, so that fewer slots are a prefix of more.
        return {"slots": NoiseSpec((slots, LAYERS, self.slot_size))}

    def losses(self, images: Tensor, noise: Noise) -> Losses:
        found = self.segregate.infer(images, noise)
        first, last = found.passes[0], found.passes[-1]
        earlier = tuple((seen.nll, seen.kl) for seen in found.passes[:-1])
        return Losses(
            objectives=(Objective("emorl", last.nll, last.kl, earlier),),
            terms={
                "nll": last.nll,
                "kl": last.kl,
                "kl_upper": found.upper_kl,
                "nll_first": first.nll,
                "kl_first": first.kl,
            },
            # Once it has refined, the objective leaves out the layers above the bottom; a bound
            # on log p(x) does not.
            bound=("nll", "kl", "kl_upper"),
        )

    forward = losses

    def reconstruct(self, images: Tensor, noise: Noise) -> Reconstruction:
        found = self.segregate.infer(images, noise)
        last = found.passes[-1]
        return Reconstruction(scene=last.scene, attention=found.log_masks.exp(), slots=last.slots)

    def slots(self, noise: Noise, temperature: float = 1.0, given: Tensor | None = None) -> Tensor:
        """N(0, t^2 I) at the top layer, then down with every standard deviation times t.

        Each slot on its own: what is `given` does not change the others.
        """
        slots = self.segregate.draw(noise["slots"], temperature)
        return slots if given is None else torch.cat([given, slots[:, given.shape[1] :]], dim=1)

    def decode(self, slots: Tensor) -> Scene:
        return self.segregate.decoder(slots)

    def sample(self, noise: Noise, temperature: float = 1.0) -> Scene:
        return self.decode(self.slots(noise, temperature))
