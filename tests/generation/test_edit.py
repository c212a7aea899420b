"""The four edits change what they should and nothing else; images become slots."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from sri_cli.generation import encode
from sri_cli.generation.edit import (
    EditedSlots,
    SourceScene,
    decode_edits,
    draw_sources,
    exchange,
    infer_scene,
    reimagine,
    remove,
    repeat,
)
from sri_cli.generation.encode import encode_images
from sri_cli.generation.sample import (
    chunk_size,
    evaluation_noise,
    in_chunks,
    quantise,
    sample_noise,
    sample_scenes,
    to_tensor,
)
from sri_cli.generation.trained_run import TrainedRun
from tests.small_models import SCENE_SIZE, SIDE, SLOTS, VARIANTS


@pytest.fixture(scope="module", params=["sri", "genesis-v2", "genesis", "emorl", "slot-vae"])
def model(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    return VARIANTS[request.param]().eval()


@pytest.fixture(scope="module")
def pair(model: Any) -> Any:
    return draw_sources(model, 3, 2, SLOTS, 1.0)


def whole(slots: torch.Tensor) -> EditedSlots:
    return EditedSlots(slots, tuple(range(len(slots))))


def images(model: Any, *edits: EditedSlots) -> np.ndarray:
    return decode_edits(model, edits, SLOTS)[0].astype(int)


def masks(model: Any, *edits: EditedSlots) -> np.ndarray:
    """Levels of bfloat16 on the way: 1/256."""
    return decode_edits(model, edits, SLOTS)[1]


def test_scenes_before_are_those_that_sampling_draws(model: Any, pair: Any) -> None:
    (scene,) = sample_scenes(model, 2, SLOTS, seed=3)
    before = images(model, *(whole(source.slots) for source in pair))
    # Labels count from 1; the random numbers of reimagined slots are those of version 0.1.
    assert [(one.name, one.key) for one in pair] == [("scene 1", "scene 0"), ("scene 2", "scene 1")]
    assert np.abs(before - quantise(scene.image)).max() <= 5  # bf16, in other chunks


def test_a_removed_slot_has_no_mask_and_the_others_fill_the_image(model: Any, pair: Any) -> None:
    row, _ = remove(pair, [(1,), (0, 2)])
    for edit, gone in zip(row.after, ([1], [0, 2]), strict=True):
        (left,) = masks(model, edit)
        assert (left[gone] == 0).all()
        np.testing.assert_allclose(left.sum(axis=0), 1, atol=1e-2)
        others = [k for k in range(SLOTS) if k not in gone]
        assert (left[others].max(axis=(1, 2)) > 0).all()
    (alone,) = masks(model, EditedSlots(pair[0].slots[[2]], (2,)))
    np.testing.assert_allclose(alone[2], 1, atol=1e-2)


def test_an_exchanged_slot_is_the_others_and_no_other_slot_changes(model: Any, pair: Any) -> None:
    rows = exchange([tuple(pair)], [(1,), tuple(range(SLOTS))])
    for row, mine, theirs in zip(rows, pair, pair[::-1], strict=True):
        one, every = row.after
        assert torch.equal(one.slots[1], theirs.slots[1])
        assert torch.equal(one.slots[[0, 2, 3]], mine.slots[[0, 2, 3]])
        assert torch.equal(every.slots, theirs.slots)
        assert row.before is mine


def test_a_slot_twice_takes_from_the_others_and_stays_itself(model: Any, pair: Any) -> None:
    first, second = repeat(pair, [(1,)])
    (edit,) = first.after
    assert edit.index == (0, 1, 1, 2, 3) and torch.equal(edit.slots[1], edit.slots[2])
    before, after = (masks(model, e)[0] for e in (whole(pair[0].slots), edit))
    assert (after[1] >= before[1] - 1e-2).all() and (after[1] > before[1]).any()
    np.testing.assert_allclose(after.sum(axis=0), 1, atol=1e-2)
    assert torch.equal(second.after[0].slots[1], pair[0].slots[1])
    assert torch.equal(second.after[0].slots[0], pair[1].slots[0])


def test_reimagined_are_the_slots_from_the_given_one_on(model: Any, pair: Any) -> None:
    rows = reimagine(model, pair, [1, 3], variants=3, temperature=1.0, seed=0)
    again = reimagine(model, pair[:1], [1], variants=3, temperature=1.0, seed=0)
    for row, first in zip(rows, [1, 3, 1, 3], strict=True):
        before, new = row.before.slots, torch.stack([edit.slots for edit in row.after])
        assert torch.equal(new[:, :first], before[:first].expand(3, -1, -1))
        changed = (new[:, first:] - before[first:]).abs().amax(dim=2)
        apart = (new - new.roll(1, 0)).abs().amax(dim=2)[:, first:]
        assert (changed > 1e-3).all() and (apart > 1e-3).all()
    assert torch.equal(rows[0].after[2].slots, again[0].after[2].slots)


def test_the_same_noise_continues_a_scene_as_it_was(model: Any) -> None:
    """What is drawn again follows scene latent and first slots, at any temperature."""
    (source,) = draw_sources(model, 3, 1, SLOTS, 0.5)
    noise = sample_noise(model, 3, 0, 1, SLOTS)
    latent = None if source.latent is None else source.latent[None]
    given = source.slots[None, :2]

    def draw(start: int, count: int) -> torch.Tensor:
        return model.slots(noise, 0.5, scene=latent, given=given)

    (slots,) = in_chunks(draw, 1, 1, torch.device("cpu"))  # in the precision of drawing
    torch.testing.assert_close(slots[0], source.slots)


def test_the_slots_of_an_image_are_its_reconstruction(trained: TrainedRun) -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    source, again, other = (infer_scene(trained.model, image, "image", s) for s in (0, 0, 1))
    assert isinstance(source, SourceScene) and source.slots.shape == (3, 16)
    assert source.latent is not None and source.latent.shape == (16,)
    assert torch.equal(source.slots, again.slots)
    assert not torch.equal(source.slots, other.slots)


IMAGES = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 3), np.uint8)


@pytest.mark.parametrize("system", ["sri", "sri-b", "genesis-v2", "genesis-scene", "emorl"])
def test_an_encoding_is_what_the_model_infers(system: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = VARIANTS[system]().eval()
    one = encode_images(model, IMAGES, [4, 5, 6], seed=2)
    noise = evaluation_noise(model, 2, np.array([4, 5, 6]), torch.device("cpu"))
    with torch.no_grad():
        made = model.reconstruct(to_tensor(IMAGES), noise)
    torch.testing.assert_close(one.slots, made.slots, rtol=0.1, atol=0.05)  # bf16
    assert one.slots.dtype == torch.float32 and one.image.shape == (3, 3, SIDE, SIDE)
    assert one.masks.shape == one.attention.shape == (3, SLOTS, SIDE, SIDE)
    assert (one.latent is None) == (not model.has_scene)
    if one.latent is not None:
        assert one.latent.shape == (3, SCENE_SIZE)
    assert one.rollout is None
    matched = system == "sri"
    assert (one.order is not None) == matched
    if one.order is not None:
        assert (one.order.sort(dim=1).values == torch.arange(SLOTS)).all()

    monkeypatch.setattr(encode, "CHUNK", 2)
    again = encode_images(model, to_tensor(IMAGES[1:]), [5, 6], seed=2, rollout=True)
    assert (again.rollout is None) == (made.imagine is None)
    torch.testing.assert_close(again.image, one.image[1:], rtol=0.1, atol=0.05)


def test_a_gpu_takes_more_images_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def in_chunks(compute: Any, num: int, size: int, device: torch.device) -> Iterator[Any]:
        sizes.append(size)
        raise NotImplementedError

    monkeypatch.setattr(encode, "in_chunks", in_chunks)
    model = VARIANTS["sri"]()
    for name in ("cpu", "cuda"):
        monkeypatch.setattr(encode, "device_of", lambda _, name=name: torch.device(name))
        with pytest.raises(NotImplementedError):
            encode_images(model, IMAGES)
    assert sizes == [encode.CHUNK, chunk_size(SLOTS, SIDE, torch.device("cuda"))]
    assert sizes[1] > sizes[0]
