"""Our models against numbers of the official implementations (tests/golden/README.md)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from sri_cli.models.build import build_model
from sri_cli.models.distributions import kl_divergence, log_prob_standard
from sri_cli.models.emorl import Emorl
from sri_cli.models.genesis import Genesis
from sri_cli.models.likelihood import ImageLikelihood
from sri_cli.models.official import our_name
from sri_cli.models.slot_vae import SlotVae
from sri_cli.training.geco import EmorlGeco, Geco
from tests.golden_numbers import Golden, check, formula

# Gradients that are exactly 0: colours enter as differences; a BatchNorm centres what the bias
# before it shifts; a bias of the slots' norm moves every query alike.
COLOUR_BIAS = ("colour_head.conv.bias",)
BEFORE_NORM = tuple(
    f"att_process.core.{layer}.conv.bias"
    for layer in [*(f"q_z_nn.{i}" for i in range(5)), *(f"p_x_nn.{i}" for i in range(1, 6))]
)
QUERY_BIAS = ("norm_slots.bias",)


def check_all(ours: dict[str, Tensor], golden: Golden) -> None:
    """Every tensor against the golden one of the same key."""
    for key, value in ours.items():
        check(value, golden[key], key)


# SRI ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sri():
    golden = Golden("sri_mog_tiny.npz", "sri")
    model = build_model("sri", image_size=32, slots=4, slot_size=16, scene_size=32)
    return golden, golden.fill(model)


def sri_noise(golden: Golden) -> dict[str, Tensor]:
    names = ("rand_pixel", "scene", "rollout", "posterior")
    own = {name: golden[f"noise/{name}"] for name in names}
    return own | {"segregation": golden["noise/segregate"]}


def test_sri_infers_what_the_official_code_infers(sri) -> None:
    golden, model = sri
    inferred = model.infer(golden["x"], sri_noise(golden))
    first = inferred.segregated
    decoded = model.segregate.decoder(first.slots)
    own = {
        "segregate/log_masks": first.log_masks,
        "segregate/mu": first.posterior.mean,
        "segregate/sigma": first.posterior.std,
        "segregate/z": first.slots,
        "segregate/decoded_rgb": decoded.rgb,
        "segregate/decoded_log_masks": decoded.log_masks,
        "segregate/recon": decoded.image,
        "segregate/nll": first.nll,
        "segregate/kl": first.posterior.log_prob(first.slots) - log_prob_standard(first.slots),
        "imagine/mu_ordered": inferred.posterior.mean,
        "imagine/z_rollout": inferred.rollout,
        "imagine/z_ordered": inferred.slots,
        "imagine/recon": model.decoder(inferred.slots).image,
    }
    check_all(own, golden)
    assert torch.equal(inferred.order, golden["imagine/order"])


def test_sri_losses_geco_and_gradients(sri) -> None:
    golden, model = sri
    config = golden.json("config")
    model.zero_grad()
    losses = model(golden["x"], sri_noise(golden))
    check(losses.terms["nll"], golden["loss/nll"], "nll")
    check(losses.terms["kl_scene"], golden["loss/kl_scene"], "scene KL")
    check(losses.terms["kl_slot"], golden["loss/kl_slot"], "slot KL")
    check(losses.terms["kl_cross_order"], golden["loss/kl_rollout"], "cross-order KL")
    gecos = [
        Geco(
            config["geco_target_per_element"],
            image_size=32,
            lr=config["geco_lr"],
            speedup=config["geco_speedup"],
        )
        for _ in losses.objectives
    ]
    total = sum(geco(objective) for geco, objective in zip(gecos, losses.objectives, strict=True))
    check(total, golden["loss/total"], "total")
    total.backward()
    for geco, objective in zip(gecos, losses.objectives, strict=True):
        geco.update(objective.error.detach().mean())
    check(torch.stack([geco.beta for geco in gecos]), golden["geco/beta_after"], "beta")
    golden.check_gradients(model, zero=COLOUR_BIAS)


def test_sri_samples_at_temperature(sri) -> None:
    golden, model = sri
    temperature = float(golden["sample/temperature"])
    noise = {"slots": golden["sample/noise"]}
    slots = model.slots(noise, temperature, scene=golden["sample/scene_latent"])
    check(slots, golden["sample/z"], "slots")
    scene = model.decode(slots)
    check(scene.image, golden["sample/image"], "image")
    check(scene.log_masks, golden["sample/log_masks"], "masks")


# GENESIS-v2 ---------------------------------------------------------------------------------


def test_genesis_v2_alone() -> None:
    golden = Golden("genesis_v2_tiny.npz", "genesis-v2")
    model = golden.fill(build_model("genesis-v2", image_size=32, slots=4, slot_size=16))
    noise = {"rand_pixel": golden["noise/rand_pixel"], "segregation": golden["noise/slots"]}
    inferred = model.segregate(golden["x"], noise)
    prior, decoded = model.prior.teacher_forced(inferred.slots), model.decode(inferred.slots)
    own = {
        "log_masks": inferred.log_masks,
        "decoded_log_masks": decoded.log_masks,
        "decoded_rgb": decoded.rgb,
        "recon": decoded.image,
        "mu": inferred.posterior.mean,
        "sigma": inferred.posterior.std,
        "z": inferred.slots,
        "loss/kl": inferred.posterior.log_prob(inferred.slots) - prior.log_prob(inferred.slots),
    }
    check_all(own, golden)
    losses = model(golden["x"], noise)
    check(losses.terms["nll"], golden["loss/nll"], "nll")
    total = (losses.terms["nll"] + losses.terms["kl"]).mean()
    check(total, golden["loss/total"], "total")
    total.backward()
    golden.check_gradients(model, zero=COLOUR_BIAS)


# GENESIS ------------------------------------------------------------------------------------


@pytest.fixture
def genesis() -> tuple[Golden, Genesis, dict[str, Tensor]]:
    golden = Golden("genesis_tiny.npz", "genesis")
    config = golden.json("config")
    model = build_model(
        "genesis",
        image_size=config["img_size"],
        slots=config["K_steps"],
        slot_size=config["attention_latents"],
        component_size=config["comp_ldim"],
        component_channels=config["comp_enc_channels"],
        std=config["pixel_std1"],
    )
    mask = golden["noise/mask"]
    batch, slots = mask.shape[:2]
    component = golden["noise/component"].unflatten(0, (slots, batch)).transpose(0, 1)
    return golden, golden.fill(model.train()), {"mask": mask, "component": component}


def test_genesis_infers_what_the_official_code_infers(genesis) -> None:
    golden, model, noise = genesis
    inferred = model.infer(golden["x"], noise)
    z, c = inferred.mask_latents, inferred.component_latents
    prior, component_prior = model.prior.teacher_forced(z), model.component_prior(z)
    own = {
        "mask/mu": inferred.mask_posterior.mean,
        "mask/sigma": inferred.mask_posterior.std,
        "mask/z": z,
        "mask/prior_mu": prior.mean,
        "mask/prior_sigma": prior.std,
        "log_masks": inferred.scene.log_masks,
        "component/mu": inferred.component_posterior.mean,
        "component/sigma": inferred.component_posterior.std,
        "component/z": c,
        "component/prior_mu": component_prior.mean,
        "component/prior_sigma": component_prior.std,
        "rgb": inferred.scene.rgb,
        "recon": inferred.scene.image,
        "loss/kl_mask": inferred.mask_posterior.log_prob(z) - prior.log_prob(z),
        "loss/kl_component": inferred.component_posterior.log_prob(c) - component_prior.log_prob(c),
    }
    check_all(own, golden)


def test_genesis_losses_and_gradients(genesis) -> None:
    golden, model, noise = genesis
    losses = model(golden["x"], noise)
    check(losses.terms["nll"], golden["loss/nll"], "nll")
    (objective,) = losses.objectives
    total = (objective.error + objective.kl).mean()
    check(total, golden["loss/total"], "total")
    total.backward()
    golden.check_gradients(model, zero=BEFORE_NORM)


# EMORL --------------------------------------------------------------------------------------


class EmorlGolden(Golden):
    """The official model has GECO's two scalars among its parameters; ours does not."""

    def json(self, key: str) -> Any:
        value = super().json(key)
        if key != "parameters":
            return value
        return [[name, shape] for name, shape in value if not name.startswith("geco_")]

    def geco(self) -> EmorlGeco:
        """As it was before the step."""
        config = self.json("config")
        geco = EmorlGeco(config["geco_target_per_element"], 1e-6, 16)
        state = {"geco_C_ema": self["geco/c_ema"]}
        state["geco_beta"] = torch.tensor(self.json("kept_scalars")["geco_beta"])
        for name, value in state.items():
            geco.get_buffer(our_name("emorl", name).rpartition(".")[2]).copy_(value)
        geco.seen.fill_(1)
        return geco

    def noise(self) -> dict[str, Tensor]:
        """Batch first."""
        draws = {name: self[f"noise/{name}"] for name in ("layers", "kl_layers", "refinement")}
        first = {"initial_slots": self["noise/initial_slots"]}
        return first | {name: draw.transpose(0, 1) for name, draw in draws.items()}


@pytest.fixture
def emorl() -> tuple[EmorlGolden, Emorl]:
    golden = EmorlGolden("emorl_tiny.npz", "emorl")
    config = golden.json("config")
    model = build_model(
        "emorl",
        image_size=16,
        slots=config["K"],
        slot_size=config["z_size"],
        decoder=config["image_decoder"],
        likelihood="gaussian",
        std=0.1,
        normalised=False,
        refinements=config["refinement_iters"],
    )
    golden.fill(model)
    model.refinement.batch = config["batch_size"]
    model.refinement.error_weight.copy_(golden.geco().error_weight())
    return golden, model


def test_emorl_infers_and_refines_what_the_official_code_does(emorl) -> None:
    golden, model = emorl
    first, *_, last = model.segregate.infer(golden["x01"], golden.noise()).passes
    own = {"first/rgb": first.scene.rgb, "first/log_masks": first.scene.log_masks}
    check_all(own | {"rgb": last.scene.rgb, "log_masks": last.scene.log_masks}, golden)


def test_emorl_losses_geco_and_gradients(emorl) -> None:
    golden, model = emorl
    losses = model(golden["x01"], golden.noise())
    check(losses.terms["nll"].mean(), golden["loss/nll"], "nll")
    check(losses.terms["kl"].mean(), golden["loss/kl"], "kl")
    geco = golden.geco()
    (objective,) = losses.objectives
    total = geco(objective)
    check(total, golden["loss/total"], "total")
    total.backward()
    geco.update(objective.error.detach().mean())
    check(geco.gap_ema, golden["geco/c_ema_after"], "C_ema")
    check(geco.beta, golden["geco/beta_after"], "beta")
    golden.check_gradients(model, zero=QUERY_BIAS)


# Slot-VAE -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def slot_vae() -> tuple[Golden, SlotVae, dict[str, Tensor]]:
    golden = Golden("slot_vae_tiny.npz", "slot-vae")
    config = golden.json("config")
    model = SlotVae(
        image_size=config["image_size"],
        slots=config["slots"],
        slot_size=config["slot_dim"],
        scene_size=config["scene_steps"] * config["scene_dim"],
        likelihood=ImageLikelihood("gaussian", config["pixel_std"], True),
        feature_channels=config["channels"],
        decoder_channels=config["channels"],
        steps=config["scene_steps"],
        width=config["mlp_width"],
    )
    names = {"kl_scene": "scene", "kl_slot": "slot", "kl_auxiliary": "aux"}
    model.weights = {ours: config[f"beta_{theirs}"] for ours, theirs in names.items()}
    golden.fill(model)
    for name, shape in golden.json("buffers"):
        model.get_buffer(our_name("slot-vae", name)).copy_(formula(name, shape))
    return golden, model, slot_vae_noise(golden, "noise/scene", "noise/slots_init", "noise/slots")


def slot_vae_noise(golden: Golden, scene: str, initial: str, slots: str) -> dict[str, Tensor]:
    noise = {"scene": golden[scene].flatten(1), "initial": golden[initial]}
    return noise | {"slots": golden[slots]}


def test_slot_vae_infers_what_the_official_code_infers(slot_vae) -> None:
    golden, model, noise = slot_vae

    def part(features: Tensor) -> Tensor:
        return features.transpose(1, 2).unflatten(2, (64, 64))[:, ::4, ::8, ::8]

    features = model.encoder(golden["x"])
    posterior, _, drawn = model._infer(golden["x"], noise)
    prior = model._imagine(drawn, noise)
    made = model.reconstruct(golden["x"], noise)
    own = {
        "encoder/features_sub": part(features),
        "encoder/scene_features": model.draw.seen(features),
        "scene/feature_map": drawn.canvas,
        "scene/decoded_features_sub": part(model.draw.imagined_features(drawn.canvas)),
        "scene/z": drawn.latents,
        "scene/p_mean": drawn.prior.mean,
        "scene/p_std": drawn.prior.std,
        "scene/q_mean": drawn.posterior.mean,
        "scene/q_std": drawn.posterior.std,
        "slots/q_mean": posterior.mean,
        "slots/q_std": posterior.std,
        "slots/p_mean": prior.mean,
        "slots/p_std": prior.std,
        "slots/z": made.slots,
        "recon": made.scene.image,
        "rgb": made.scene.rgb,
        "log_masks": made.scene.log_masks,
        "loss/kl_scene": kl_divergence(drawn.posterior, drawn.prior),
    }
    check_all(own, golden)
    imagined = model.decode(prior.sample(golden["noise/slots_from_scene"]))
    check(imagined.image, golden["from_scene/recon"], "from the scene")
    check(imagined.log_masks, golden["from_scene/log_masks"], "masks from the scene")
    nll = model.likelihood.nll(golden["x"], imagined)
    check(-nll, golden["from_scene/log_prob"], "likelihood from the scene")


def test_slot_vae_losses_and_gradients(slot_vae) -> None:
    golden, model, noise = slot_vae
    model.zero_grad()
    losses = model(golden["x"], noise)
    check(losses.terms["nll"], golden["loss/nll"], "nll")
    check(losses.terms["kl_scene"], golden["loss/kl_scene"].sum(dim=1), "scene KL")
    check(losses.terms["kl_slot"], golden["loss/kl_slot"], "slot KL")
    check(losses.terms["kl_auxiliary"], golden["loss/kl_aux"], "auxiliary KL")
    (objective,) = losses.objectives
    total = (objective.error + objective.kl).mean()
    check(total, golden["loss/total"], "total")
    total.backward()
    golden.check_gradients(model, zero=QUERY_BIAS)


def test_slot_vae_samples(slot_vae) -> None:
    golden, model, _ = slot_vae
    drawn = ("sample/noise_scene", "sample/slots_init", "sample/noise_slots")
    noise = slot_vae_noise(golden, *drawn)
    latents = model.drawn_scene(noise, 1.0, None)
    check(latents, golden["sample/scene_latent"].flatten(1), "scene latent")
    check(model.slots(noise, scene=latents), golden["sample/slots"], "slots")
    scene = model.decode(model.slots(noise))
    check(scene.image, golden["sample/image"], "image")
    check(scene.log_masks, golden["sample/log_masks"], "masks")
