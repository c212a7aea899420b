"""GENESIS against numbers of the official implementation (tests/golden/README.md)."""

from __future__ import annotations

import pytest

from sri_cli.models.genesis import Genesis
from sri_cli.models.likelihood import ImageLikelihood
from sri_cli.models.official import our_name
from tests.golden_numbers import Golden, check

# A bias before a BatchNorm shifts what is centred at once, so its gradient is exactly 0.
BEFORE_NORM = tuple(
    f"att_process.core.{layer}.conv.bias"
    for layer in [*(f"q_z_nn.{i}" for i in range(5)), *(f"p_x_nn.{i}" for i in range(1, 6))]
)


@pytest.fixture(scope="module")
def golden() -> Golden:
    return Golden("genesis_tiny.npz", "genesis")


@pytest.fixture
def model(golden: Golden) -> Genesis:
    config = golden.json("config")
    built = Genesis(
        image_size=config["img_size"],
        slots=config["K_steps"],
        slot_size=config["attention_latents"],
        component_size=config["comp_ldim"],
        component_channels=config["comp_enc_channels"],
        likelihood=ImageLikelihood("mog", config["pixel_std1"], normalised=True),
    )
    return golden.fill(built.train())  # type: ignore[return-value]


@pytest.fixture(scope="module")
def noise(golden: Golden) -> dict:
    mask = golden["noise/mask"]
    batch, slots = mask.shape[:2]
    component = golden["noise/component"].unflatten(0, (slots, batch)).transpose(0, 1)
    return {"mask": mask, "component": component}


def test_infers_what_the_official_code_infers(golden: Golden, model: Genesis, noise: dict) -> None:
    found = model.infer(golden["x"], noise)
    check(found.mask_posterior.mean, golden["mask/mu"], "mask mean")
    check(found.mask_posterior.std, golden["mask/sigma"], "mask deviation")
    check(found.mask_latents, golden["mask/z"], "mask latents")
    check(found.scene.log_masks, golden["log_masks"], "log-masks")
    check(found.component_posterior.mean, golden["component/mu"], "component mean")
    check(found.component_posterior.std, golden["component/sigma"], "component deviation")
    check(found.component_latents, golden["component/z"], "component latents")
    check(found.scene.rgb, golden["rgb"], "rgb")
    check(found.scene.image, golden["recon"], "recon")


def test_priors_and_their_kls(golden: Golden, model: Genesis, noise: dict) -> None:
    found = model.infer(golden["x"], noise)
    masks, _ = model.mask_prior(found.mask_latents, noise)
    check(masks.mean, golden["mask/prior_mu"], "mask prior mean")
    check(masks.std, golden["mask/prior_sigma"], "mask prior deviation")
    components = model.component_prior(found.mask_latents)
    check(components.mean, golden["component/prior_mu"], "component prior mean")
    check(components.std, golden["component/prior_sigma"], "component prior deviation")
    kl_mask, kl_component = model.slot_kls(found, masks)
    check(kl_mask, golden["loss/kl_mask"], "mask KL")
    check(kl_component, golden["loss/kl_component"], "component KL")


def test_losses_and_gradients(golden: Golden, model: Genesis, noise: dict) -> None:
    losses = model(golden["x"], noise)
    check(losses.terms["nll"], golden["loss/nll"], "nll")
    (objective,) = losses.objectives
    total = (objective.error + objective.kl).mean()
    check(total, golden["loss/total"], "total")
    total.backward()
    golden.check_gradients(model, zero=BEFORE_NORM)


def test_every_entry_of_an_official_state_has_its_place(golden: Golden, model: Genesis) -> None:
    """Parameters and the buffers of BatchNorm."""
    official = [name for name, _ in golden.json("parameters")]
    norms = [name.removesuffix("weight") for name in official if name.endswith("norm.weight")]
    for buffer in ("running_mean", "running_var", "num_batches_tracked"):
        official += [norm + buffer for norm in norms]
    assert {our_name("genesis", name) for name in official} == set(model.state_dict())
