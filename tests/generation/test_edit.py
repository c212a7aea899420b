"""Edits change what they should and nothing else; pictures become slots; what cannot be is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sri_cli.errors import SriError
from sri_cli.generation.edit import anew, exchange, instead, reimagine, remove, repeat
from sri_cli.generation.edit_scenes import Cell, decoded, drawn, place_masks, read_image, seen
from sri_cli.generation.edit_show import Request, check, edit_run, make_strip
from sri_cli.generation.sample import quantise, sample_scenes
from sri_cli.generation.trained_run import TrainedRun, open_run
from sri_cli.models.build import build_model
from sri_cli.plotting.palette import slot_colours
from sri_cli.run import Workspace

SLOTS = 4
SYSTEMS = {
    "sri": {"scene_size": 16},
    "genesis-v2": {},
    "genesis": {},
    "emorl": {},
}


@pytest.fixture(scope="module", params=SYSTEMS)
def model(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    sizes = {"image_size": 32, "slots": SLOTS, "slot_size": 16}
    built = build_model(request.param, **sizes, **SYSTEMS[request.param]).eval()
    if request.param == "emorl":  # its decoder begins blind to the slots
        for parameter in built.segregate.decoder.parameters():
            parameter.data.normal_(0, 0.1)
    return built


@pytest.fixture(scope="module")
def pair(model: Any) -> Any:
    return drawn(model, 3, 2, SLOTS, 1.0)


def images(model: Any, cells: list[Cell]) -> np.ndarray:
    return np.stack([tile.image.astype(int) for tile in decoded(model, cells, SLOTS)])


def masks(model: Any, cell: Cell) -> np.ndarray:
    with torch.no_grad():
        return place_masks(model.decode(cell.slots[None]).masks[0, :, 0], cell.places, SLOTS)


def test_scenes_before_are_those_that_sampling_draws(model: Any, pair: Any) -> None:
    (scene,) = sample_scenes(model, 2, SLOTS, seed=3)
    before = images(model, [Cell.whole(start.slots) for start in pair])
    assert np.abs(before - quantise(scene.image)).max() <= 5  # bf16, in other chunks


def test_a_removed_slot_has_no_mask_and_the_others_fill_the_picture(model: Any, pair: Any) -> None:
    strip = remove(pair, [(1,), (0, 2)])
    assert [column.text for column in strip.columns] == ["without 2", "without 1+3"]
    one, two = strip.rows[0].after
    for cell, gone in ((one, [1]), (two, [0, 2])):
        left = masks(model, cell)
        assert (left[gone] == 0).all()
        np.testing.assert_allclose(left.sum(axis=0), 1, atol=1e-5)
        others = [k for k in range(SLOTS) if k not in gone]
        assert (left[others].max(axis=(1, 2)) > 0).all()
    tile = decoded(model, [Cell(pair[0].slots[[2]], (2,))], SLOTS)[0]
    assert (tile.masks == slot_colours(SLOTS)[2]).all()


def test_exchanging_a_slot_with_itself_changes_nothing(model: Any, pair: Any) -> None:
    strip = exchange([(pair[0], pair[0])], [(k,) for k in range(SLOTS)])
    same = images(model, [Cell.whole(pair[0].slots), *strip.rows[0].after])
    assert (same == same[0]).all()


def test_an_exchanged_slot_is_the_others_and_no_other_slot_changes(model: Any, pair: Any) -> None:
    strip = exchange([tuple(pair)], [(1,)])
    for row, mine, theirs in ((0, *pair), (1, *pair[::-1])):
        slots = strip.rows[row].after[0].slots
        assert torch.equal(slots[1], theirs.slots[1])
        assert torch.equal(slots[[0, 2, 3]], mine.slots[[0, 2, 3]])
        assert torch.equal(strip.rows[row].before.slots, mine.slots)
    assert torch.equal(instead(pair[0].slots, pair[1].slots, range(SLOTS)).slots, pair[1].slots)


def test_a_slot_twice_takes_from_the_others_and_stays_itself(model: Any, pair: Any) -> None:
    strip = repeat(pair, [(1,)])
    cell = strip.rows[0].after[0]
    assert cell.places == (0, 1, 1, 2, 3) and torch.equal(cell.slots[1], cell.slots[2])
    before, after = (masks(model, c) for c in (Cell.whole(pair[0].slots), cell))
    assert (after[1] >= before[1] - 1e-6).all() and (after[1] > before[1]).any()
    np.testing.assert_allclose(after.sum(axis=0), 1, atol=1e-5)
    assert torch.equal(strip.rows[1].after[0].slots[1], pair[0].slots[1])
    assert torch.equal(strip.rows[1].after[0].slots[0], pair[1].slots[0])


def test_imagined_anew_are_the_slots_from_the_named_one_on(model: Any, pair: Any) -> None:
    strip = reimagine(model, pair, [1, 3], variants=3, temperature=1.0, seed=0)
    assert [row.label for row in strip.rows[:2]] == [
        ("scene 0", "from slot 2"),
        ("scene 0", "from slot 4"),
    ]
    for row, first in zip(strip.rows, [1, 3, 1, 3], strict=True):
        kept = row.before.slots[:first]
        new = torch.stack([cell.slots for cell in row.after])
        assert torch.equal(new[:, :first], kept.expand(3, -1, -1))
        changed = (new[:, first:] - row.before.slots[first:]).abs().amax(dim=2)
        apart = (new - new.roll(1, 0)).abs().amax(dim=2)[:, first:]
        assert (changed > 1e-3).all() and (apart > 1e-3).all()
    again = anew(model, pair[0], 1, 3, 1.0, 0)
    assert torch.equal(again, torch.stack([cell.slots for cell in strip.rows[0].after]))


def test_a_continuation_in_the_noise_of_the_scene_is_the_scene(model: Any) -> None:
    """What is drawn anew follows scene latent and kept slots, at any temperature."""
    (start,) = drawn(model, 3, 1, SLOTS, 0.5)
    noise = {name: value[None] for name, value in start.noise.items()}
    with torch.no_grad():
        drawn_on = model.slots(noise, 0.5, start.slots[None, :2])
    torch.testing.assert_close(drawn_on[0], start.slots)


def test_the_slots_of_a_picture_are_its_reconstruction(workspace: Workspace) -> None:
    trained = open_run(workspace, "tiny")
    picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    start = seen(trained.model, picture, "image", 0, 0.5)
    assert start.slots.shape == (3, 16) and np.array_equal(start.picture, picture)
    again = seen(trained.model, picture, "image", 0, 1.0)
    assert torch.equal(again.slots, start.slots)
    torch.testing.assert_close(again.noise["scene"], 0.5 * start.noise["scene"])
    assert not torch.equal(seen(trained.model, picture, "image", 1, 1.0).slots, start.slots)


@pytest.mark.parametrize(
    ("size", "mode", "note"),
    [((32, 32), "RGB", None), ((80, 40), "RGBA", "80x40 px, its centred square resized to 32 px")],
)
def test_any_picture_comes_to_the_size_of_the_model(
    trained: TrainedRun, tmp_path: Path, size: tuple[int, int], mode: str, note: str | None
) -> None:
    colour = (200, 30, 60, 255)[: len(mode)]
    Image.new(mode, size, colour).save(tmp_path / "a.png")
    picture, said = read_image(trained, tmp_path / "a.png")
    assert picture.shape == (32, 32, 3) and (picture == (200, 30, 60)).all()
    assert said == (note and f"a.png: {note}")


def test_each_slot_in_turn_or_those_named_together(trained: TrainedRun) -> None:
    def columns(*slot: int) -> list[str]:
        request = Request("remove", slot=slot, num=1)
        return [column.text for column in make_strip(trained, request, None).columns]

    assert columns() == ["without 1", "without 2", "without 3"]
    assert columns(2) == ["without 2"]
    assert columns(3, 1) == ["without 3+1"]


@pytest.mark.parametrize(
    ("action", "rows", "columns"),
    [("remove", 4, 4), ("repeat", 4, 4), ("exchange", 2, 4), ("reimagine", 2, 7)],
)
def test_every_action_draws_its_strip(
    workspace: Workspace, action: str, rows: int, columns: int
) -> None:
    result = edit_run(workspace, "other", Request(action))
    figure = np.asarray(Image.open(result.path))
    assert result.path == workspace.runs_root / "other" / "figures" / f"edit-{action}.png"
    height = rows * (2 * 96 + 1 + 12) - 12
    assert height < figure.shape[0] < height + 120
    assert 99 * columns < figure.shape[1] < 99 * columns + 220
    first = figure[-(height + 6) : -6][:96, -102:-6]
    assert first.std() > 0
    before = result.path.read_bytes()
    assert edit_run(workspace, "other", Request(action)).path.read_bytes() == before


@pytest.mark.parametrize("action", ["remove", "repeat", "exchange", "reimagine"])
def test_every_action_takes_a_test_image(workspace: Workspace, action: str) -> None:
    result = edit_run(workspace, "tiny", Request(action, slot=(2,), index=3))
    assert Image.open(result.path).width > 300


def test_a_genesis_slot_is_two_latents(
    workspace: Workspace, write_run: Callable[..., None]
) -> None:
    write_run(workspace.runs_root / "pair", "genesis")
    (note,) = edit_run(workspace, "pair", Request("repeat")).notes
    assert "its mask latent and its component latent, edited together" in note


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"image": Path("a.png"), "index": 1}, "two pictures"),
        ({"index": 1, "slots": 4}, "as many slots as in training"),
        ({"action": "exchange", "num": 3}, "between two scenes"),
        ({"variants": 3}, "remove has none"),
        ({"action": "reimagine", "variants": 0}, "1 to 24 fit"),
        ({"num": 0}, "--num 0"),
        ({"index": 1, "num": 3}, "the picture alone"),
    ],
)
def test_what_means_nothing_is_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(SriError, match=said) as caught:
        check(Request(**{"action": "remove", **wrong}))
    assert caught.value.hint


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"slot": (4,)}, "the slots 1 to 3"),
        ({"slot": (0,)}, "the slots 1 to 3"),
        ({"slot": (1, 2, 3)}, "nothing is left"),
        ({"slots": 1}, "nothing is left"),
        ({"slots": 40}, "at most 16 rows of 24"),
        ({"num": 17}, "at most 16 rows of 24"),
        ({"index": 16}, "the images 0 to 15"),
        ({"index": -1}, "the images 0 to 15"),
        ({"image": Path("nowhere.png")}, "does not exist"),
        ({"image": Path(".")}, "is a folder"),
        ({"image": Path(__file__)}, "damaged, or no picture"),
    ],
)
def test_what_a_run_cannot_show_is_refused(
    workspace: Workspace, wrong: dict[str, Any], said: str
) -> None:
    with pytest.raises(SriError, match=said) as caught:
        edit_run(workspace, "tiny", Request("remove", **wrong))
    assert caught.value.hint and not (workspace.runs_root / "tiny" / "figures").exists()
