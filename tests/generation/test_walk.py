"""Walks: what moves, what is held, where they begin, that they close; and what cannot be walked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from sri_cli.errors import SriError
from sri_cli.generation.sample import sample_scenes
from sri_cli.generation.trained_run import TrainedRun, open_run
from sri_cli.generation.walk_film import Request, check, walk_runs
from sri_cli.generation.walk_scenes import Route, draw, random_walk, walked, way_between
from sri_cli.models.build import build_model
from sri_cli.run import Workspace

SLOTS = 4


@pytest.fixture(scope="module")
def model() -> Any:
    """SRI whose scene variable is heard, as after training: new, it hardly changes a slot."""
    torch.manual_seed(0)
    built = build_model("sri", image_size=32, slots=SLOTS, slot_size=16, scene_size=16).eval()
    for layer in (built.prior.mean, built.prior.from_scene[0]):
        layer.weight.data.mul_(20)
    return built


@torch.no_grad()
def scenes(model: Any, route: Route) -> Any:
    return draw(model, route, 0, route.frames * route.walks, 1.0)


def test_a_walk_begins_at_the_scenes_that_sampling_draws_and_returns_to_them(model: Any) -> None:
    route = random_walk(model, 3, 2, SLOTS, frames=40)
    assert (route.frames, route.walks) == (40, 2)
    (first,) = sample_scenes(model, 2, SLOTS, seed=3, precision="fp32")
    images = scenes(model, route).image.unflatten(0, (40, 2))
    torch.testing.assert_close(images[0], first.image, atol=1e-4, rtol=0)
    steps = (images - images.roll(-1, 0)).abs().mean(dim=(1, 2, 3, 4))
    assert steps[-1] < 1.5 * steps[:-1].max()  # from the last to the first: a step as any other


def test_the_scene_moves_and_the_noise_of_the_slots_is_held(model: Any) -> None:
    route = random_walk(model, 0, 3, SLOTS, frames=60)
    assert set(route.moves) == {"scene"} and route.moves["scene"].shape == (60, 3, 16)
    norms = route.moves["scene"].norm(dim=-1)
    torch.testing.assert_close(norms, route.held["scene"].norm(dim=-1).expand(60, 3))
    seen = walked(model, route, precision="fp32")
    images = seen.images.astype(int)
    step = np.abs(images - np.roll(images, -1, 0)).mean()
    apart = np.abs(images[0] - np.roll(images[0], 1, 0)).mean()
    assert 0 < step < 0.2 * apart
    assert 0 < seen.step < 0.2 * seen.apart


def test_masks_shake_when_the_slots_noise_is_not_held(model: Any) -> None:
    """The very walk, but with the noise of the slots drawn anew for every frame."""
    route = random_walk(model, 0, 1, SLOTS, frames=30)
    generator = torch.Generator().manual_seed(1)
    fresh = torch.randn(30, 1, *route.held["slots"].shape[1:], generator=generator)
    shaken = replace(route, moves={**route.moves, "slots": fresh})
    held, loose = (walked(model, each, precision="fp32").step for each in (route, shaken))
    assert held < 0.3 * loose


def test_one_slot_walks_and_no_other_changes(model: Any) -> None:
    route = random_walk(model, 0, 2, SLOTS, frames=12, slot=1)
    scene = scenes(model, route)
    rgb = scene.rgb.unflatten(0, (12, 2))
    others = [k for k in range(SLOTS) if k != 1]
    torch.testing.assert_close(rgb[:, :, others], rgb[:1, :, others].expand(12, -1, -1, -1, -1, -1))
    moved = (rgb[:, :, 1] - rgb[:1, :, 1]).abs().amax(dim=(2, 3, 4))
    assert (moved[1:] > 1e-3).all() and (moved[0] == 0).all()
    # What slot 1 gives up or takes is shared by the others as before.
    odds = scene.log_masks[:, others].log_softmax(dim=1).unflatten(0, (12, 2))
    torch.testing.assert_close(odds, odds[:1].expand_as(odds), atol=1e-4, rtol=0)


def test_between_two_seeds_lie_their_scenes_at_the_ends(model: Any) -> None:
    route = way_between(model, (3, 8), 2, SLOTS, frames=10)
    for seed, frame in ((3, 0), (8, 5)):
        wanted = random_walk(model, seed, 2, SLOTS, frames=2).held["scene"]
        torch.testing.assert_close(route.moves["scene"][frame], wanted)
    of_the_first = random_walk(model, 3, 2, SLOTS, frames=2).held["slots"]
    assert torch.equal(route.held["slots"], of_the_first)


@pytest.mark.parametrize(
    ("system", "names"),
    [("genesis-v2", {"slots"}), ("genesis", {"mask", "component"}), ("emorl", {"slots"})],
)
def test_without_a_scene_variable_all_slots_walk(system: str, names: set[str]) -> None:
    torch.manual_seed(0)
    other = build_model(system, image_size=32, slots=3, slot_size=16).eval()
    if system == "emorl":  # its decoder begins blind to the slots
        for parameter in other.segregate.decoder.parameters():
            parameter.data.normal_(0, 0.2)
    route = random_walk(other, 0, 2, 3, frames=8)
    assert set(route.moves) == names
    for name in names:
        norms = route.moves[name].norm(dim=-1)
        torch.testing.assert_close(norms, norms[:1].expand_as(norms))
    images = scenes(other, route).image.unflatten(0, (8, 2))
    (first,) = sample_scenes(other, 2, 3, precision="fp32")
    torch.testing.assert_close(images[0], first.image, atol=1e-4, rtol=0)
    assert (images[1:] - images[0]).abs().amax(dim=(2, 3, 4)).min() > 0
    alone = random_walk(other, 0, 2, 3, frames=8, slot=2)
    rgb = scenes(other, alone).rgb.unflatten(0, (8, 2))
    torch.testing.assert_close(rgb[:, :, :2], rgb[:1, :, :2].expand_as(rgb[:, :, :2]))
    assert not torch.equal(rgb[4, :, 2], rgb[0, :, 2])


def test_the_same_seed_gives_the_same_frames_and_another_seed_others(model: Any) -> None:
    def frames(seed: int) -> np.ndarray:
        return walked(model, random_walk(model, seed, 2, SLOTS, frames=6)).images

    assert np.array_equal(frames(1), frames(1))
    assert (frames(1) != frames(2)).any(axis=(0, 2, 3, 4)).all()


def test_more_walks_begin_with_the_same_ones_and_fewer_slots_use_a_prefix(model: Any) -> None:
    few, many = (random_walk(model, 1, num, SLOTS, 6, slot=0) for num in (1, 3))
    assert torch.equal(few.moves["slots"], many.moves["slots"][:, :1])
    more = random_walk(model, 1, 1, 9, 6, slot=0)
    assert torch.equal(more.moves["slots"][:, :, :SLOTS], few.moves["slots"])


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"num": 0}, "--num 0"),
        ({"num": 37}, "1 to 36"),
        ({"frames": 1}, "--frames 1: 2 to 1500"),
        ({"fps": 0}, "--fps 0"),
        ({"temperature": 0.0}, "--temp 0"),
        ({"between": (1, 1)}, "nothing lies between"),
        ({"between": (-1, 1)}, "not negative"),
        ({"between": (0, 1), "slot": 1}, "leave out"),
    ],
)
def test_what_means_nothing_is_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(SriError) as caught:
        check(Request(**wrong))
    assert said in f"{caught.value.message} {caught.value.hint}" and caught.value.hint


@pytest.mark.parametrize(
    ("run", "wrong", "said"),
    [
        ("tiny", {"slot": 4}, "the slots 1 to 3"),
        ("tiny", {"slot": 0}, "the slots 1 to 3"),
        ("tiny", {"slot": 6, "slots": 5}, "the slots 1 to 5"),
        ("other", {"between": (0, 1)}, "no scene variable"),
    ],
)
def test_what_a_model_cannot_show_is_refused(
    workspace: Workspace, run: str, wrong: dict[str, Any], said: str
) -> None:
    with pytest.raises(SriError, match=said):
        walk_runs(workspace, (run,), Request(**wrong))
    assert not (workspace.runs_root / run / "figures").exists()


def test_a_model_without_a_scene_variable_says_what_walks(
    workspace: Workspace, trained: TrainedRun
) -> None:
    request = Request(num=1, frames=4, format="gif")
    result = walk_runs(workspace, ("other", "tiny"), request)
    assert "no scene variable: the noise of all its slots" in result.notes[0]
    assert "the noise of the slots is held" in result.notes[1]
    folder = open_run(workspace, "other").run_dir / "figures"
    assert result.files == [folder / "walk.gif"]
