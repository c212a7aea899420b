"""Slot-VAE (Wang, Liu, Dauwels, ICML 2023, arXiv:2306.06997): slots of an imagined feature map.

p(x, z, g) = p(x | z_1:K) prod_k p(z_k | g, e) prod_t p(g_t | g_<t), with a scene latent g that is
drawn in T steps. The prior over slots is Slot Attention on a feature map decoded from g, by the
same module and from the same initial slots e as the Slot Attention on the image: that aligns the
two, without a matching and without an order. All KLs are analytic; nothing is detached.

The file reads from bottom to top: `SlotVae` the model, `StructDraw` its scene variable,
`PositionDecoder` its decoder.
Axis legend: B batch, K slots, D slot size, S = T*Z scene size, T steps of Z, C feature channels,
E = 2 C scene channels on n x n cells, n = H/32, N = H*W pixels.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sri_cli.models.base import Losses, Noise, Objective, Reconstruction, Scene, SlotVAE
from sri_cli.models.decoders import BigDecoder, doubling
from sri_cli.models.distributions import Gaussian, kl_divergence, kl_to_standard
from sri_cli.models.layers import full_precision, position_code
from sri_cli.models.likelihood import ImageLikelihood
from sri_cli.models.slot_attention import SlotCompetition
from sri_cli.models.slot_prior import stack_slots
from sri_cli.rng import NoiseSpec

STEPS = 4  # T
WIDTH = 512  # of the networks of the scene latent
CELL_PX = 32
# Kernels and strides of the scene encoder, padding 1: five halvings.
KERNELS, STRIDES = (4, 3, 4, 3, 4, 3, 4, 3, 4), (2, 1, 2, 1, 2, 1, 2, 1, 2)
NARROW = 6  # of its layers have C channels, the others E
POSITION = [1, 2, 0, 3]  # columns of EMORL's position code, 1-r, r, s, 1-s, in the published order


def softplus_gaussian(mean: Tensor, u: Tensor, epsilon: float = 0.0) -> Gaussian:
    """std = softplus(u) + epsilon; epsilon is 0 for scene latents and 1e-8 for slots."""
    return Gaussian(mean.float(), F.softplus(u.float()) + epsilon)


def leaky(*layers: nn.Module) -> nn.Sequential:
    """The layers, each followed by a leaky ReLU, whose slope is PyTorch's own, 0.01, everywhere."""
    return nn.Sequential(*(one for layer in layers for one in (layer, nn.LeakyReLU(inplace=True))))


def celu_norm(*widths: int) -> nn.Sequential:
    """Linear layers of these widths, each followed by CELU, then LayerNorm."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.CELU(), nn.LayerNorm(outputs)]
    return nn.Sequential(*layers)


class PixelEncoder(nn.Module):
    """Images [B,3,H,W] in [0,1] to features [B,N,C], row by row."""

    code: Tensor

    def __init__(self, image_size: int, channels: int) -> None:
        super().__init__()
        widths = pairwise((3, *[channels] * 4))
        self.convolutions = leaky(*(nn.Conv2d(*width, 5, padding=2) for width in widths))
        self.position = nn.Linear(4, channels)
        self.head = nn.Sequential(
            nn.Linear(channels, channels), nn.LeakyReLU(), nn.Linear(channels, channels)
        )
        self.register_buffer("code", position_code(image_size)[:, POSITION], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        pixels = self.convolutions(images.contiguous(memory_format=torch.channels_last))
        pixels = pixels.flatten(2).transpose(1, 2)
        with full_precision(images):  # as in `layers.ConvEncoder`
            return self.head(pixels.float() + self.position(self.code))


class CellLstm(nn.Module):
    """An LSTM on a map of cells, each on its own; states [B,E,n,n] start from learned ones."""

    def __init__(self, inputs: int, channels: int, side: int) -> None:
        super().__init__()
        self.first_hidden = nn.Parameter(torch.zeros(1, channels, side, side))
        self.first_cell = nn.Parameter(torch.zeros(1, channels, side, side))
        self.gates = nn.Conv2d(inputs + channels, 4 * channels, 1)

    def start(self, batch: int) -> tuple[Tensor, Tensor]:
        """(hidden, cell) before the first step."""
        hidden, cell = self.first_hidden, self.first_cell
        return hidden.expand(batch, -1, -1, -1), cell.expand(batch, -1, -1, -1)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        hidden, cell = state
        admit, keep, emit, candidate = self.gates(torch.cat([x, hidden], dim=1)).chunk(4, dim=1)
        cell = keep.sigmoid() * cell + admit.sigmoid() * candidate.tanh()
        return emit.sigmoid() * cell.tanh(), cell


class DrawnScene(NamedTuple):
    """A scene latent and what follows from it."""

    latents: Tensor  # [B,T,Z]
    prior: Gaussian  # [B,T,Z]
    posterior: Gaussian | None  # [B,T,Z]; None: drawn from the prior, or given
    canvas: Tensor  # [B,E,n,n]


class StructDraw(nn.Module):
    """The scene variable: p(g) = prod_t p(g_t | g_<t), drawn step by step onto a canvas.

    With decoder state h_dec, encoder state h_enc, image features X and the canvas A_0 = 0:

        p(g_t | g_<t) = N(P(h_dec)),   q(g_t | x, g_<t) = N(Q(h_enc)) with
        h_enc <- LSTM([X ; X - A_t-1 ; h_dec], h_enc)      (at t = 1: [X ; X ; h_dec])
        h_dec <- LSTM([G(g_t) ; A_t-1], h_dec),   A_t = A_t-1 + conv(h_dec)
    """

    def __init__(
        self, image_size: int, channels: int, scene_size: int, steps: int, width: int
    ) -> None:
        super().__init__()
        self.steps, self.size, self.side = steps, scene_size // steps, image_size // CELL_PX
        self.image_size, self.channels = image_size, 2 * channels
        maps = self.channels * self.side**2

        widths = [channels] * (NARROW + 1) + [self.channels] * (len(KERNELS) - NARROW)
        layers: list[nn.Module] = []
        for (inputs, outputs), kernel, stride in zip(
            pairwise(widths), KERNELS, STRIDES, strict=True
        ):
            layers += [nn.Conv2d(inputs, outputs, kernel, stride, 1), nn.CELU()]
            layers += [nn.GroupNorm(1, outputs)]
        self.encoder = nn.Sequential(*layers)
        self.encoder_cell = CellLstm(3 * self.channels, self.channels, self.side)
        self.decoder_cell = CellLstm(2 * self.channels, self.channels, self.side)

        def head() -> nn.Sequential:
            return celu_norm(maps, width, width).append(nn.Linear(width, 2 * self.size))

        self.prior, self.posterior = head(), head()
        self.expand = celu_norm(self.size, width, 2 * width, maps)
        self.paint = nn.Conv2d(self.channels, self.channels, 3, padding=1)
        wide = pairwise((*[self.channels] * 3, *[channels] * 3))
        self.features = leaky(*(doubling(*width) for width in wide))[:-1]

    def seen(self, features: Tensor) -> Tensor:
        """Image features [B,N,C] to X [B,E,n,n]."""
        x = features.transpose(1, 2).unflatten(2, (self.image_size, self.image_size))
        return self.encoder(x)

    def imagined_features(self, canvas: Tensor) -> Tensor:
        """The canvas [B,E,n,n] to features [B,N,C], row by row, as those of an image."""
        return self.features(canvas).flatten(2).transpose(1, 2)

    def forward(
        self,
        noise: Tensor,
        temperature: float = 1.0,
        seen: Tensor | None = None,
        latents: Tensor | None = None,
    ) -> DrawnScene:
        """Draw g from the posterior of `seen` [B,E,n,n], else from the prior.

        Args:
            noise: [B,T,Z].
            temperature: Factor of every standard deviation of the prior.
            seen: X of an image.
            latents: [B,T,Z], to use instead of drawing them.
        """
        batch = len(noise)
        before, state = self.encoder_cell.start(batch), self.decoder_cell.start(batch)
        canvas = torch.zeros_like(state[0])
        draws, priors, posteriors = [], [], []
        for t, step_noise in enumerate(noise.unbind(dim=1)):
            priors.append(self._gaussian(self.prior, state[0]))
            if seen is not None:
                rest = seen - canvas if t else seen
                before = self.encoder_cell(torch.cat([seen, rest, state[0]], dim=1), before)
                posteriors.append(self._gaussian(self.posterior, before[0]))
                draw = posteriors[-1].sample(step_noise)
            elif latents is None:
                draw = priors[-1].sample(step_noise, temperature)
            else:
                draw = latents[:, t]
            shape = (self.channels, self.side, self.side)
            expanded = self.expand(draw).unflatten(1, shape)
            state = self.decoder_cell(torch.cat([expanded, canvas], dim=1), state)
            canvas = canvas + self.paint(state[0])
            draws.append(draw)
        posterior = stack_slots(posteriors) if posteriors else None
        return DrawnScene(torch.stack(draws, dim=1), stack_slots(priors), posterior, canvas)

    @staticmethod
    def _gaussian(network: nn.Module, hidden: Tensor) -> Gaussian:
        """[B,E,n,n] to a Gaussian [B,Z]; the network reads the map cell by cell."""
        mean, u = network(hidden.permute(0, 2, 3, 1).flatten(1)).chunk(2, dim=-1)
        return softplus_gaussian(mean, u)


class FixedSlotAttention(SlotCompetition):
    """Slot Attention from initial slots m + exp(l) e, with m and l fixed when the model is made."""

    initial_mean: Tensor
    initial_log_std: Tensor

    def __init__(self, slot_size: int, features: int) -> None:
        super().__init__(slot_size, features)
        self.mean = nn.Linear(slot_size, slot_size)
        self.spread = nn.Linear(slot_size, slot_size)
        for name in ("initial_mean", "initial_log_std"):
            value = nn.init.xavier_uniform_(torch.empty(1, 1, slot_size))
            self.register_buffer(name, value)

    def forward(self, features: Tensor, noise: Tensor) -> tuple[Gaussian, Tensor]:
        """features [B,N,C] and the noise e [B,K,D] of the initial slots.

        Returns the slots' Gaussian [B,K,D] and the last log-attention [B,K,N].
        """
        with full_precision(noise):
            start = Gaussian(self.initial_mean, self.initial_log_std.exp()).sample(noise)
            slots, log_attention = self.compete(features, start)
            return softplus_gaussian(self.mean(slots), self.spread(slots), 1e-8), log_attention


class PositionDecoder(BigDecoder):
    """EMORL's big decoder with leaky ReLUs.

    Colours are not squashed: they may leave [0,1], and are clamped where images are written.
    """

    def __init__(self, image_size: int, slot_size: int, channels: int) -> None:
        super().__init__(image_size, slot_size, channels, nn.LeakyReLU, small=False)
        self.code = self.code[:, POSITION]

    def colours(self, rgb: Tensor) -> Tensor:
        return rgb


class SlotVae(SlotVAE):
    """The complete generative model. It has no GECO: the weights of its KLs are fixed."""

    objective_names = ("slot-vae",)
    independent_slots = True
    # Of the KLs in the loss, as published.
    weights = {"kl_scene": 0.105, "kl_slot": 1.0, "kl_auxiliary": 1.0}

    def __init__(
        self,
        *,
        image_size: int,
        slots: int,
        slot_size: int,
        scene_size: int,
        likelihood: ImageLikelihood,
        feature_channels: int,
        decoder_channels: int,
        steps: int = STEPS,
        width: int = WIDTH,
    ) -> None:
        super().__init__(
            image_size=image_size,
            slots=slots,
            slot_size=slot_size,
            likelihood=likelihood,
            scene_size=scene_size,
        )
        self.geco = "none"
        self.relate = None
        self.encoder = PixelEncoder(image_size, feature_channels)
        self.draw = StructDraw(image_size, feature_channels, scene_size, steps, width)
        self.attention = FixedSlotAttention(slot_size, feature_channels)
        self.decoder = PositionDecoder(image_size, slot_size, decoder_channels)

    def training_noise(self) -> dict[str, NoiseSpec]:
        slots = NoiseSpec((self.num_slots, self.slot_size))
        return {**self.scene_noise(), "initial": slots, "slots": slots}

    def sampling_noise(self, slots: int) -> dict[str, NoiseSpec]:
        """As in every model, and "initial", the noise e of the initial slots.

        Slots compete for the imagined features, so each depends on how many there are.
        """
        specs = super().sampling_noise(slots)
        return {**specs, "initial": specs["slots"]}

    # -ELBO of an image, with one sample of each latent:
    #
    #   nll             -log p(x | z_1:K)
    #   kl_scene      + sum_t KL(q(g_t | x, g_<t) || p(g_t | g_<t))
    #   kl_slot       + sum_k KL(q(z_k | x, e) || p(z_k | g, e))
    #
    # The loss weighs them, and adds the auxiliary prior, which is no part of the bound:
    #
    #   kl_auxiliary    sum_k KL(q(z_k | x, e) || N(0, I))
    #   loss = nll + w_scene kl_scene + w_slot kl_slot + w_auxiliary kl_auxiliary
    def losses(self, images: Tensor, noise: Noise, gaussian_likelihood: bool = False) -> Losses:
        posterior, _, drawn = self._infer(images, noise)
        scene = self.decoder(posterior.sample(noise["slots"]))
        nll = self.likelihood.nll(images, scene, gaussian_likelihood)
        assert drawn.posterior is not None
        prior = self._imagine(drawn, noise)
        kls = {
            "kl_scene": kl_divergence(drawn.posterior, drawn.prior).sum(dim=1),
            "kl_slot": kl_divergence(posterior, prior).sum(dim=1),
            "kl_auxiliary": kl_to_standard(posterior).sum(dim=1),
        }
        weighted = torch.stack([self.weights[name] * kl for name, kl in kls.items()]).sum(dim=0)
        return Losses(
            objectives=(Objective("slot-vae", nll, weighted),),
            terms={"nll": nll, **kls},
            bound=("nll", "kl_scene", "kl_slot"),
        )

    def reconstruct(self, images: Tensor, noise: Noise) -> Reconstruction:
        posterior, log_attention, drawn = self._infer(images, noise)
        slots = posterior.sample(noise["slots"])
        side = (1, self.image_size, self.image_size)
        return Reconstruction(
            scene=self.decoder(slots),
            attention=log_attention.exp().unflatten(2, side),
            imagine=lambda: self.decoder(self._imagine(drawn, noise).sample(noise["slots"])),
            slots=slots,
            latent=drawn.latents.flatten(1),
        )

    def _draw(
        self, noise: Noise, temperature: float, scene: Tensor | None, given: Tensor | None
    ) -> Tensor:
        """As in every model; the temperature does not scale the noise of the initial slots."""
        assert scene is not None
        latents = self._by_step(scene)
        with full_precision(latents):
            drawn = self.draw(latents, latents=latents)
        return self._imagine(drawn, noise).sample(noise["slots"], temperature)

    def drawn_scene(self, noise: Noise, temperature: float, scene: Tensor | None) -> Tensor | None:
        """The scene latent [B,S]: `scene`, or drawn step by step from the prior."""
        if scene is not None:
            return scene
        with full_precision(noise["scene"]):
            return self.draw(self._by_step(noise["scene"]), temperature).latents.flatten(1)

    def decode(self, slots: Tensor) -> Scene:
        return self.decoder(slots)

    def _infer(self, images: Tensor, noise: Noise) -> tuple[Gaussian, Tensor, DrawnScene]:
        """q(z_k | x, e), the log-attention [B,K,N], and g drawn from its posterior."""
        features = self.encoder(images)
        seen = self.draw.seen(features).float()
        with full_precision(seen):
            drawn = self.draw(self._by_step(noise["scene"]), seen=seen)
        return *self.attention(features, noise["initial"]), drawn

    def _imagine(self, drawn: DrawnScene, noise: Noise) -> Gaussian:
        """p(z_k | g, e), [B,K,D]."""
        return self.attention(self.draw.imagined_features(drawn.canvas), noise["initial"])[0]

    def _by_step(self, scene: Tensor) -> Tensor:
        """[B,S] to [B,T,Z]."""
        return scene.unflatten(1, (self.draw.steps, self.draw.size))
