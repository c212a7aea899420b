"""Paths in latent space: closed, even, on the sphere, and where they should begin and end."""

from __future__ import annotations

import numpy as np
import pytest

from sri_cli.generation.traverse import closed_walk, direction_shape, great_circle, there_and_back


def drawn(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def angles(path: np.ndarray) -> np.ndarray:
    """Between each frame and the next, and from the last to the first, [F,...] in degrees."""
    unit = path.astype(float) / np.linalg.norm(path, axis=-1, keepdims=True)
    chord = np.linalg.norm(unit - np.roll(unit, -1, axis=0), axis=-1)
    return np.degrees(2 * np.arcsin(chord / 2))


def walk(*shape: int, frames: int = 90) -> np.ndarray:
    return closed_walk(drawn(*shape), drawn(*direction_shape(shape), seed=1), frames)


def test_a_walk_closes_in_steps_of_one_angle_and_keeps_its_norm() -> None:
    path = walk(5, 64)
    assert path.shape == (90, 5, 64) and path.dtype == np.float32
    np.testing.assert_allclose(path[0], drawn(5, 64), atol=1e-5)
    norm = np.linalg.norm(path, axis=-1)
    np.testing.assert_allclose(norm, np.broadcast_to(norm[0], norm.shape), rtol=1e-5)
    steps = angles(path)
    np.testing.assert_allclose(steps, steps.mean(), rtol=1e-3)
    assert 4 < steps.mean() < 8


def test_a_walk_is_smooth_where_it_closes_and_leaves_its_first_circle() -> None:
    path = walk(64)
    turn = np.roll(path, -1, axis=0) - 2 * path + np.roll(path, 1, axis=0)
    bend = np.linalg.norm(turn, axis=-1)
    assert bend.max() < 1.01 * bend.min()
    assert np.linalg.matrix_rank(path, tol=1e-3) == 4


@pytest.mark.parametrize("frames", [2, 9, 20])
def test_there_and_back_reaches_the_other_end_half_way(frames: int) -> None:
    first, last = drawn(3, 32), drawn(3, 32, seed=5)
    path = there_and_back(first, last, frames)
    assert len(path) == frames
    np.testing.assert_allclose(path[0], first, atol=1e-5)
    np.testing.assert_allclose(path[frames // 2], last, atol=1e-5)
    np.testing.assert_allclose(path[1:], path[1:][::-1], atol=1e-5)


def test_the_way_between_two_latents_is_even_in_angle_and_norm() -> None:
    first, last = drawn(32), 3 * drawn(32, seed=5)
    path = np.stack([great_circle(first, last, share) for share in np.linspace(0, 1, 11)])
    steps, norms = angles(path)[:-1], np.linalg.norm(path, axis=-1)
    np.testing.assert_allclose(steps, steps.mean(), rtol=1e-3)
    np.testing.assert_allclose(np.diff(norms), np.diff(norms).mean(), rtol=1e-3)
