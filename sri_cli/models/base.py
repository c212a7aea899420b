"""The interface of all models, and what they take and return.

Axis legend: B batch, K slots, D slot size, S scene size, H W image rows and columns, C = 3.
Every per-image quantity is [B], in nats; averaging over the batch is up to the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from sri_cli.models.distributions import Gaussian
from sri_cli.rng import NoiseSpec

if TYPE_CHECKING:
    from sri_cli.models.emorl import Refinement
    from sri_cli.models.likelihood import ImageLikelihood
    from sri_cli.models.matching import Matching
    from sri_cli.models.scene_encoder import SceneEncoder
    from sri_cli.models.slot_prior import AutoregressivePrior

Noise = Mapping[str, Tensor]
EMPTY_LOG_MASK = -1e10  # of a slot that holds nothing: a mask of 0, without infinities


@dataclass(frozen=True)
class Scene:
    """Decoded slots: rgb [B,K,3,H,W], log_masks [B,K,1,H,W]; masks sum to 1 over K.

    Colours are in [0,1], but for Slot-VAE, which may leave it.
    """

    rgb: Tensor
    log_masks: Tensor

    @property
    def masks(self) -> Tensor:
        """[B,K,1,H,W], summing to 1 over K."""
        return self.log_masks.exp()

    @property
    def image(self) -> Tensor:
        """The blend sum_k mask_k rgb_k, [B,3,H,W]."""
        return (self.masks * self.rgb).sum(dim=1)

    def detach(self) -> Scene:
        """The same scene, cut off from the gradient."""
        return Scene(self.rgb.detach(), self.log_masks.detach())

    def without(self, empty: Tensor | None) -> Scene:
        """The scene without its `empty` [B,K] slots; at least one slot per image must be left.

        The softmax over all slots, masked and normalised once more, is the softmax over those
        left, so that no decoder need know of empty slots.
        """
        if empty is None:
            return self
        log_masks = self.log_masks.masked_fill(empty[:, :, None, None, None], EMPTY_LOG_MASK)
        return Scene(self.rgb, log_masks.log_softmax(dim=1))


@dataclass(frozen=True)
class Objective:
    """One constrained objective for GECO: keep `error` at its goal while `kl` falls. Both [B].

    `earlier` holds the same pair for every pass before the last, in models that refine their
    posterior; EMORL's GECO weighs them in (`Geco` does not).
    """

    name: str
    error: Tensor
    kl: Tensor
    earlier: tuple[tuple[Tensor, Tensor], ...] = ()


@dataclass(frozen=True)
class Losses:
    """What one training step minimises and logs.

    `objectives` are minimised, each under a GECO of its own. `terms` are [B] values for the
    log and for evaluation; `nll` and the names in `bound` add up to -ELBO.
    """

    objectives: tuple[Objective, ...]
    terms: dict[str, Tensor]
    bound: tuple[str, ...] = ("nll", "kl")


@dataclass(frozen=True)
class Reconstruction:
    """An image as the model reconstructs it.

    Attributes:
        scene: The model's own reconstruction.
        attention: Segregation masks [B,K,1,H,W], in the slot order of `scene`.
        imagine: Decodes a rollout of the slot prior from the image's scene latent, in systems with
            one.
        order: The segregation slot at each position [B,K], in systems that match slots.
        slots: The slots [B,K,D] that `decode` turns into `scene`.
        latent: The image's scene latent [B,S], in systems with a scene variable.
    """

    scene: Scene
    attention: Tensor
    imagine: Callable[[], Scene] | None = None
    order: Tensor | None = None
    slots: Tensor | None = None
    latent: Tensor | None = None


@dataclass(frozen=True)
class Segregated:
    """An image segregated into slots.

    Attributes:
        posterior: Independent slot posterior [B,K,D].
        slots: A sample of it [B,K,D].
        log_masks: Attention [B,K,1,H,W].
        nll: -log p(image | slots) [B]; None for a stage without a loss of its own, as the next.
        kl: Posterior to the stage's prior inside SRI [B].
        earlier: (nll, kl) of the passes before the last, for a stage that refines.
        empty: Slots that hold nothing [B,K] (dynamic slots); None if all hold something.
    """

    posterior: Gaussian
    slots: Tensor
    log_masks: Tensor
    nll: Tensor | None = None
    kl: Tensor | None = None
    earlier: tuple[tuple[Tensor, Tensor], ...] = ()
    empty: Tensor | None = None


class Segregation(nn.Module):
    """First stage of a model: images to a slot posterior. What it can do is declared here.

    Attributes:
        end_to_end: True: the stage has no loss of its own, and SRI's losses train it. False: it
            has one, and what SRI builds on it is detached.
        ordered: Whether its slots keep an order of their own. If not, SRI matches them.
        geco: The kind of GECO that its losses are balanced with.
        can_vary_slots: Whether it can infer the number of slots of an image (dynamic slots).
        dynamic_slots: Whether it does; for inference only.
    """

    end_to_end = False
    ordered = False
    geco: Literal["genesis", "emorl"] = "genesis"
    can_vary_slots = False
    dynamic_slots = False

    @property
    def refinement(self) -> Refinement | None:
        """The part that refines slot posteriors by gradients (EMORL); None without one."""
        return None

    def noise(self) -> dict[str, NoiseSpec]:
        """The random draws that the forward pass takes, per image."""
        raise NotImplementedError

    def forward(self, images: Tensor, noise: Noise, gaussian_likelihood: bool) -> Segregated:
        """images [B,3,H,W] in [0,1]; `gaussian_likelihood` as in `SlotVAE.losses`."""
        raise NotImplementedError

    def unscored(self, images: Tensor, noise: Noise) -> Segregated:
        """The same without nll and kl where these cost time."""
        return self(images, noise, False)


class SlotVAE(nn.Module):
    """A generative model of images made of slots: losses, reconstructions and new scenes.

    Random numbers come from outside (`noise`), so that they are functions of (seed, step) or
    (seed, image index), never of process state. `training_noise` and `sampling_noise` name them.

    Attributes:
        objective_names: The names of `Losses.objectives`.
        scene_size: S, or None without a scene variable.
        decoded_size: The width of the slots that `decode` takes and `slots` returns.
        geco: The kind of GECO that its objectives are balanced with; none: error + KL.
        matching_temperature: Of the relaxed matching; set by the training schedule, as the next.
        end_to_end_share: Share of SRI's gradient that reaches a first stage with its own loss.
        learns_order: Whether a slot's position means the same in every scene (SRI's alignment).
        matches: Whether it matches slots: then `losses_matched_by` compares matchings.
        independent_slots: Whether new slots do not depend on those before (EMORL, Slot-VAE).
        shared_masks: Whether each mask is a share of what the slots before it leave (GENESIS), so
            that a change of one slot also changes those after it.
        matches_on_host: Whether a step needs the CPU (Hungarian matching): then it cannot be
            compiled or recorded as a CUDA graph.
        segregate: The first stage, if the model has a separate one.
        relate: The posterior of the scene variable; None without one.
        prior: The prior over slots; none where `independent_slots`.
    """

    objective_names: tuple[str, ...]
    matching_temperature: Tensor
    end_to_end_share: Tensor
    learns_order = False
    matches = False
    independent_slots = False
    shared_masks = False
    matches_on_host = False
    segregate: Segregation | None
    relate: SceneEncoder | None
    prior: AutoregressivePrior

    def __init__(
        self,
        *,
        image_size: int,
        slots: int,
        slot_size: int,
        likelihood: ImageLikelihood,
        scene_size: int | None = None,
        segregation: Segregation | None = None,
    ) -> None:
        super().__init__()
        self.image_size = image_size
        self.num_slots = slots
        self.slot_size = slot_size
        self.likelihood = likelihood
        self.scene_size = scene_size
        self.segregate = segregation
        self.decoded_size = slot_size
        self.geco: Literal["genesis", "emorl", "none"] = (
            "genesis" if segregation is None else segregation.geco
        )
        # Buffers, and not arguments, so that a captured or compiled step reads their present
        # values; they are functions of the step and not saved.
        for name in ("matching_temperature", "end_to_end_share"):
            self.register_buffer(name, torch.ones(()), persistent=False)

    @property
    def has_scene(self) -> bool:
        """Whether the model has a scene variable."""
        return self.scene_size is not None

    @property
    def refinement(self) -> Refinement | None:
        """The part that refines slot posteriors by gradients (EMORL); None without one."""
        return None if self.segregate is None else self.segregate.refinement

    @property
    def dynamic_slots(self) -> bool:
        """Whether each image gets as many slots as it needs."""
        return self.segregate is not None and self.segregate.dynamic_slots

    def training_noise(self) -> dict[str, NoiseSpec]:
        """The draws that `losses` and `reconstruct` take, per image."""
        stage = {} if self.segregate is None else self.segregate.noise()
        return {**stage, **self.scene_noise()}

    def sampling_noise(self, slots: int) -> dict[str, NoiseSpec]:
        """The draws that `slots` takes per image; fewer slots use a prefix of more.

        "scene" [S] belongs to the scene variable, in systems that have one; every other draw has
        the slots as its first axis, in the order in which they are drawn.
        """
        return {**self.scene_noise(), "slots": NoiseSpec((slots, self.slot_size))}

    def scene_noise(self) -> dict[str, NoiseSpec]:
        """The draw of the scene variable; none without one."""
        return {} if self.scene_size is None else {"scene": NoiseSpec((self.scene_size,))}

    def losses(self, images: Tensor, noise: Noise, gaussian_likelihood: bool = False) -> Losses:
        """images [B,3,H,W] in [0,1].

        `gaussian_likelihood` is the warm-up of training (departure from the paper): a mixture
        makes every slot explain its pixels alone and learns colours slowly from scratch, so
        training may begin with the Gaussian of the blended image, whatever the model's own kind.
        """
        raise NotImplementedError

    def forward(self, images: Tensor, noise: Noise, gaussian_likelihood: bool = False) -> Losses:
        return self.losses(images, noise, gaussian_likelihood)

    def losses_matched_by(
        self, matchings: Iterable[Matching], images: Tensor, noise: Noise
    ) -> list[tuple[Tensor, Losses]]:
        """For each matching the order [B,K] and the losses with it, where the model `matches`.

        As `losses` in evaluation, without the terms of a segregation stage of its own, which
        depend on no matching.
        """
        raise NotImplementedError

    def reconstruct(self, images: Tensor, noise: Noise) -> Reconstruction:
        """images [B,3,H,W] in [0,1]; noise as for `losses`."""
        raise NotImplementedError

    def slots(
        self,
        noise: Noise,
        temperature: float = 1.0,
        scene: Tensor | None = None,
        given: Tensor | None = None,
    ) -> Tensor:
        """New slots [B,K,D] from the prior.

        Args:
            noise: As `sampling_noise` names it; it fixes the batch and the number of slots.
            temperature: Factor of every standard deviation, the scene variable's included.
            scene: Scene latents [B,S] to use instead of drawing them; not affected by the
                temperature.
            given: The first slots [B,J,D], J <= K; the prior draws the rest.
        """
        scene = self.drawn_scene(noise, temperature, scene)
        drawn = self._draw(noise, temperature, scene, given)
        return drawn if given is None else torch.cat([given, drawn[:, given.shape[1] :]], dim=1)

    def _draw(
        self, noise: Noise, temperature: float, scene: Tensor | None, given: Tensor | None
    ) -> Tensor:
        """As `slots` with the scene latent; the first slots may be others than those `given`."""
        return self.prior.rollout(noise["slots"], scene, temperature, given)[1]

    def drawn_scene(self, noise: Noise, temperature: float, scene: Tensor | None) -> Tensor | None:
        """The scene latent [B,S]: `scene`, or drawn from N(0, t^2 I); None without a variable."""
        if scene is None and self.scene_size is not None:
            return temperature * noise["scene"]
        return scene

    def infer_scene(
        self, slots: Tensor, noise: Noise, empty: Tensor | None = None
    ) -> tuple[Gaussian | None, Tensor | None]:
        """q(s | z_1:K) of slots [B,K,D] and a sample of it [B,S]; None without a scene variable."""
        if self.relate is None:
            return None, None
        posterior = self.relate(slots, empty)
        return posterior, posterior.sample(noise["scene"])

    def decode(self, slots: Tensor) -> Scene:
        """Slots [B,K,D], from `slots` or from a `Reconstruction`, to images; any K."""
        raise NotImplementedError


def sum_slots(kls: Tensor, empty: Tensor | None) -> Tensor:
    """Sum of KLs [B,K] over the slots that are not `empty` [B,K], [B]."""
    return (kls if empty is None else kls.masked_fill(empty, 0.0)).sum(dim=1)
