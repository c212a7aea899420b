"""Learning the stack networks: repeatable, and it learns."""

from __future__ import annotations

import json

import numpy as np
import torch
from click.testing import CliRunner

from sri_cli.cli.main import cli
from sri_cli.metrics.stack_classifiers.model_like import model_like, mush
from sri_cli.metrics.stack_classifiers.network import from_bytes
from sri_cli.metrics.stack_classifiers.pictures import factor_pictures, touching_pictures
from sri_cli.metrics.stack_classifiers.training import Settings, to_bytes, train_stack_net


def test_training_is_a_function_of_the_seed_and_learns():
    pictures = factor_pictures(160, seed=3)
    losses: list[float] = []
    settings = Settings(steps=100, batch=32)
    network = train_stack_net(
        "factors", pictures, settings, advance=lambda _, loss: losses.append(loss)
    )
    assert losses[-1] < 0.8 * losses[0]
    again = train_stack_net("factors", pictures, settings)
    assert to_bytes(again) == to_bytes(network)
    reloaded = from_bytes("factors", to_bytes(network))
    images = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(
        reloaded.features(images), network.features(images), atol=0.05, rtol=0.05
    )


def test_pictures_are_the_same_at_any_number_of_workers():
    one, two = touching_pictures(40, seed=4), touching_pictures(40, seed=4, workers=2)
    np.testing.assert_array_equal(one.images, two.images)
    np.testing.assert_array_equal(one.targets["flaw"], two.targets["flaw"])
    assert (one.targets["flaw"] == 0).mean() == 0.5


def test_drawing_over_is_repeatable_and_keeps_the_range():
    pictures = touching_pictures(32, seed=4)
    images = torch.from_numpy(pictures.images).permute(0, 3, 1, 2) / 255
    masks = torch.from_numpy(pictures.masks)
    drawn = [model_like(images, masks, torch.Generator().manual_seed(1)) for _ in range(2)]
    torch.testing.assert_close(*drawn)
    assert drawn[0].min() >= 0
    assert drawn[0].max() <= 1
    same = (drawn[0] == images).flatten(1).all(1).float().mean()
    assert 0 < same < 0.6  # some stay as they are
    shreds = mush(images, masks, torch.Generator().manual_seed(1))
    assert (shreds - images).abs().mean() > (drawn[0] - images).abs().mean()


def test_the_command_writes_both_files(tmp_path):
    words = ["judge", "train", "touching", "--pictures", "64", "--steps", "2", "--workers", "1"]
    out = tmp_path / "made"
    shown = CliRunner().invoke(cli, [*words, "--held-out", "64", "--out", str(out)])
    assert shown.exit_code == 0, shown.output
    facts = json.loads((out / "touching.json").read_text())
    assert facts["rates"]["demo-32"]["plausible"] + facts["rates"]["demo-32"]["flawed"] == 32
    assert from_bytes("touching", (out / "touching.safetensors").read_bytes())
    assert "touching.safetensors" in shown.stdout
