"""Walks: paths in latent space are closed, even and on the sphere; what moves and what is held."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from sri_cli.generation.sample import sample_scenes
from sri_cli.generation.traverse import (
    Walk,
    closed_walk,
    direction_shape,
    great_circle,
    random_walk,
    there_and_back,
    walk_between,
    walk_scenes,
)
from sri_cli.models.build import build_model

SLOTS = 4


def normals(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def angles(path: np.ndarray) -> np.ndarray:
    """Between each frame and the next, and from the last to the first, [F,...] in degrees."""
    unit = path.astype(float) / np.linalg.norm(path, axis=-1, keepdims=True)
    chord = np.linalg.norm(unit - np.roll(unit, -1, axis=0), axis=-1)
    return np.degrees(2 * np.arcsin(chord / 2))


def path_of(*shape: int, frames: int = 90) -> np.ndarray:
    return closed_walk(normals(*shape), normals(*direction_shape(shape), seed=1), frames)


def test_a_walk_closes_in_steps_of_one_angle_and_keeps_its_norm() -> None:
    path = path_of(5, 64)
    assert path.shape == (90, 5, 64) and path.dtype == np.float32
    np.testing.assert_allclose(path[0], normals(5, 64), atol=1e-5)
    norm = np.linalg.norm(path, axis=-1)
    np.testing.assert_allclose(norm, np.broadcast_to(norm[0], norm.shape), rtol=1e-5)
    steps = angles(path)
    np.testing.assert_allclose(steps, steps.mean(), rtol=1e-3)
    assert 4 < steps.mean() < 8


def test_a_walk_is_smooth_where_it_closes_and_leaves_its_first_circle() -> None:
    path = path_of(64)
    turn = np.roll(path, -1, axis=0) - 2 * path + np.roll(path, 1, axis=0)
    bend = np.linalg.norm(turn, axis=-1)
    assert bend.max() < 1.01 * bend.min()
    assert np.linalg.matrix_rank(path, tol=1e-3) == 4


@pytest.mark.parametrize("frames", [2, 9, 20])
def test_there_and_back_reaches_the_other_end_half_way(frames: int) -> None:
    first, last = normals(3, 32), normals(3, 32, seed=5)
    path = there_and_back(first, last, frames)
    assert len(path) == frames
    np.testing.assert_allclose(path[0], first, atol=1e-5)
    np.testing.assert_allclose(path[frames // 2], last, atol=1e-5)
    np.testing.assert_allclose(path[1:], path[1:][::-1], atol=1e-5)


def test_the_way_between_two_latents_is_even_in_angle_and_norm() -> None:
    first, last = normals(32), 3 * normals(32, seed=5)
    path = np.stack([great_circle(first, last, share) for share in np.linspace(0, 1, 11)])
    steps, norms = angles(path)[:-1], np.linalg.norm(path, axis=-1)
    np.testing.assert_allclose(steps, steps.mean(), rtol=1e-3)
    np.testing.assert_allclose(np.diff(norms), np.diff(norms).mean(), rtol=1e-3)


# Walks of models


@pytest.fixture(scope="module")
def model() -> Any:
    """SRI whose slots depend on the scene, as after training: at first it hardly matters."""
    torch.manual_seed(0)
    built = build_model("sri", image_size=32, slots=SLOTS, slot_size=16, scene_size=16).eval()
    for layer in (built.prior.mean, built.prior.from_scene[0]):
        layer.weight.data.mul_(20)
    return built


def drawn(model: Any, walk: Walk) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Images [F,N,3,H,W], rgb and log-masks [F,N,K,...,H,W]."""
    scenes = list(walk_scenes(model, walk, precision="fp32"))
    parts = zip(*((s.image, s.rgb, s.log_masks) for s in scenes), strict=True)
    images, rgb, masks = (torch.cat(part).unflatten(0, walk.shape) for part in parts)
    return images, rgb, masks


def test_a_walk_begins_at_the_scenes_that_sampling_draws_and_returns(model: Any) -> None:
    walk = random_walk(model, 3, 2, SLOTS, frames=40)
    assert walk.shape == (40, 2)
    (first,) = sample_scenes(model, 2, SLOTS, seed=3, precision="fp32")
    images = drawn(model, walk)[0]
    torch.testing.assert_close(images[0], first.image, atol=1e-4, rtol=0)
    steps = (images - images.roll(-1, 0)).abs().mean(dim=(1, 2, 3, 4))
    assert steps[-1] < 1.5 * steps[:-1].max()  # from the last to the first: a step as any other


def test_the_scene_moves_and_the_noise_of_the_slots_is_held(model: Any) -> None:
    walk = random_walk(model, 0, 3, SLOTS, frames=60)
    assert set(walk.moves) == {"scene"} and walk.moves["scene"].shape == (60, 3, 16)
    norms = walk.moves["scene"].norm(dim=-1)
    torch.testing.assert_close(norms, walk.held["scene"].norm(dim=-1).expand(60, 3))
    images = drawn(model, walk)[0]
    step = (images - images.roll(-1, 0)).abs().mean()
    apart = (images[0] - images[0].roll(1, 0)).abs().mean()
    assert 0 < step < 0.2 * apart


def test_one_slot_walks_and_no_other_changes(model: Any) -> None:
    _, rgb, masks = drawn(model, random_walk(model, 0, 2, SLOTS, frames=12, slot=1))
    others = [k for k in range(SLOTS) if k != 1]
    torch.testing.assert_close(rgb[:, :, others], rgb[:1, :, others].expand(12, -1, -1, -1, -1, -1))
    moved = (rgb[:, :, 1] - rgb[:1, :, 1]).abs().amax(dim=(2, 3, 4))
    assert (moved[1:] > 1e-3).all() and (moved[0] == 0).all()
    # What slot 1 gives up or takes is shared by the others as before.
    odds = masks[:, :, others].log_softmax(dim=2)
    torch.testing.assert_close(odds, odds[:1].expand_as(odds), atol=1e-4, rtol=0)


def test_between_two_seeds_lie_their_scenes_at_the_ends(model: Any) -> None:
    walk = walk_between(model, (3, 8), 2, SLOTS, frames=10)
    for seed, frame in ((3, 0), (8, 5)):
        ends = random_walk(model, seed, 2, SLOTS, frames=2).held["scene"]
        torch.testing.assert_close(walk.moves["scene"][frame], ends)
    of_the_first = random_walk(model, 3, 2, SLOTS, frames=2).held["slots"]
    assert torch.equal(walk.held["slots"], of_the_first)


@pytest.mark.parametrize(
    ("system", "names"),
    [("genesis-v2", {"slots"}), ("genesis", {"mask", "component"}), ("emorl", {"slots"})],
)
def test_without_a_scene_variable_all_slots_walk(system: str, names: set[str]) -> None:
    torch.manual_seed(0)
    other = build_model(system, image_size=32, slots=3, slot_size=16).eval()
    if system == "emorl":  # at first its decoder ignores the slots
        for parameter in other.segregate.decoder.parameters():
            parameter.data.normal_(0, 0.2)
    walk = random_walk(other, 0, 2, 3, frames=8)
    assert set(walk.moves) == names
    for name in names:
        norms = walk.moves[name].norm(dim=-1)
        torch.testing.assert_close(norms, norms[:1].expand_as(norms))
    images = drawn(other, walk)[0]
    (first,) = sample_scenes(other, 2, 3, precision="fp32")
    torch.testing.assert_close(images[0], first.image, atol=1e-4, rtol=0)
    assert (images[1:] - images[0]).abs().amax(dim=(2, 3, 4)).min() > 0
    rgb = drawn(other, random_walk(other, 0, 2, 3, frames=8, slot=2))[1]
    torch.testing.assert_close(rgb[:, :, :2], rgb[:1, :, :2].expand_as(rgb[:, :, :2]))
    assert not torch.equal(rgb[4, :, 2], rgb[0, :, 2])


def test_the_seed_decides_and_more_walks_begin_with_the_same_ones(model: Any) -> None:
    few, many, other = (
        random_walk(model, s, n, SLOTS, 6, slot=0) for s, n in ((1, 1), (1, 3), (2, 1))
    )
    assert torch.equal(few.moves["slots"], many.moves["slots"][:, :1])
    assert not torch.equal(few.moves["slots"], other.moves["slots"])
    more = random_walk(model, 1, 1, 9, 6, slot=0)  # fewer slots use a prefix
    assert torch.equal(more.moves["slots"][:, :, :SLOTS], few.moves["slots"])
    assert np.isfinite(few.moves["slots"].numpy()).all()
