"""EfficientMORL against numbers of the official implementation (tests/golden/README.md)."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sri_cli.models.emorl import Emorl, EmorlSegregation
from sri_cli.models.likelihood import ImageLikelihood
from sri_cli.models.official import our_name
from sri_cli.training.geco import EmorlGeco
from tests.golden_numbers import Golden, check


class EmorlGolden(Golden):
    """The official model keeps GECO's two scalars among its parameters; ours does not."""

    def json(self, key: str) -> Any:
        value = super().json(key)
        if key != "parameters":
            return value
        return [[name, shape] for name, shape in value if not name.startswith("geco_")]

    def geco(self) -> EmorlGeco:
        """As it stood before the step."""
        config = self.json("config")
        geco = EmorlGeco(config["geco_target_per_element"], 1e-6, 16)
        state = {"geco_C_ema": self["geco/c_ema"]}
        state["geco_beta"] = torch.tensor(self.json("kept_scalars")["geco_beta"])
        for name, value in state.items():
            geco.get_buffer(our_name("emorl", name).rpartition(".")[2]).copy_(value)
        geco.seen.fill_(1)
        return geco


@pytest.fixture
def emorl() -> tuple[EmorlGolden, Emorl]:
    golden = EmorlGolden("emorl_tiny.npz", "emorl")
    config = golden.json("config")
    model = Emorl(
        EmorlSegregation(
            image_size=16,
            slots=config["K"],
            slot_size=config["z_size"],
            decoder=config["image_decoder"],
            likelihood=ImageLikelihood("gaussian", 0.1, normalised=False),
            refinements=config["refinement_iters"],
        )
    )
    golden.fill(model)
    model.segregate.refine.batch = config["batch_size"]
    model.segregate.refine.error_weight.copy_(golden.geco().error_weight())
    return golden, model


def noise(golden: EmorlGolden) -> dict[str, torch.Tensor]:
    """Batch first."""
    draws = {name: golden[f"noise/{name}"] for name in ("layers", "kl_layers", "refinement")}
    return {
        "initial_slots": golden["noise/initial_slots"],
        **{name: draw.transpose(0, 1) for name, draw in draws.items()},
    }


def check_scenes(golden: EmorlGolden, model: Emorl) -> None:
    first, *_, last = model.segregate.infer(golden["x01"], noise(golden)).passes
    check(first.scene.rgb, golden["first/rgb"], "first rgb")
    check(first.scene.log_masks, golden["first/log_masks"], "first masks")
    check(last.scene.rgb, golden["rgb"], "rgb")
    check(last.scene.log_masks, golden["log_masks"], "masks")


def test_emorl_infers_and_refines_what_the_official_code_does(emorl) -> None:
    check_scenes(*emorl)
    with torch.no_grad():
        check_scenes(*emorl)


def test_emorl_losses_geco_and_gradients(emorl) -> None:
    golden, model = emorl
    losses = model(golden["x01"], noise(golden))
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
    # A bias of the slots' norm moves every query alike, so this gradient is exactly 0.
    golden.check_gradients(model, zero=("norm_slots.bias",))
