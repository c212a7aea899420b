"""What every slot VAE takes and returns; metrics, figures and commands know only this.

Axis legend: B batch, K slots, D slot size, S scene size, H W image rows and columns, C = 3.
Every per-image quantity is [B], in nats; averaging over the batch is the caller's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

from sri_cli.rng import NoiseSpec

if TYPE_CHECKING:
    from sri_cli.models.likelihood import ImageLikelihood

Noise = Mapping[str, Tensor]


@dataclass(frozen=True)
class Scene:
    """Decoded slots: rgb [B,K,3,H,W] in [0,1], log_masks [B,K,1,H,W]; masks sum to 1 over K."""

    rgb: Tensor
    log_masks: Tensor

    def __post_init__(self) -> None:
        b, k, c, h, w = self.rgb.shape
        if c != 3 or self.log_masks.shape != (b, k, 1, h, w):
            raise ValueError(
                f"scene of rgb {tuple(self.rgb.shape)} and masks {tuple(self.log_masks.shape)}"
            )

    @property
    def masks(self) -> Tensor:
        """[B,K,1,H,W], summing to 1 over K."""
        return self.log_masks.exp()

    @property
    def image(self) -> Tensor:
        """The blend sum_k mask_k rgb_k, [B,3,H,W] in [0,1]."""
        return (self.masks * self.rgb).sum(dim=1)


@dataclass(frozen=True)
class Objective:
    """One constrained objective for GECO: keep `error` at its goal while `kl` falls. Both [B].

    `earlier`: the same pair of every pass before the last, for models that refine what they
    found; EMORL's GECO weighs them in (`Geco` does not).
    """

    name: str
    error: Tensor
    kl: Tensor
    earlier: tuple[tuple[Tensor, Tensor], ...] = ()


@dataclass(frozen=True)
class Losses:
    """What one training step sees.

    `objectives` are minimised, each under a GECO of its own. `terms` are [B] values for the
    log and for evaluation; `nll` and the names in `bound` add up to -ELBO.
    """

    objectives: tuple[Objective, ...]
    terms: dict[str, Tensor]
    bound: tuple[str, ...] = field(default=("nll", "kl"))

    def __post_init__(self) -> None:
        batch = self.objectives[0].error.shape
        for name, value in self.terms.items():
            if value.shape != batch or len(batch) != 1:
                raise ValueError(f"loss term {name} has shape {tuple(value.shape)}, wanted [B]")


@dataclass(frozen=True)
class Reconstruction:
    """An image as the model sees it again.

    `scene` is the model's own reconstruction; `attention` [B,K,1,H,W] the segregation masks, in
    the same slot order as `scene`; `imagined` a rollout of the slot prior from the image's scene
    latent (None for systems without one); `order` [B,K] the segregation slot at each place.
    `slots` [B,K,D] are what `decode` makes `scene` of, and `latent` [B,S] the image's scene
    latent (None for systems without one).
    """

    scene: Scene
    attention: Tensor
    imagined: Scene | None = None
    order: Tensor | None = None
    slots: Tensor | None = None
    latent: Tensor | None = None


class SlotVAE(Protocol):
    """Images in, losses and scenes out. Also an `nn.Module` whose forward is `losses`.

    Random numbers come from outside (`noise`), so that they may belong to (seed, step) or
    (seed, image index) and never to process state. Names and shapes: `training_noise`,
    `sampling_noise`.
    """

    num_slots: int
    image_size: int
    likelihood: ImageLikelihood

    def training_noise(self) -> dict[str, NoiseSpec]:
        """The draws that `losses` and `reconstruct` want, per image."""
        ...

    def sampling_noise(self, slots: int) -> dict[str, NoiseSpec]:
        """The draws that `sample` wants per image; fewer slots use a prefix of more.

        "scene" [S] is the scene variable's, for systems that have one; every other draw has the
        slots as its first axis, in the order in which they are drawn.
        """
        ...

    def losses(self, images: Tensor, noise: Noise) -> Losses:
        """images [B,3,H,W] in [0,1]."""
        ...

    def reconstruct(self, images: Tensor, noise: Noise) -> Reconstruction:
        """images [B,3,H,W] in [0,1]."""
        ...

    def slots(self, noise: Noise, temperature: float = 1.0, given: Tensor | None = None) -> Tensor:
        """New slots [B,K,D] from the prior; the noise fixes batch and number of slots.

        `given` [B,J,D], J <= K: these are the first slots, and the prior draws the rest.
        """
        ...

    def decode(self, slots: Tensor) -> Scene:
        """Slots [B,K,D], of `slots` or of a `Reconstruction`, to pixels; any K."""
        ...

    def sample(self, noise: Noise, temperature: float = 1.0) -> Scene:
        """New scenes: `slots`, then `decode`."""
        ...
