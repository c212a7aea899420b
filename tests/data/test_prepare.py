"""A preparation gives the same file whatever the workers and whatever came between."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sri_cli.atomic import lock_file
from sri_cli.data import prepare as preparing
from sri_cli.data.dataset import SPLITS, DataFile
from sri_cli.data.parallel import parallel_map
from sri_cli.data.prepare import OtherSettings, prepare
from sri_cli.data.source import FIRST_SCENARIO, MAX_SCENARIOS, Options, Rows, Scenario
from sri_cli.data.sources.choose import simulated
from sri_cli.data.writer import DataFileWriter
from sri_cli.errors import Interrupted, SriError, SriFailure
from tests.damage import largest_file
from tests.small_cli import ROOT, start
from tests.small_data import changed, random_scenario, small_source

OPTIONS = Options(size_px=16, scenes=6, val_scenes=2, test_scenes=2, views=3)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "towers-16.h5"


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flush every 16 rows, so that small preparations have rows to resume from, and let workers
    find this module."""
    monkeypatch.setattr(preparing, "ROWS_PER_FLUSH", 16)
    monkeypatch.syspath_prepend(str(ROOT))


def content(path: Path) -> list[np.ndarray]:
    """Everything a reader sees."""
    data = DataFile(path)
    assert data.is_intact()
    parts: list[np.ndarray] = []
    for name in SPLITS:
        split = data.split(name)
        parts += [np.asarray(split.images), split.masks]
        parts += [split.factors[key] for key in sorted(split.factors)]
    return parts


def is_whole(path: Path, seed: int = 0) -> bool:
    """Whether the file is that of an uninterrupted preparation."""
    other = prepare(small_source(seed=seed), path.with_name("whole-16.h5"), workers=1).data
    equal = [np.array_equal(*p) for p in zip(content(path), content(other.path), strict=True)]
    return all(equal) and DataFile(path).attrs == other.attrs


@pytest.mark.parametrize(
    "name",
    ["shapestacks", "demo-towers", "objects-room", "clevr10", "multi-dsprites", "tetrominoes"],
)
def test_byte_for_byte_the_same_at_one_and_four_workers(tmp_path: Path, name: str) -> None:
    towers = simulated(name, OPTIONS)
    one, four = tmp_path / "one-16.h5", tmp_path / "four-16.h5"
    prepare(towers, one, workers=1)
    prepare(towers, four, workers=4)
    assert one.read_bytes() == four.read_bytes()
    assert sorted(tmp_path.iterdir()) == [four, one]


def test_no_scenario_is_in_two_splits(path: Path) -> None:
    data = prepare(simulated("shapestacks", OPTIONS), path, workers=1).data
    names = [name for split in SPLITS for name in set(data.split(split).factors["scenario"])]
    assert len(names) == len(set(names)) == 10
    starts = sorted(FIRST_SCENARIO.values())
    assert all(b - a >= MAX_SCENARIOS for a, b in zip(starts, starts[1:], strict=False))
    assert data.background_labels == 1 and data.caption == "shapestacks, simulated"
    assert data.split("train").masks.max() > 0


def test_large_images_are_written_in_smaller_blocks(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks: list[int] = []
    append = preparing.append

    def noted(writer: DataFileWriter, split: str, block: list[Scenario]) -> None:
        blocks.append(sum(len(scene.images) for scene in block))
        append(writer, split, block)

    with monkeypatch.context() as patch:
        patch.setattr(preparing, "FLUSH_BYTES", 8 * 4 * 16**2)
        patch.setattr(preparing, "append", noted)
        prepare(small_source(), path, workers=1)
    assert max(blocks) == 8 and is_whole(path)


def test_a_folder_that_cannot_be_written_is_reported_before_the_survey(tmp_path: Path) -> None:
    def survey(workers: int) -> None:
        pytest.fail("surveyed")

    (tmp_path / "file").touch()
    with pytest.raises(SriFailure):
        prepare(changed(small_source(), survey=survey), tmp_path / "file" / "x-16.h5", workers=1)


def stop_at_ten(index: int) -> Scenario:
    """A signal comes while scene 10 is made."""
    if index == 10:
        os.kill(os.getpid(), signal.SIGTERM)
    return random_scenario(4, 16, 0, index)


@pytest.fixture
def partial(path: Path) -> Path:
    """The file that a stopped preparation leaves: 44 of 168 images."""
    with pytest.raises(Interrupted, match=r"44 of 168.*\n.*sri x"):
        prepare(changed(small_source(), make=stop_at_ten), path, workers=1, command="sri x")
    partial = path.with_name(path.name + ".partial")
    assert list(path.parent.iterdir()) == [partial]
    return partial


def test_a_stopped_preparation_resumes(path: Path, partial: Path) -> None:
    done = prepare(small_source(), path, workers=1)
    assert (done.resumed_from, done.made) == (44, 168 - 44)
    assert not partial.exists() and is_whole(path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_the_survey(path: Path, partial: Path, number: signal.Signals) -> None:
    survey = lambda _: os.kill(os.getpid(), number)  # noqa: E731
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # as the command does
    try:
        with pytest.raises(Interrupted, match=r"\n.*sri x"):
            prepare(changed(small_source(), survey=survey), path, workers=1, command="sri x")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert prepare(small_source(), path, workers=1).resumed_from == 44


def test_a_signal_before_the_first_new_scene(path: Path, partial: Path) -> None:
    """A reader of records has to read all those before it again."""
    source = small_source()

    def items(plan: Any, rows: Rows) -> Iterator[tuple[str, int]]:
        os.kill(os.getpid(), signal.SIGINT)
        yield from source.items(plan, rows)

    with pytest.raises(Interrupted, match="44 of 168"):
        prepare(changed(source, items=items), path, workers=1)
    assert prepare(source, path, workers=1).resumed_from == 44 and is_whole(path)


def test_a_killed_preparation_resumes(path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path\n"
        "from sri_cli.data import prepare as p\n"
        "from tests.small_data import changed, small_source, random_scenario\n"
        "p.ROWS_PER_FLUSH = 16\n"
        "def slow(i):\n"
        "    print(i, flush=True); time.sleep(60 * (i == 18))\n"
        "    return random_scenario(4, 16, 0, i)\n"
        "p.prepare(changed(small_source(), make=slow), Path(sys.argv[1]), workers=1)\n"
    )
    victim = start(str(path), code=code, stderr=None)
    while victim.stdout.readline() != "18\n":
        assert victim.poll() is None
    victim.kill()
    victim.communicate()
    assert not path.exists()
    assert prepare(small_source(), path, workers=1).resumed_from == 64  # flushed every 16
    assert is_whole(path)


def die_at_ten(index: int) -> Scenario:
    """In a worker: it is killed while it makes scene 10."""
    if index == 10:
        os.kill(os.getpid(), signal.SIGKILL)
    return random_scenario(4, 16, 0, index)


def survey_by_workers(_: int) -> None:
    """A survey that reads every scene, as a folder's does."""
    list(parallel_map(die_at_ten, range(12), 2))


def test_a_killed_worker_costs_no_row(path: Path) -> None:
    source = changed(small_source(), items_per_task=1)
    for broken in ({"make": die_at_ten}, {"survey": survey_by_workers}):
        with pytest.raises(SriFailure, match=r"worker.*\n.* sri demo --out x$"):
            prepare(changed(source, **broken), path, workers=2, command="sri demo --out x")
    done = prepare(source, path, workers=1)
    assert 0 < done.resumed_from <= 40  # a task that was sent after it may be lost, too
    assert is_whole(path)
    with pytest.raises(SriFailure, match="worker"):  # in the folder beside a finished file
        prepare(changed(source, survey=survey_by_workers, writes_files=True), path, workers=2)


def test_a_stop_before_the_first_row_names_no_file(path: Path) -> None:
    """Scenes without objects alone are not saved, see `write_missing`."""

    def make(index: int) -> Scenario:
        os.kill(os.getpid(), signal.SIGTERM)
        scene = random_scenario(4, 16, 0, index)
        return replace(scene, masks=np.zeros_like(scene.masks))

    with pytest.raises(Interrupted, match="0 of 168 images") as caught:
        prepare(changed(small_source(), make=make), path, workers=1)
    assert "partial" not in caught.value.message
    assert list(path.parent.iterdir()) == []


def test_masks_that_mark_nothing_leave_no_row_behind(path: Path) -> None:
    def make(index: int) -> Scenario:
        scene = random_scenario(4, 16, 0, index)
        return (
            scene
            if index < FIRST_SCENARIO["val"]
            else replace(scene, masks=np.zeros_like(scene.masks))
        )

    with pytest.raises(SriError, match="masks of val") as caught:
        prepare(changed(small_source(), make=make), path, workers=1)
    assert caught.value.exit_code == 2
    assert list(path.parent.iterdir()) == []  # or other masks would stand beside them later


def test_a_finished_file_is_kept_and_another_one_is_not_overwritten(path: Path) -> None:
    prepare(small_source(), path, workers=1)
    before = path.stat()
    again = prepare(small_source(), path, workers=1)
    assert again.made == 0 and path.stat().st_mtime_ns == before.st_mtime_ns
    with pytest.raises(OtherSettings, match=r"seed 0 -> 1.*\n.*--force"):
        prepare(small_source(seed=1), path, workers=1)
    assert prepare(small_source(seed=1), path, workers=1, force=True).made == 168
    assert is_whole(path, seed=1)


def test_another_partial_is_replaced(
    path: Path, partial: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prepare(small_source(seed=5), path, workers=1).resumed_from == 0
    assert str(partial) in capsys.readouterr().err and is_whole(path, seed=5)
    path.unlink()
    partial.write_bytes(b"no HDF5 at all")
    assert prepare(small_source(), path, workers=1).made == 168


def test_a_damaged_partial_is_replaced(path: Path, partial: Path) -> None:
    damaged = partial.read_bytes().replace(b"GCOL", b"GONE")  # the heap of its attributes
    assert damaged != partial.read_bytes()
    partial.write_bytes(damaged)
    assert prepare(small_source(), path, workers=1).resumed_from == 0
    assert is_whole(path)


@pytest.mark.parametrize("limit", [1000, 60_000, 130_000])
def test_a_full_disk_leaves_nothing(path: Path, limit: int) -> None:
    with largest_file(limit), pytest.raises(SriFailure, match=rf"{path}.*\n."):
        prepare(small_source(), path, workers=1)
    assert list(path.parent.iterdir()) == []


def test_a_full_disk_keeps_earlier_rows(
    path: Path, partial: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = partial.read_bytes()
    with largest_file(len(before) + 1000), pytest.raises(SriFailure):
        prepare(small_source(), path, workers=1)
    with monkeypatch.context() as patch:
        full = os.statvfs_result((4096, 4096, 10, 1, 1, 10, 1, 1, 0, 255))
        patch.setattr("os.statvfs", lambda _: full)
        with pytest.raises(SriFailure, match="MB are free"):
            prepare(small_source(), path, workers=1)
    assert partial.read_bytes() == before
    assert prepare(small_source(), path, workers=1).resumed_from == 44 and is_whole(path)


def test_two_preparations_of_one_file(path: Path) -> None:
    partial = path.with_name(path.name + ".partial")
    lock = lock_file(partial)
    try:
        with pytest.raises(SriError, match="towers-16.h5"):
            prepare(small_source(), path, workers=1)
        assert partial.exists()  # it belongs to the other process
    finally:
        os.close(lock)


def test_numbers_of_scenes() -> None:
    def scenes(**options: int) -> list[int]:
        return list(simulated("shapestacks", Options(**options)).scenes.values())

    assert scenes() == [1000, 160, 640]
    assert scenes(scenes=60) == [60, 10, 10] and scenes(scenes=1) == [1, 2, 2]
    assert scenes(scenes=60, val_scenes=3, test_scenes=4) == [60, 3, 4]
