"""stack-FD and the S-Acc estimate: the shipped networks, their correction, and their training."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load

from sri_cli.data.simulate.flaws import simulate_labelled_tower
from sri_cli.data.simulate.towers import simulate_tower
from sri_cli.errors import SriFailure
from sri_cli.generation.sample import to_tensor
from sri_cli.metrics import features
from sri_cli.metrics.fid import frechet_distance, statistics_of
from sri_cli.metrics.image_metrics import CALLED, share_of
from sri_cli.metrics.stack_classifiers import classifiers, train
from sri_cli.metrics.stack_classifiers.classifiers import (
    Judge,
    Rates,
    StackFeatures,
    StackNet,
    corrected_share,
    open_shipped,
    to_bytes,
)
from sri_cli.metrics.stack_classifiers.training_images import (
    blur,
    blur_within,
    coarse,
    factor_images,
    model_like,
    shredded,
    touching_images,
)

BY_EYE = Path(__file__).parent / "by_eye.npz"
PERFECT = Rates(right=10_000, plausible=10_000, wrong=0, flawed=10_000)
ERRING = Rates(right=900, plausible=1000, wrong=200, flawed=1000)
COUNT = 48


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Small networks: on a busy machine, threads that wait for each other take minutes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def stacks() -> tuple[np.ndarray, np.ndarray]:
    """Images and masks of 96 whole stacks."""
    towers = [
        simulate_labelled_tower(2 * i, size_px=64, preset="original", seed=5)
        for i in range(2 * COUNT)
    ]
    images, masks = ([getattr(t, name) for t in towers] for name in ("images", "masks"))
    return np.concatenate(images), np.concatenate(masks)


def to_uint8(images: torch.Tensor) -> np.ndarray:
    return (images * 255).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()


def noisy(images: np.ndarray, _: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(0).standard_normal(images.shape) * 16
    return (images + noise).round().clip(0, 255).astype(np.uint8)


def blurred(images: np.ndarray, _: np.ndarray) -> np.ndarray:
    return to_uint8(blur(to_tensor(images), 1.0))


def exchanged(images: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Each block from another stack, as if slots were drawn independently."""
    random = np.random.default_rng(0)
    ground = torch.from_numpy(masks == 0)[:, None].float()
    fill = to_uint8(blur_within(to_tensor(images), ground, 5.0))
    canvas = np.where((masks == 0)[..., None], images, fill)
    for position in range(1, int(masks.max()) + 1):
        here = np.flatnonzero((masks == position).any(axis=(1, 2)))
        givers = random.choice(here, len(here))
        block = (masks[givers] == position)[..., None]
        canvas[here] = np.where(block, images[givers], canvas[here])
    return canvas


# Shipped networks ---------------------------------------------------------------------------


def test_shapes_are_read_from_the_bottom_up() -> None:
    towers = [simulate_tower(i, size_px=64, views=1, preset="demo", seed=3) for i in range(24)]
    network = StackFeatures()
    seen = network.shapes(network(np.concatenate([tower.images for tower in towers])))
    true = CALLED[np.concatenate([tower.factors["shapes"] for tower in towers])][:, :6]
    called = np.where(seen.any(-1), seen.argmax(-1), -1)[:, : true.shape[1]]
    assert (called == true)[true >= 0].mean() > 0.85 and (called == true).all(1).mean() > 0.7


def test_the_error_of_a_share_counts_images_not_blocks() -> None:
    hits, blocks = np.array([[True, False], [True, True]]), np.ones((2, 2), bool)
    assert share_of(hits, blocks) == pytest.approx((0.75, 0.25))
    value, error = share_of(np.eye(2, dtype=bool).repeat(8, 0), np.ones((16, 2), bool))
    assert (value, error) == (0.5, 0.0)  # one of two in each image


def test_damaged_weights_are_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(classifiers.SHIPPED, "factors", "0" * 64)
    with pytest.raises(SriFailure, match=r"factors\.safetensors"):
        open_shipped("factors")


def test_stack_fd_grows_with_damage(stacks: tuple[np.ndarray, np.ndarray]) -> None:
    (real, own), masks = np.split(stacks[0], 2), stacks[1][COUNT:]
    extract = StackFeatures()
    reference = statistics_of(extract(real))

    def distance(images: np.ndarray) -> float:
        return frechet_distance(reference, statistics_of(extract(images)))

    for damage in (noisy, blurred, exchanged):
        assert distance(damage(own, masks)) > 1.5 * distance(own)
    assert distance(real[::-1]) == pytest.approx(0, abs=1e-3)


def test_answers_do_not_depend_on_batches() -> None:
    images = np.load(BY_EYE)["images"][:20]
    for answer in (Judge().plausible, StackFeatures()):
        together = answer(images)
        apart = np.concatenate([answer(images[i : i + 7]) for i in range(0, 20, 7)])
        np.testing.assert_allclose(together, apart, atol=1e-4)


def test_answers_are_computed_in_true_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU convolutions would have TF32 by default."""
    seen: list[str] = []

    def to_images(images: np.ndarray, device: torch.device) -> torch.Tensor:
        seen.append(torch.backends.cudnn.conv.fp32_precision)
        return to_tensor(images, device)

    monkeypatch.setattr(features, "to_tensor", to_images)
    for answer in (Judge().plausible, StackFeatures()):
        answer(np.zeros((1, 32, 32, 3), np.uint8))
    assert seen == ["ieee", "ieee"]


@pytest.mark.parametrize("look", ["original", "demo"])
def test_shipped_judge_separates_whole_stacks_from_flawed_ones(look: str) -> None:
    towers = [simulate_labelled_tower(i, size_px=64, preset=look, seed=77) for i in range(32)]
    images = np.concatenate([tower.images for tower in towers])
    truth = np.arange(32) % 2 == 0
    for shown in (images, to_uint8(coarse(to_tensor(images), 32))):
        assert ((Judge().plausible(shown) > 0.5) == truth).mean() > 0.75


def test_shipped_judge_agrees_with_a_rater_on_generated_scenes() -> None:
    """240 scenes of six systems, judged by eye, shuffled, before this judge was trained: 76 %."""
    eye = np.load(BY_EYE)
    probability = Judge().plausible(eye["images"])
    assert ((probability > 0.5) == eye["plausible"].astype(bool)).mean() > 0.75


# Correction ---------------------------------------------------------------------------------


def test_correction_by_error_rates() -> None:
    value, low, high = corrected_share(80, 100, PERFECT)
    assert value == pytest.approx(0.8)
    # Jeffreys' interval of 80 of 100, from tables of the beta distribution.
    assert (low, high) == pytest.approx((0.7138, 0.8690), abs=0.004)
    # Of 1000 images 600 are plausible: 0.9 * 600 + 0.2 * 400 = 620 are called so.
    value, low, high = corrected_share(620, 1000, ERRING)
    assert value == pytest.approx(0.6)
    assert low < 0.6 < high and high - low > 0.06  # wider than without errors
    assert corrected_share(10, 100, ERRING)[0] == 0.0  # fewer than false alarms
    assert corrected_share(100, 100, ERRING)[0] == 1.0  # more than possible


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_intervals_contain_the_true_share(share: float) -> None:
    random = np.random.default_rng(0)
    inside = 0
    for _ in range(200):
        rates = Rates(random.binomial(1000, 0.85), 1000, random.binomial(1000, 0.15), 1000)
        good = random.binomial(100, share)
        accepted = random.binomial(good, 0.85) + random.binomial(100 - good, 0.15)
        _, low, high = corrected_share(int(accepted), 100, rates)
        inside += low <= share <= high
    assert inside > 0.9 * 200


# Training -----------------------------------------------------------------------------------


def test_training_is_a_function_of_the_seed_and_learns() -> None:
    images = factor_images(16, seed=3)
    losses: list[float] = []

    def train_for(steps: int) -> StackNet:
        def report(_: int, loss: float) -> None:
            losses.append(loss)

        return train.train_network("factors", images, steps, batch=8, report=report)

    first, again, trained = train_for(1), train_for(1), train_for(8)
    assert to_bytes(first) == to_bytes(again) != to_bytes(trained)
    assert losses[0] == losses[1] and losses[2] < 0.8 * losses[0]
    reloaded = StackNet(classifiers.HEADS["factors"]).eval()
    weights = load(to_bytes(trained))
    reloaded.load_state_dict({name: value.float() for name, value in weights.items()})
    noise = torch.rand(2, 3, 64, 64)
    expected = trained.features(noise)
    torch.testing.assert_close(reloaded.features(noise), expected, atol=0.05, rtol=0.05)


def test_altered_images_are_repeatable_and_in_range() -> None:
    source = touching_images(16, seed=4)
    assert (source.targets["flaw"] == 0).mean() == 0.5
    images = to_tensor(source.images).repeat(2, 1, 1, 1)
    masks = torch.from_numpy(source.masks).repeat(2, 1, 1)
    drawn, again = (model_like(images, masks, torch.Generator().manual_seed(1)) for _ in range(2))
    torch.testing.assert_close(drawn, again)
    assert drawn.min() >= 0 and drawn.max() <= 1
    same = (drawn == images).flatten(1).all(1).float().mean()
    assert 0 < same < 0.6  # some are unchanged
    torn = shredded(images, masks, torch.Generator().manual_seed(1))
    assert (torn - images).abs().mean() > (drawn - images).abs().mean()


def test_the_accuracy_of_the_shipped_network_is_counted() -> None:
    accuracy = train.factor_accuracy(open_shipped("factors"), factor_images(16, 2_000_000))
    assert accuracy["height"] > 0.7


@pytest.mark.parametrize("which", ["factors", "touching"])
def test_train_writes_weights_and_errors(which: str, tmp_path: Path) -> None:
    options = ["--images", "16", "--held-out", "16", "--steps", "1", "--workers", "1"]
    result = CliRunner().invoke(train.main, [which, *options, "--out", str(tmp_path / "made")])
    assert result.exit_code == 0, result.output
    facts = json.loads((tmp_path / "made" / f"{which}.json").read_text())
    if which == "factors":
        assert facts["accuracy"].keys() == classifiers.HEADS["factors"].keys()
        assert all(0 <= share <= 1 for share in facts["accuracy"].values())
    else:
        assert facts["rates"]["demo-32"]["plausible"] + facts["rates"]["demo-32"]["flawed"] == 8
    assert load((tmp_path / "made" / f"{which}.safetensors").read_bytes())
