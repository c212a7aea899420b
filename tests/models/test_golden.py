"""Our models against numbers of the official implementations (tests/golden/README.md)."""

from __future__ import annotations

import pytest
import torch

from sri_cli.models.build import build_model
from sri_cli.models.distributions import log_prob_standard
from sri_cli.training.geco import Geco
from tests.golden_numbers import Golden, check

# Colours enter as differences, so this gradient is exactly 0.
COLOUR_BIAS = ("colour_head.conv.bias",)


@pytest.fixture(scope="module")
def sri():
    golden = Golden("sri_mog_tiny.npz", "sri")
    model = build_model("sri", image_size=32, slots=4, slot_size=16, scene_size=32)
    return golden, golden.fill(model)


def test_sri_infers_what_the_official_code_infers(sri) -> None:
    golden, model = sri
    noise = sri_noise(golden)
    found = model.infer(golden["x"], noise)
    segregated = found.segregated
    check(segregated.log_masks, golden["segregate/log_masks"], "attention")
    check(segregated.posterior.mean, golden["segregate/mu"], "mu")
    check(segregated.posterior.std, golden["segregate/sigma"], "sigma")
    check(segregated.slots, golden["segregate/z"], "z")
    check(segregated.scene.rgb, golden["segregate/decoded_rgb"], "rgb")
    check(segregated.scene.log_masks, golden["segregate/decoded_log_masks"], "masks")
    check(segregated.scene.image, golden["segregate/recon"], "recon")
    check(segregated.nll, golden["segregate/nll"], "nll")
    kl = segregated.posterior.log_prob(segregated.slots) - log_prob_standard(segregated.slots)
    check(kl, golden["segregate/kl"], "kl")
    assert torch.equal(found.order, golden["imagine/order"])
    check(found.posterior.mean, golden["imagine/mu_ordered"], "ordered means")
    check(found.rollout, golden["imagine/z_rollout"], "rollout")
    check(found.slots, golden["imagine/z_ordered"], "ordered slots")
    check(model.decoder(found.slots).image, golden["imagine/recon"], "recon")


def sri_noise(golden: Golden) -> dict[str, torch.Tensor]:
    names = {"segregation": "segregate"}
    wanted = ("rand_pixel", "segregation", "scene", "rollout", "posterior")
    return {name: golden[f"noise/{names.get(name, name)}"] for name in wanted}


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
    latent = golden["sample/scene_latent"]
    _, slots = model.prior.rollout(latent, golden["sample/noise"], temperature)
    check(slots, golden["sample/z"], "slots")
    # `sample` scales the scene noise by the temperature; the golden latent is used as it is.
    noise = {"scene": latent / temperature, "slots": golden["sample/noise"]}
    scene = model.sample(noise, temperature)
    check(scene.image, golden["sample/image"], "image")
    check(scene.log_masks, golden["sample/log_masks"], "masks")


def test_genesis_v2_alone() -> None:
    golden = Golden("genesis_v2_tiny.npz", "genesis-v2")
    model = golden.fill(build_model("genesis-v2", image_size=32, slots=4, slot_size=16))
    noise = {"rand_pixel": golden["noise/rand_pixel"], "segregation": golden["noise/slots"]}
    found = model.segregate(golden["x"], noise)
    check(found.log_masks, golden["log_masks"], "attention")
    check(found.scene.log_masks, golden["decoded_log_masks"], "masks")
    check(found.scene.rgb, golden["decoded_rgb"], "rgb")
    check(found.scene.image, golden["recon"], "recon")
    check(found.posterior.mean, golden["mu"], "mu")
    check(found.posterior.std, golden["sigma"], "sigma")
    check(found.slots, golden["z"], "z")
    check(model.slot_kls(found.posterior, found.slots), golden["loss/kl"], "kl")
    losses = model(golden["x"], noise)
    check(losses.terms["nll"], golden["loss/nll"], "nll")
    total = (losses.terms["nll"] + losses.terms["kl"]).mean()
    check(total, golden["loss/total"], "total")
    total.backward()
    golden.check_gradients(model, zero=COLOUR_BIAS)
