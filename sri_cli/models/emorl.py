"""EfficientMORL (Emami et al., 2021): a hierarchy of slot posteriors, then refinement.

p(x, z^0..z^L-1) = p(x | z^0) prod_l p(z^l | z^l+1) p(z^L-1), all slots alike and independent; the
top layer, inferred last, is the one that is decoded ("reversed prior++"). I refinement steps then
improve its posterior with the gradient of the loss.

`Emorl` is the model, `EmorlSegregation` its inference (also SRI's first stage), `Refinement` the
refinement network, `AttentionLayer`, `DualGru` and `LayerPrior` the parts of the hierarchy.
Axis legend: B batch, K slots, D slot size, L = 3 layers, F features, N = H*W pixels. Layer 0 is
the bottom one, layer L-1 the top. Everything but convolutions runs in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from sri_cli.models.base import (
    Losses,
    Noise,
    Objective,
    Reconstruction,
    Scene,
    Segregated,
    Segregation,
    SlotVAE,
)
from sri_cli.models.decoders import DECODERS
from sri_cli.models.distributions import Gaussian, kl_divergence, kl_to_standard, sqrt_softplus
from sri_cli.models.layers import (
    FEATURES,
    ConvEncoder,
    full_precision,
    init_small,
    register_uniform,
)
from sri_cli.models.likelihood import ImageLikelihood
from sri_cli.rng import NoiseSpec

LAYERS = 3
HIDDEN = 128
ATTENTION_EPSILON = 1e-8
PUBLISHED_BATCH = 32


class Parameters(NamedTuple):
    """Means and u [B,K,D] of a slot posterior N(mean, sqrt_softplus(u)^2)."""

    mean: Tensor
    u: Tensor

    def gaussian(self) -> Gaussian:
        """The posterior itself; no property, which torch 2.10 cannot compile."""
        return Gaussian(self.mean, sqrt_softplus(self.u))


class Pass(NamedTuple):
    """An image decoded from one posterior: nll and kl [B]."""

    posterior: Gaussian
    slots: Tensor
    scene: Scene
    nll: Tensor
    kl: Tensor

    def detach(self) -> Pass:
        """The same numbers without their graph."""
        return Pass._make(part.detach() for part in self)


class Inference(NamedTuple):
    """All that is inferred from an image."""

    log_masks: Tensor  # [B,K,1,H,W]
    passes: list[Pass]
    posterior: Parameters  # of the last pass
    bottom_kl: Tensor  # [B], the part of the first pass's KL that is of the bottom layer


Explain = Callable[[Parameters], Pass]


class DualGru(nn.Module):
    """Two independent GRUs with the same input: the state of cell 1 are the means, of cell 2 u.

    Weights of the gates hold rows [reset ; update], biases hold [cell 1 ; cell 2].
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        shapes: dict[str, tuple[int, ...]] = {}
        for cell in (1, 2):
            shapes |= {f"weight_{kind}_{cell}": (2 * size, size) for kind in ("ih", "hh")}
            shapes |= {f"weight_{kind}_{cell}": (size, size) for kind in ("in", "hn")}
        shapes |= {f"bias_{kind}": (4 * size,) for kind in ("ih", "hh")}
        shapes |= {f"bias_{kind}": (2 * size,) for kind in ("in", "hn")}
        register_uniform(self, shapes, size**-0.5)

    def forward(self, x: Tensor, state: Parameters) -> Parameters:
        """x [B,K,D] and the states to the next states."""
        return Parameters(self._cell(1, x, state.mean), self._cell(2, x, state.u))

    def _cell(self, cell: int, x: Tensor, state: Tensor) -> Tensor:
        # torch.gru_cell computes the same function of rows [reset ; update ; candidate].
        def rows(gates: str, candidate: str) -> tuple[Tensor, Tensor]:
            weight = [getattr(self, f"weight_{kind}_{cell}") for kind in (gates, candidate)]
            halves = [getattr(self, f"bias_{kind}").chunk(2) for kind in (gates, candidate)]
            return torch.cat(weight), torch.cat([half[cell - 1] for half in halves])

        (w_in, b_in), (w_hidden, b_hidden) = rows("ih", "in"), rows("hh", "hn")
        flat = torch.gru_cell(x.flatten(0, 1), state.flatten(0, 1), w_in, w_hidden, b_in, b_hidden)
        return flat.unflatten(0, x.shape[:2])


class AttentionLayer(nn.Module):
    """Slots compete for pixels; what each gathers updates its posterior."""

    def __init__(self, size: int, features: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(size)
        self.query = nn.Linear(size, size, bias=False)
        self.key = nn.Linear(features, size, bias=False)
        self.value = nn.Linear(features, size, bias=False)
        self.mean_norm, self.u_norm = nn.LayerNorm(size), nn.LayerNorm(size)
        self.mean_mlp, self.u_mlp = (
            nn.Sequential(nn.Linear(size, 2 * size), nn.ReLU(), nn.Linear(2 * size, size))
            for _ in range(2)
        )
        init_small(self)
        self.gru = DualGru(size)

    def forward(
        self, slots: Tensor, state: Parameters, pixels: tuple[Tensor, Tensor]
    ) -> tuple[Parameters, Tensor]:
        """This layer's posterior and the log-attention [B,K,N], a softmax over slots.

        slots [B,K,D]: a sample of the layer before; state: its posterior; pixels: keys and values
        [B,N,D].
        """
        keys, values = pixels
        query = self.query(self.norm(slots)) / slots.shape[-1] ** 0.5
        log_attention = torch.bmm(query, keys.transpose(1, 2)).log_softmax(dim=1)
        attention = log_attention.exp() + ATTENTION_EPSILON
        attention = attention / attention.sum(dim=-1, keepdim=True)
        mean, u = self.gru(torch.bmm(attention, values), state)
        mean = mean + self.mean_mlp(self.mean_norm(mean))
        u = u + self.u_mlp(self.u_norm(u))
        return Parameters(mean, u), log_attention


class LayerPrior(nn.Module):
    """p(z^l | z^l+1): the prior of a layer given the one above it; the same map at every layer."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.hidden = nn.Sequential(nn.Linear(size, HIDDEN), nn.ELU())
        self.mean = nn.Linear(HIDDEN, size)
        self.spread = nn.Linear(HIDDEN, size)
        init_small(self)

    def forward(self, above: Tensor) -> Gaussian:
        """[B,K,D] to a Gaussian [B,K,D]."""
        hidden = self.hidden(above)
        return Gaussian(self.mean(hidden), sqrt_softplus(self.spread(hidden)))


class Refinement(nn.Module):
    """Moves a posterior by the gradient of the loss: (mean, u) += network(mean, u, gradient).

    The training schedule sets the attributes, and they are saved with the weights, so that an
    evaluation refines as training did.

    Attributes:
        steps: Number of refinement steps, at most `most`, which fixes the shape of the noise.
        batch: The gradient is that of the mean over a training batch of this size, whatever the
            batch at hand, so that an image's result does not depend on the others. (The layer
            norm cancels that scale but for its epsilon.)
        error_weight: GECO's weight of the NLL.
    """

    error_weight: Tensor

    def __init__(self, slot_size: int, steps: int) -> None:
        super().__init__()
        self.most = self.steps = steps
        self.batch = PUBLISHED_BATCH
        self.slot_size = slot_size
        self.register_buffer("error_weight", torch.tensor(1.0))
        self.encoder = nn.Sequential(
            nn.Linear(4 * slot_size, HIDDEN), nn.ELU(), nn.Linear(HIDDEN, slot_size)
        )
        self.mean = nn.Linear(slot_size, slot_size)
        self.spread = nn.Linear(slot_size, slot_size)
        init_small(self)
        self.cell = nn.GRUCell(slot_size, slot_size)

    def get_extra_state(self) -> Tensor:
        """[steps, batch]: plain numbers in the state dict, so that no step reads the device."""
        return torch.tensor([self.steps, self.batch])

    def set_extra_state(self, state: Tensor) -> None:
        self.steps, self.batch = state.tolist()

    def forward(
        self, posterior: Parameters, gradient: Parameters, state: Tensor
    ) -> tuple[Parameters, Tensor]:
        """The refined posterior and the next state of the GRU [B*K,D]; gradient [B,K,D] each."""
        with full_precision(posterior.mean):
            slope = [F.layer_norm(part.detach(), (self.slot_size,)) for part in gradient]
            x = self.encoder(torch.cat([*posterior, *slope], dim=-1)).flatten(0, 1)
            state = self.cell(x, state)
            hidden = state.unflatten(0, posterior.mean.shape[:2])
            mean = posterior.mean + self.mean(hidden)
            return Parameters(mean, posterior.u + self.spread(hidden)), state

    def differentiate(self, explain: Explain, posterior: Parameters) -> tuple[Pass, Parameters]:
        """`explain(posterior)`, and the gradient of its loss with respect to `posterior`.

        In training the graph is retained and serves the loss too. Without gradients a graph of
        this pass alone is built and dropped. A compiler cannot differentiate within a graph, but
        it can transform a function, at the price of a second pass.
        """
        if torch.compiler.is_compiling():
            at = [part.detach() for part in posterior]
            slope = torch.func.grad(lambda *p: self.loss(explain(Parameters(*p))), (0, 1))(*at)
            return explain(posterior), Parameters(*slope)
        in_graph = torch.is_grad_enabled() and posterior.mean.requires_grad
        with torch.enable_grad():
            if not in_graph:
                posterior = Parameters(*(part.detach().requires_grad_() for part in posterior))
            decoded = explain(posterior)
            with full_precision(posterior.mean):
                slope = torch.autograd.grad(self.loss(decoded), posterior, retain_graph=in_graph)
        return decoded if in_graph else decoded.detach(), Parameters(*slope)

    def loss(self, decoded: Pass) -> Tensor:
        """kl + error_weight * nll, as a mean over a training batch; GECO's loss but a constant."""
        # GECO moves the weight before the backward pass of the step needs it.
        return (decoded.kl + self.error_weight.clone() * decoded.nll).sum() / self.batch


def differentiated(
    explain: Callable[[Tensor], tuple[Tensor, Scene]], slots: Tensor, decoder: nn.Module
) -> tuple[Tensor, Scene]:
    """`explain(slots)`: the NLL [B] with its gradient at hand, and the scene without one.

    Refinement and the step's own backward pass take the gradient of the same NLL but for a
    factor. So the decoder is differentiated once, at once, and nothing of it is kept but that.
    """
    with torch.enable_grad():
        start = slots.detach().requires_grad_()
        nll, scene = explain(start)
        inputs = [start, *(p for p in decoder.parameters() if p.requires_grad)]
        with full_precision(slots):  # as a step's backward pass, which is outside of autocast
            gradients = torch.autograd.grad(nll.sum(), inputs)
    known: Tensor = _Differentiated.apply(nll.detach(), gradients, slots, *inputs[1:])
    return known, scene.detach()


class _Differentiated(torch.autograd.Function):
    """nll [B], given the gradients of its sum with respect to slots [B,K,D] and parameters.

    That of the parameters is right where the loss weighs all images of the batch alike.
    """

    @staticmethod
    def forward(ctx: Any, nll: Tensor, gradients: Sequence[Tensor], *inputs: Tensor) -> Tensor:
        ctx.save_for_backward(*gradients)
        return nll.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        of_slots, *of_decoder = ctx.saved_tensors
        weights, mean = grads[0], grads[0].mean()
        return None, None, weights[:, None, None] * of_slots, *(mean * g for g in of_decoder)


class EmorlSegregation(Segregation):
    """Images to a slot posterior; the slots start alike but for their noise."""

    geco: Literal["genesis", "emorl"] = "emorl"

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
        """`decoder`: a name of DECODERS."""
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

    @property
    def refinement(self) -> Refinement:
        return self.refine

    def noise(self) -> dict[str, NoiseSpec]:
        """Its shapes do not depend on the number of refinement steps in use."""
        return {
            "initial_slots": NoiseSpec(self.shape),
            "layers": NoiseSpec((LAYERS, *self.shape)),
            "kl_layers": NoiseSpec((LAYERS - 1, *self.shape)),
            "refinement": NoiseSpec((self.refine.most, *self.shape)),
        }

    def forward(
        self, images: Tensor, noise: Noise, gaussian_likelihood: bool = False
    ) -> Segregated:
        inferred = self.infer(images, noise, gaussian_likelihood)
        *earlier, last = inferred.passes
        return Segregated(
            last.posterior,
            last.slots,
            inferred.log_masks,
            last.nll,
            last.kl,
            tuple((decoded.nll, decoded.kl) for decoded in earlier),
        )

    def infer(
        self, images: Tensor, noise: Noise, gaussian_likelihood: bool = False, scored: bool = True
    ) -> Inference:
        """images [B,3,H,W] in [0,1]; `scored`: with the last pass.

        The first pass decodes the top layer, with the KL of the whole hierarchy; the others decode
        a refined posterior q, with that of the bottom layer alone:

            first  KL(q_2 || N(0, I)) + KL(q_1 || p(. | z^2)) + KL(q_0 || p_0),   p_0 = p(. | z^1)
            later  KL(q || p_0)

        with fresh samples z^l of q_l. Without gradients, too: it makes its own, but not in
        inference mode, whose tensors can have none.
        """
        in_graph = torch.is_grad_enabled() and not torch.compiler.is_compiling()
        decoder: Callable[[Tensor], Scene] = self.decoder
        if not torch.is_grad_enabled():
            # Functions of Python would be differentiated by the parameters, too.
            fixed = {name: value.detach() for name, value in self.decoder.named_parameters()}
            decoder = partial(torch.func.functional_call, self.decoder, fixed)

        def explain_slots(slots: Tensor) -> tuple[Tensor, Scene]:
            scene = decoder(slots)
            return self.likelihood.nll(images, scene, gaussian_likelihood), scene

        def decode(q: Gaussian, fresh: Tensor, kl: Tensor) -> Pass:
            slots = q.sample(fresh)
            if in_graph:
                nll, scene = differentiated(explain_slots, slots, self.decoder)
            else:
                nll, scene = explain_slots(slots)
            return Pass(q, slots, scene, nll, kl.sum(dim=1))

        (bottom, middle, posterior), log_masks = self.hierarchy(images, noise)
        above_middle, above_bottom = noise["kl_layers"].unbind(dim=1)
        q_middle = middle.gaussian()
        with full_precision(posterior.mean):
            bottom_prior = self.prior(q_middle.sample(above_bottom))
            bottom_kl = kl_divergence(bottom.gaussian(), bottom_prior)

        def explain_top(top: Parameters) -> Pass:
            q = top.gaussian()
            with full_precision(q.mean):
                kl = kl_to_standard(q)
                kl = kl + kl_divergence(q_middle, self.prior(q.sample(above_middle)))
            return decode(q, noise["layers"][:, -1], kl + bottom_kl)

        def explain_refined(fresh: Tensor, refined: Parameters) -> Pass:
            q = refined.gaussian()
            with full_precision(q.mean):
                kl = kl_divergence(q, bottom_prior)
            return decode(q, fresh, kl)

        explain: Explain = explain_top
        state = torch.zeros_like(posterior.mean, dtype=torch.float32).flatten(0, 1)
        passes: list[Pass] = []
        for fresh in noise["refinement"].unbind(dim=1)[: self.refine.steps]:
            decoded, slope = self.refine.differentiate(explain, posterior)
            passes.append(decoded)
            posterior, state = self.refine(posterior, slope, state)
            explain = partial(explain_refined, fresh)
        if scored:
            passes.append(explain(posterior))
        return Inference(log_masks, passes, posterior, bottom_kl.sum(dim=1))

    def unscored(self, images: Tensor, noise: Noise) -> Segregated:
        inferred = self.infer(images, noise, scored=False)
        steps, posterior = self.refine.steps, inferred.posterior.gaussian()
        fresh = noise["refinement"][:, steps - 1] if steps else noise["layers"][:, -1]
        return Segregated(posterior, posterior.sample(fresh), inferred.log_masks)

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

    def draw(self, noise: Tensor, temperature: float = 1.0) -> Tensor:
        """Slots [B,K,D] from the top prior down to the bottom one; noise [B,K,L,D]."""
        with full_precision(noise):
            top, *lower = noise.unbind(dim=2)
            slots = temperature * top
            for fresh in lower:
                slots = self.prior(slots).sample(fresh, temperature)
        return slots


class Emorl(SlotVAE):
    """The complete generative model."""

    objective_names = ("emorl",)
    independent_slots = True
    segregate: EmorlSegregation

    def __init__(self, segregation: EmorlSegregation) -> None:
        slots, slot_size = segregation.shape
        super().__init__(
            image_size=segregation.image_size,
            slots=slots,
            slot_size=slot_size,
            likelihood=segregation.likelihood,
            segregation=segregation,
        )

    def sampling_noise(self, slots: int) -> dict[str, NoiseSpec]:
        # The slot axis comes first, so that fewer slots are a prefix of more.
        return {"slots": NoiseSpec((slots, LAYERS, self.slot_size))}

    def losses(self, images: Tensor, noise: Noise, gaussian_likelihood: bool = False) -> Losses:
        """The objective is that of the last pass; GECO weighs the earlier ones in (`EmorlGeco`).

        A refined pass leaves out the layers above the bottom, which a bound on log p(x) may not:
        -ELBO = nll + kl + kl_upper.
        """
        inferred = self.segregate.infer(images, noise, gaussian_likelihood)
        first, last = inferred.passes[0], inferred.passes[-1]
        earlier = tuple((decoded.nll, decoded.kl) for decoded in inferred.passes[:-1])
        upper = first.kl - inferred.bottom_kl if earlier else torch.zeros_like(first.kl)
        return Losses(
            objectives=(Objective("emorl", last.nll, last.kl, earlier),),
            terms={
                "nll": last.nll,
                "kl": last.kl,
                "kl_upper": upper.detach(),
                "nll_first": first.nll,
                "kl_first": first.kl,
            },
            bound=("nll", "kl", "kl_upper"),
        )

    def reconstruct(self, images: Tensor, noise: Noise) -> Reconstruction:
        inferred = self.segregate.infer(images, noise)
        last = inferred.passes[-1]
        attention = inferred.log_masks.exp()
        return Reconstruction(scene=last.scene, attention=attention, slots=last.slots)

    def _draw(
        self, noise: Noise, temperature: float, scene: Tensor | None, given: Tensor | None
    ) -> Tensor:
        """N(0, t^2 I) at the top layer, then down with every standard deviation times t.

        Slots are independent: `given` ones do not change the others.
        """
        return self.segregate.draw(noise["slots"], temperature)

    def decode(self, slots: Tensor) -> Scene:
        return self.segregate.decoder(slots)
