"""A preparation gives the same file whatever the workers and whatever came between."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sri_cli.data import prepare as preparing
from sri_cli.data.dataset import SPLITS, DataFile
from sri_cli.data.parallel import parallel_map
from sri_cli.data.prepare import prepare
from sri_cli.data.source import FIRST_SCENARIO, MAX_SCENARIOS, Options, Survey
from sri_cli.data.sources.shapestacks import simulated_towers
from sri_cli.data.writer import lock_file
from sri_cli.errors import Interrupted, SriError, SriFailure
from tests.small_data import RandomScenario, changed, random_scenario, small_job

ROOT = Path(__file__).parent.parent.parent
OPTIONS = Options(size_px=16, scenes=6, val_scenes=2, test_scenes=2, views=3)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "towers-16.h5"


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flush every 16 rows, so that small preparations have rows to resume from."""
    monkeypatch.setattr(preparing, "ROWS_PER_FLUSH", 16)


def content(path: Path) -> list[np.ndarray]:
    """Everything a reader sees."""
    data = DataFile(path)
    assert data.is_intact()
    parts: list[np.ndarray] = []
    for name in SPLITS:
        split = data.split(name)
        assert split.masks is not None
        parts += [np.asarray(split.images), split.masks]
        parts += [split.factors[key] for key in sorted(split.factors)]
    return parts


def same(a: Path, b: Path) -> bool:
    parts, others = content(a), content(b)
    equal = all(np.array_equal(x, y) for x, y in zip(parts, others, strict=True))
    return equal and DataFile(a).attrs == DataFile(b).attrs


@pytest.mark.parametrize("preset", ["original", "demo"])
def test_byte_for_byte_the_same_at_one_and_four_workers(tmp_path: Path, preset: str) -> None:
    towers = simulated_towers(OPTIONS, preset)  # type: ignore[arg-type]
    one, four = tmp_path / "one-16.h5", tmp_path / "four-16.h5"
    prepare(towers, one, workers=1)
    prepare(towers, four, workers=4)
    assert one.read_bytes() == four.read_bytes()
    assert sorted(tmp_path.iterdir()) == [four, one]


def test_no_scenario_is_in_two_splits(path: Path) -> None:
    data = prepare(simulated_towers(OPTIONS), path, workers=1).data
    names = [name for split in SPLITS for name in set(data.split(split).factors["scenario"])]
    assert len(names) == len(set(names)) == 10
    starts = sorted(FIRST_SCENARIO.values())
    assert all(b - a >= MAX_SCENARIOS for a, b in zip(starts, starts[1:], strict=False))
    assert data.background_labels == 1 and data.caption == "shapestacks, simulated"
    masks = data.split("train").masks
    assert masks is not None and masks.max() > 0


def stop_after(scenarios: int) -> Callable[[int], RandomScenario]:
    """Makes the scenarios of `small_job`, and sends itself SIGTERM at one of them."""

    def make(index: int) -> RandomScenario:
        if index == scenarios:
            os.kill(os.getpid(), signal.SIGTERM)
        return random_scenario(4, 16, 0, index)

    return make


def test_a_stopped_preparation_goes_on_where_it_was(
    path: Path, tmp_path: Path, often: None
) -> None:
    job = small_job()
    with pytest.raises(Interrupted, match=r"stopped by SIGTERM after 44 of 168 images") as caught:
        prepare(changed(job, make=stop_after(10)), path, workers=1)
    assert caught.value.exit_code == 75 and caught.value.hint == "resume: sri prepare"
    partial = path.with_name(path.name + ".partial")
    assert list(tmp_path.iterdir()) == [partial]
    done = prepare(job, path, workers=1)
    assert (done.resumed_from, done.made) == (44, 168 - 44)
    assert not partial.exists()
    whole = prepare(job, tmp_path / "whole-16.h5", workers=1)
    assert same(path, whole.data.path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_while_the_source_is_looked_at_says_so(
    path: Path, tmp_path: Path, often: None, number: signal.Signals
) -> None:
    def survey() -> Survey:
        os.kill(os.getpid(), number)
        return small_job().survey()

    job = changed(small_job(), survey=survey)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # as the command does
    try:
        with pytest.raises(Interrupted, match="nothing is written") as new:
            prepare(job, path, workers=1, command="sri prepare x")
        assert new.value.exit_code == 75 and (new.value.hint or "").endswith(": sri prepare x")
        assert list(tmp_path.iterdir()) == []
        with pytest.raises(Interrupted):
            prepare(changed(small_job(), make=stop_after(10)), path, workers=1)
        with pytest.raises(Interrupted, match="earlier progress is kept"):
            prepare(job, path, workers=1)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert prepare(small_job(), path, workers=1).resumed_from == 44


def test_a_killed_preparation_goes_on(path: Path, tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; import copy\n"
        "from sri_cli.data import prepare as p\n"
        "from tests.small_data import changed, small_job, random_scenario\n"
        "p.ROWS_PER_FLUSH = 16\n"
        "def slow(i):\n"
        "    print(i, flush=True); time.sleep(0.02); return random_scenario(4, 16, 0, i)\n"
        "p.prepare(changed(small_job(), make=slow), Path(sys.argv[1]), workers=1)\n"
    )
    victim = subprocess.Popen(
        [sys.executable, "-c", code, str(path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert victim.stdout is not None
    while victim.stdout.readline() != "18\n":
        assert victim.poll() is None
    victim.kill()
    victim.wait()
    victim.stdout.close()
    assert not path.exists()
    assert prepare(small_job(), path, workers=1).resumed_from == 64  # 4 views, flushed every 16
    assert same(path, prepare(small_job(), tmp_path / "whole-16.h5", workers=1).data.path)


def die_at_ten(index: int) -> RandomScenario:
    """In a worker: the scenario with this index takes it away."""
    if index == 10:
        os.kill(os.getpid(), signal.SIGKILL)
    return random_scenario(4, 16, 0, index)


def test_a_killed_worker_costs_no_row(
    path: Path, tmp_path: Path, often: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT))  # the workers are to find this module
    job = changed(small_job(), items_per_task=1)
    with pytest.raises(SriFailure, match="a worker process was killed") as caught:
        prepare(changed(job, make=die_at_ten), path, workers=2)
    assert caught.value.hint == "resume with fewer workers: sri prepare --workers 1"
    done = prepare(job, path, workers=1)
    assert 0 < done.resumed_from <= 40  # a task that was handed over after it may be lost, too
    assert same(path, prepare(job, tmp_path / "whole-16.h5", workers=1).data.path)


def survey_by_workers() -> Survey:
    """One that needs every scenario to be read, as a folder's does."""
    for _ in parallel_map(die_at_ten, ((index, index) for index in range(12)), 2):
        pass
    return small_job().survey()


def test_a_worker_killed_in_the_survey_is_told(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    job = changed(small_job(), survey=survey_by_workers)
    with pytest.raises(SriFailure, match="a worker process was killed") as caught:
        prepare(job, path, workers=2)
    assert caught.value.hint == "resume with fewer workers: sri prepare --workers 1"
    assert list(tmp_path.iterdir()) == []


def test_masks_of_a_later_split_that_mark_nothing_leave_no_row_behind(
    path: Path, tmp_path: Path, often: None
) -> None:
    def make(index: int) -> RandomScenario:
        scene = random_scenario(4, 16, 0, index)
        return scene if index < FIRST_SCENARIO["val"] else replace(scene, masks=scene.masks * 0)

    with pytest.raises(SriError, match="the masks of val are all zero"):
        prepare(changed(small_job(), make=make), path, workers=1)
    assert list(tmp_path.iterdir()) == []  # or mended masks would stand beside the old ones


def test_a_finished_file_is_kept_and_another_one_is_not_overwritten(path: Path) -> None:
    prepare(small_job(), path, workers=1)
    before = path.stat()
    again = prepare(small_job(), path, workers=1)
    assert again.made == 0 and path.stat().st_mtime_ns == before.st_mtime_ns
    with pytest.raises(SriError, match="seed 0 -> 1") as caught:
        prepare(small_job(seed=1), path, workers=1)
    assert caught.value.exit_code == 2 and "--force" in (caught.value.hint or "")
    forced = prepare(small_job(seed=1), path, workers=1, force=True)
    assert forced.made == 168 and forced.data.attrs["parameters"]["seed"] == 1


@pytest.mark.parametrize("left", [b"no HDF5 at all", b""])
def test_a_useless_partial_is_started_anew(path: Path, left: bytes) -> None:
    path.with_name(path.name + ".partial").write_bytes(left)
    assert prepare(small_job(), path, workers=1).made == 168


def test_a_partial_of_another_job_is_started_anew(
    path: Path, tmp_path: Path, often: None, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Interrupted):
        prepare(changed(small_job(), make=stop_after(10)), path, workers=1)
    done = prepare(small_job(seed=5), path, workers=1)
    assert done.resumed_from == 0 and "starting over" in capsys.readouterr().err
    whole = prepare(small_job(seed=5), tmp_path / "whole-16.h5", workers=1)
    assert same(path, whole.data.path)


@pytest.mark.parametrize("limit", [1000, 60_000, 130_000])
def test_a_full_disk_leaves_nothing(
    path: Path,
    tmp_path: Path,
    often: None,
    limit: int,
    largest_file: Callable[[int], AbstractContextManager[None]],
) -> None:
    with largest_file(limit), pytest.raises(SriFailure, match="could not write") as caught:
        prepare(small_job(), path, workers=1)
    assert caught.value.exit_code == 1 and caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_takes_nothing_that_was_made_before(
    path: Path,
    tmp_path: Path,
    often: None,
    monkeypatch: pytest.MonkeyPatch,
    largest_file: Callable[[int], AbstractContextManager[None]],
) -> None:
    with pytest.raises(Interrupted):
        prepare(changed(small_job(), make=stop_after(10)), path, workers=1)
    partial = path.with_name(path.name + ".partial")
    before = partial.read_bytes()
    with largest_file(len(before) + 1000), pytest.raises(SriFailure, match="could not write"):
        prepare(small_job(), path, workers=1)
    assert partial.read_bytes() == before
    with monkeypatch.context() as patch:
        full = os.statvfs_result((4096, 4096, 10, 1, 1, 10, 1, 1, 0, 255))
        patch.setattr("os.statvfs", lambda _: full)
        with pytest.raises(SriFailure, match="MB are needed"):
            prepare(small_job(), path, workers=1)
    assert partial.read_bytes() == before
    assert prepare(small_job(), path, workers=1).resumed_from == 44
    assert same(path, prepare(small_job(), tmp_path / "whole-16.h5", workers=1).data.path)


def test_a_disk_without_room_is_told_before_the_work(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = os.statvfs_result((4096, 4096, 10, 1, 1, 10, 1, 1, 0, 255))
    monkeypatch.setattr("os.statvfs", lambda _: full)
    with pytest.raises(SriFailure, match="MB are needed"):
        prepare(small_job(), path, workers=1)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(SriFailure) as caught:
        prepare(small_job(), tmp_path / "file" / "towers-16.h5", workers=1)
    assert caught.value.exit_code == 1
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_two_preparations_of_one_file(path: Path) -> None:
    partial = path.with_name(path.name + ".partial")
    held = lock_file(partial)
    try:
        with pytest.raises(SriError, match="another sri is preparing towers-16.h5"):
            prepare(small_job(), path, workers=1)
        assert partial.exists()  # the other's work is not ours to remove
    finally:
        os.close(held)


def test_numbers_of_scenes() -> None:
    def scenes(**options: int) -> list[int]:
        return list(simulated_towers(Options(**options)).scenes.values())

    assert scenes() == [1000, 160, 640]
    assert scenes(scenes=60) == [60, 10, 10] and scenes(scenes=1) == [1, 2, 2]
    assert scenes(scenes=60, val_scenes=3, test_scenes=4) == [60, 3, 4]


@pytest.mark.parametrize(
    "wrong", [{"scenes": 0}, {"views": 17}, {"size_px": 4}, {"val_scenes": -1}, {"seed": -1}]
)
def test_numbers_that_make_no_data_set(wrong: dict[str, int]) -> None:
    with pytest.raises(SriError) as caught:
        simulated_towers(Options(**wrong))
    assert str(*wrong.values()) in caught.value.message and caught.value.hint
