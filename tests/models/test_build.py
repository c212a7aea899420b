"""Every switch of a recipe reaches the model; what no golden number sees of how it is made."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from sri_cli.config.load import load_recipe
from sri_cli.models.build import build_model
from sri_cli.models.decoders import BigDecoder, BroadcastDecoder, IodineDecoder
from sri_cli.models.genesis_v2 import initial_log_sigma

KERNELS = ("gaussian", "laplacian", "epanechnikov")


def made(name: str, *words: str) -> Any:
    torch.manual_seed(0)
    return build_model(**load_recipe(name, None, words).model.model_dump())


def test_the_ablations_are_those_of_table_3() -> None:
    full = made("sri-g")
    assert full.relate is not None and full.posterior is not None and full.cross_order
    no_scene = made("sri-g-no-scene")
    assert no_scene.relate is None and no_scene.posterior is not None and no_scene.cross_order
    no_alignment = made("sri-g-no-alignment")
    assert no_alignment.relate is not None and no_alignment.posterior is None
    assert not no_alignment.cross_order
    no_cross_order = made("sri-g-no-cross-order")
    assert no_cross_order.relate is not None and no_cross_order.posterior is not None
    assert not no_cross_order.cross_order


def test_sri_decodes_as_its_segregation_does() -> None:
    for name, words, kind in [
        ("sri-mog", [], BroadcastDecoder),
        ("sri-sa", [], BroadcastDecoder),
        ("sri-emorl", ["model.decoder=null"], IodineDecoder),
        ("sri-emorl", ["model.decoder=big"], BigDecoder),
    ]:
        model = made(name, *words)
        assert isinstance(model.decoder, kind), name
        own = getattr(model.segregate, "decoder", model.decoder)
        assert isinstance(own, kind) and (own is model.decoder) == (name == "sri-sa")


def small_init(module: nn.Module) -> bool:
    """Whether a layer is Xavier normal with gain 0.02 and without a bias."""
    fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(module.weight)
    wanted = 0.02 * math.sqrt(2 / (fan_in + fan_out))
    near = abs(float(module.weight.detach().std()) / wanted - 1) < 0.2
    return near and (module.bias is None or not module.bias.any())


def layers(*parts: nn.Module) -> list[nn.Module]:
    kinds = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)
    return [layer for part in parts for layer in part.modules() if isinstance(layer, kinds)]


def test_sri_starts_small_and_what_is_around_it_does_not() -> None:
    model = made("sri-mog")
    for layer in layers(model.relate, model.prior, model.posterior):
        assert small_init(layer), layer
    for layer in layers(model.segregate, model.decoder):
        assert not small_init(layer), layer


@pytest.mark.parametrize("decoder", ["iodine", "big"])
def test_emorl_starts_small_but_for_its_memories_and_place_codes(decoder: str) -> None:
    stage = made("emorl", f"model.decoder={decoder}").segregate
    small = [stage.encoder.convolutions, stage.encoder.head, stage.layer, stage.prior]
    small += [stage.refine, stage.decoder]
    assert all(small_init(layer) for layer in layers(*small))
    assert not small_init(stage.encoder.position)
    bound = 64**-0.5
    for memory in (stage.layer.gru, stage.refine.cell):
        for parameter in memory.parameters():
            assert float(parameter.detach().std()) == pytest.approx(bound / math.sqrt(3), rel=0.2)


def test_kernels_are_as_wide_as_equal_segments_want() -> None:
    """At 1/K of the squared range an affinity of one half; the published starts."""
    for slots in (4, 9):
        widths = {kind: math.exp(initial_log_sigma(kind, slots)) for kind in KERNELS}
        assert math.exp(-1 / slots / widths["gaussian"]) == pytest.approx(0.5)
        assert math.exp(-math.sqrt(1 / slots) / widths["laplacian"]) == pytest.approx(0.5)
        assert 1 - 1 / slots / widths["epanechnikov"] == pytest.approx(0.5)
