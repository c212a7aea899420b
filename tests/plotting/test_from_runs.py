"""`sri figure`, `order`, `edit` and `walk` on small runs: every figure; what is an error."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pypdf
import pytest
from PIL import Image

from sri_cli import checkpoint as checkpoints
from sri_cli.cli.figure import NAMES
from sri_cli.errors import SriError
from sri_cli.generation.trained_run import TrainedRun, open_run
from sri_cli.labeling.session import FOLDER, Model, read_session
from sri_cli.metrics.published import system_name
from sri_cli.metrics.records import append_records, run_subject
from sri_cli.plotting import from_runs
from sri_cli.plotting.edits import edit_note, edit_run
from sri_cli.plotting.figures import Panel, check_page
from sri_cli.plotting.from_runs import (
    IMAGE_FIGURES,
    Options,
    figure_of_runs,
    network_verdicts,
    order_of_run,
    rater_verdicts,
)
from sri_cli.plotting.titles import titles_of
from sri_cli.run import Workspace, checkpoints_in
from tests.damage import largest_file
from tests.labeling.conftest import judge, small_session
from tests.small_cli import sri
from tests.small_data import write_data, write_log, write_run, write_small_data
from tests.small_measurements import ARI, TINY, measured

pytestmark = pytest.mark.usefixtures("here")
BOTH = ("tiny", "other")


@pytest.fixture
def logged(workspace: Workspace) -> Workspace:
    """`tiny` with a log of its training and a measurement."""
    run, data = open_run(workspace, "tiny"), {"name": "demo-towers", **TINY}
    write_log(run.run_dir)
    append_records(run.run_dir, [measured(*ARI, 0.6423, data=data, **run_subject(run))])
    return workspace


def panels(workspace: Workspace, name: str, *runs: str, **given: Any) -> list[Panel]:
    """What a figure of images consists of."""
    opened = [open_run(workspace, run) for run in runs or BOTH]
    rows, _ = from_runs._image_figure(name, opened, Options(**{"num": 2, **given}), [])
    found = [block for row in rows for block in row]
    assert all(isinstance(block, Panel) for block in found)
    return found


@pytest.mark.parametrize("name", sorted(IMAGE_FIGURES.keys() - {"matching"}))
def test_no_image_of_a_figure_is_empty(workspace: Workspace, name: str) -> None:
    for panel in panels(workspace, name):
        assert all(cell.std() > 0 for row in panel.cells for cell in row)


def test_every_figure_has_its_name() -> None:
    assert {*NAMES} == {*IMAGE_FIGURES, "curves", "table"}


@pytest.mark.parametrize("name", NAMES)
def test_every_figure_is_drawn(logged: Workspace, name: str) -> None:
    words = [name, "--run", "tiny", *(["--num", "2"] if name in IMAGE_FIGURES else [])]
    sri("figure", *words, "--out", "x.pdf", code=0)
    text = pypdf.PdfReader("x.pdf").pages[0].extract_text().replace("\n", " ")
    assert ("0.642" if name == "table" else "SRI-MoG tiny (tiny): demo-towers") in text


def test_curves_of_runs_of_the_same_name(logged: Workspace) -> None:
    for study in ("a", "b"):
        shutil.copytree(logged.runs_root / "tiny", logged.runs_root / f"study-{study}" / "one")
    runs = ["--run", "study-a/one", "--run", "study-b/one"]
    assert sri("figure", "curves", *runs, "--out", "x.pdf").exit_code == 0
    text = pypdf.PdfReader("x.pdf").pages[0].extract_text()
    assert "study-a" in text and "study-b" in text


def test_scale_is_a_factor_or_the_side_of_an_image(workspace: Workspace) -> None:
    wide = []
    for scale in ("1x", "3x", "128", "100"):
        words = ["--num", "1", "--scale", scale, "--no-captions", "--out", "x.png"]
        assert sri("figure", "samples", *words).exit_code == 0
        wide.append(Image.open("x.png").width)
    # 100 px are no whole multiple of 32 px; margins grow with the factor.
    assert wide == [64 + 20, 3 * (64 + 20), 2 * (64 + 20), 96 + 32]


def test_slots_and_temperatures_that_are_given_have_rows(workspace: Workspace) -> None:
    images, masks = panels(workspace, "slots", "tiny", slots=11)
    assert [row.split()[0] for row in images.rows] == ["1", "3", "5", "7", "11"]
    assert len(masks.cells) == 5
    (warm,) = panels(workspace, "temperature", "tiny", temperature=0.6)
    assert "temperature 0.6" in warm.rows and len(warm.rows) == 6
    (usual,) = panels(workspace, "samples", "tiny")
    at_one = warm.cells[list(warm.rows).index("temperature 1")]
    for one, other in zip(at_one, usual.cells[0], strict=True):
        assert np.array_equal(one, other)


def test_systems_stand_in_rows_and_data_sets_in_columns(workspace: Workspace) -> None:
    runs = [open_run(workspace, name) for name in (*BOTH, *BOTH, "tiny")]
    for i, data in enumerate(("towers", "towers", "clevr6", "clevr6", "towers")):
        runs[i].extra["source"] = {"caption": data}
    rows, _ = from_runs._image_figure("samples", runs, Options(num=2), [])
    shown = [
        [block and block.caption.split(": ")[1].split(";")[0] for block in row] for row in rows
    ]
    row = ["towers", "clevr6"]
    assert shown == [row, row, ["towers", None]]  # the second run of a system has its own row


def test_one_row_for_each_run_has_a_short_name_and_one_size(workspace: Workspace) -> None:
    runs = [open_run(workspace, name) for name in ("tiny", "pretrained")]
    rows, title = from_runs._image_figure("samples", runs, Options(num=3, rows=True), [])
    ((panel,),) = rows
    assert isinstance(panel, Panel) and list(panel.rows) == ["tiny", "towers"]
    side = max(run.model.image_size for run in runs)
    shapes = [[cell.shape for cell in row] for row in panel.cells]
    assert shapes == [[(side, side, 3)] * 3] * 2 and "seed 0" in title
    write_run(workspace.runs_root / "tiny", step=20)
    steps = [open_run(workspace, str(path)) for path in checkpoints_in(runs[0].run_dir)]
    rows, _ = from_runs._image_figure("samples", steps, Options(num=3, rows=True), [])
    ((panel,),) = rows
    assert isinstance(panel, Panel) and len({*panel.rows}) == 2


def test_images_without_true_masks_or_rollouts(workspace: Workspace) -> None:
    tiny, other = panels(workspace, "reconstructions")
    assert (len(tiny.rows), len(other.rows)) == (5, 4)  # GENESIS-v2 has no rollout
    assert np.array_equal(tiny.cells[0][1], other.cells[0][1])
    with_masks = panels(workspace, "segmentation", "tiny")[0]
    write_data(workspace.data_path("demo-towers", 32), with_masks=False)
    without = panels(workspace, "segmentation", "tiny")[0]
    assert set(with_masks.columns) - set(without.columns) == {"true masks"}


def test_failures_are_the_scenes_that_the_network_judged_worst(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (9, 32, 32, 3), np.uint8)
    found = network_verdicts(images, "clevr6")
    assert len(found.scores) == len(found.names) == 9 and len(found.notes) == 3
    scores = np.linspace(1, 0, 9)
    monkeypatch.setattr(from_runs, "network_verdicts", lambda *_: found._replace(scores=scores))
    (panel,) = panels(workspace, "failures", "tiny", num=9)
    shown = [cell for row in panel.cells for cell in row]
    assert len(shown) == 4 and np.array_equal(shown[0], images[-1])


def test_verdicts_of_raters_come_before_those_of_the_network(
    workspace: Workspace, trained: TrainedRun
) -> None:
    subject = run_subject(trained)
    model = Model(name="tiny", weights=subject["model"], subject=subject, seed=0)

    def session_of(seed: int) -> Path:
        """Six scenes and a catch trial."""
        models, side = {0: model.model_copy(update={"seed": seed})}, trained.model.image_size
        return small_session(workspace.runs_root / FOLDER, 6, seed, 1, 1, models, side)

    def answer(folder: Path, rater: str, answers: str) -> None:
        words = {"y": "plausible", "n": "implausible", "u": "unsure"}
        judge(folder, rater, lambda i: words["y" if i.model is None else answers[i.index]])

    images = read_session(folder := session_of(0)).load_images()
    assert rater_verdicts(trained, 0) is None
    answer(folder, "ada", "nnyuny")
    answer(folder, "bob", "nyyuyy")
    found = rater_verdicts(trained, 0)
    assert found.names == ["1: 2 of 2", "2: 1 of 2", "3: 0 of 2", "5: 1 of 2", "6: 0 of 2"]
    assert (found.scores < 0.5).tolist() == [True, False, False, False, False]
    assert np.array_equal(found.images, images[[0, 1, 2, 4, 5]])
    assert rater_verdicts(open_run(workspace, "other"), 0) is None
    assert rater_verdicts(trained, 1) is None  # scenes of another seed
    usual = trained.model.num_slots
    for options in ({}, {"slots": usual}, {"seed": 1}, {"temperature": 0.9}):
        (panel,) = panels(workspace, "failures", "tiny", **options)
        of_raters = np.array_equal(panel.cells[0][0], images[0])
        assert of_raters is (options in ({}, {"slots": usual}))
    images = read_session(folder := session_of(1)).load_images()
    answer(folder, "ada", "nnnnnn")
    (panel,) = panels(workspace, "failures", "tiny", seed=1)
    assert np.array_equal(panel.cells[0][0], images[0])


def test_more_images_than_a_page_holds_are_refused_before_they_are_drawn(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(from_runs, "draw_scenes", None)
    for name in ("samples", "order", "slots", "temperature", "failures", "segmentation"):
        with pytest.raises(SriError, match="page"):
            figure_of_runs(workspace, name, BOTH, Options(num=3000))
    runs = [open_run(workspace, "tiny") for _ in range(6)]
    for i, run in enumerate(runs):
        run.extra["source"] = {"caption": f"data {i}"}
    with pytest.raises(SriError, match="36 x 3 images"):  # all data sets stand side by side
        from_runs._image_figure("samples", runs, Options(num=18), [])
    with pytest.raises(SriError, match="11 x 50 images"):  # five runs stand in one column
        from_runs._image_figure("order", runs[:1] * 5, Options(num=10, slots=9), [])


@pytest.mark.parametrize("name", IMAGE_FIGURES)
@pytest.mark.parametrize("side", [96, 128])
def test_every_figure_of_a_large_model_fits_on_a_page(name: str, side: int) -> None:
    """Of 11 slots, as the recipes for CLEVR and ClevrTex have, with its default number."""
    check_page(side, *from_runs._shape(name, IMAGE_FIGURES[name].num, 11))


def test_what_to_measure_is_a_command_that_runs(here: Path, workspace: Workspace) -> None:
    shutil.copytree(workspace.runs_root / "tiny", here / "my run")
    (hint,) = sri("figure", "table", "--run", "./my run", code=2).stderr.splitlines()[1:]
    assert shlex.split(hint)[-4:] == ["sri", "eval", "--run", "./my run"]


def test_systems_have_the_names_of_the_paper() -> None:
    names = {
        ("sri-g", "paper"): "SRI-G",
        ("sri-g-no-scene", "paper"): "SRI-G (a) no scene variable",
        ("sri-g-no-alignment", "tiny"): "SRI-G (b) no alignment tiny",
        ("genesis-v2-scene", "paper"): "GENESIS-v2 + scene",
        ("sri-mog-tiny", "paper"): "SRI-MoG tiny",
        ("mine", "small"): "mine small",
    }
    assert {key: system_name(*key) for key in names} == names


def test_order_writes_its_figure_and_scores(trained: TrainedRun) -> None:
    first, again, other = (order_of_run(trained, 12, seed) for seed in (1, 1, 2))
    assert first == again != other and first["scenes"] == 12
    names = [Path(record["figure"]).name for record in (first, other)]
    assert names == ["order-001.png", "order-002.png"]
    assert json.loads(json.dumps(first)) == first
    assert Image.open(first["figure"]).width > 5 * 64
    for which in ("model", "shuffled"):
        for estimate in first[which].values():
            assert estimate["low"] <= estimate["value"] <= estimate["high"]


def test_what_several_runs_share_is_not_in_each_caption(workspace: Workspace) -> None:
    tiny, other = (open_run(workspace, name) for name in BOTH)
    (title,), shared = titles_of([tiny])
    assert tiny.caption in title and f"step {tiny.step}" in title and shared == []
    titles, shared = titles_of([tiny, other])
    assert [tiny.caption in title for title in titles] == [False, False]
    assert shared[0] == tiny.caption
    for name, title in zip(BOTH, titles, strict=True):
        assert f"({name})" in title


# `sri edit`


@pytest.mark.parametrize(
    ("action", "rows", "columns"),
    [("remove", 4, 4), ("repeat", 4, 4), ("exchange", 2, 4), ("reimagine", 2, 7)],
)
def test_every_action_draws_its_figure(
    workspace: Workspace, action: str, rows: int, columns: int
) -> None:
    result = sri("edit", action, "--run", "other", code=0)
    path = Path(result.stdout.strip())
    assert path == Path(f"runs/other/figures/edit-{action}-001.png")
    figure = np.asarray(Image.open(path))
    assert 0 < figure.shape[0] - rows * 2 * 132 < 300
    assert 0 < figure.shape[1] - columns * 132 < 600  # title and caption stay on one line
    before = path.read_bytes()
    assert sri("edit", action, "--run", "other").exit_code == 0 and path.read_bytes() == before


def test_other_options_overwrite_nothing(workspace: Workspace) -> None:
    lines = (
        "figure samples --num 2",
        "figure samples --num 2 --temp 0.5",
        "figure samples --num 2 --temp 0.5 --no-captions",
        "figure samples --num 2 --run tiny --run other",
        "order --num 4",
        "order --num 4 --seed 1",
        "edit remove --slot 1",
        "edit remove --slot 2",
    )
    written = [sri(*line.split()).stdout.splitlines()[-1] for line in (*lines, lines[0])]
    assert len(set(written)) == len(lines) and written[0] == written[-1]
    for file in written:
        record = json.loads(Path(file).with_suffix(".json").read_bytes())
        stem = record["verb"].removeprefix("figure ").replace(" ", "-")
        assert Path(file).name.startswith(stem) and record["seed"] in (0, 1)


def test_the_same_index_of_other_data_overwrites_nothing(workspace: Workspace) -> None:
    first, _ = edit_run(workspace, "tiny", "remove", index=1)
    write_small_data(workspace.data_path("demo-towers", 32))
    second, _ = edit_run(workspace, "tiny", "remove", index=1)
    assert (first.name, second.name) == ("edit-remove-001.png", "edit-remove-002.png")


@pytest.mark.parametrize(
    ("line", "written"),
    [
        ("figure samples", "figures"),
        ("order", "figures"),
        ("edit remove", "figures"),
        ("walk", "figures"),
        ("sample", "samples"),
        ("figure samples --out /proc/x.png", ""),
        ("report --out /proc/x.html", ""),
    ],
)
def test_a_folder_that_cannot_be_written_is_known_before_anything_is_drawn(
    workspace: Workspace, line: str, written: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "sri_cli.generation.sample.choose_precision", None
    )  # all that draws calls it
    if written:
        Path("runs/tiny", written).write_text("")
    assert "writable" in sri(*line.split(), "--run", "tiny", code=1).stderr


@pytest.mark.parametrize("slots", ["2", "3"])
def test_one_note_says_what_other_slots_than_those_of_training_do(
    workspace: Workspace, slots: str
) -> None:
    for line in ("sample --num 1", "figure samples --num 1", "edit reimagine", "walk --frames 2"):
        result = sri(*line.split(), "--run", "tiny", "--slots", slots, code=0)
        notes = [line for line in result.stderr.splitlines() if "trained with 3 slots" in line]
        assert len(notes) == (slots != "3")


@pytest.mark.parametrize("action", ["remove", "repeat", "exchange", "reimagine"])
def test_every_action_takes_an_image(workspace: Workspace, action: str) -> None:
    words = [action, "--slot", "2", "--index", "3", "--out", "a.pdf"]
    assert sri("edit", *words).exit_code == 0 and Path("a.pdf").is_file()


@pytest.mark.parametrize(("size", "mode", "notes"), [((32, 32), "RGB", 0), ((80, 40), "RGBA", 1)])
def test_an_image_of_any_size_is_brought_to_that_of_the_model(
    workspace: Workspace, size: tuple[int, int], mode: str, notes: int
) -> None:
    Image.new(mode, size, (200, 30, 60, 255)[: len(mode)]).save("photo.png")
    out = Path("new/figure.png")
    path, messages = edit_run(workspace, "tiny", "exchange", image=Path("photo.png"), out=out)
    assert path == out and len(messages) == notes
    figure = np.asarray(Image.open(out).convert("RGB"))
    assert ((figure == (200, 30, 60)).all(axis=-1)).sum() >= 128 * 128


def test_an_image_is_cropped_like_those_of_the_training(workspace: Workspace) -> None:
    run, inner = workspace.runs_root / "tiny", (30, 60, 200)
    saved = checkpoints.newest_good(run)
    assert saved is not None
    data = {"name": "photos", "images": 24, "content": "0", "crop": 20}
    checkpoints.save(run, saved.step + 1, saved.weights(), saved.recipe, {}, {"data": data})
    photo = np.full((40, 80, 3), (200, 30, 60), np.uint8)
    photo[10:30, 30:50] = inner
    Image.fromarray(photo).save("photo.png")
    path, _ = edit_run(workspace, "tiny", "exchange", image=Path("photo.png"))
    figure = np.asarray(Image.open(path).convert("RGB"))
    assert ((figure == inner).all(axis=-1)).sum() >= 128 * 128
    assert not (figure == (200, 30, 60)).all(axis=-1).any()


@pytest.mark.parametrize(
    ("run", "action", "has_note"),
    [
        ("other", "exchange", True),
        ("other", "reimagine", True),
        ("tiny", "reimagine", False),
        ("tiny", "exchange", False),
        ("pair", "repeat", True),
    ],
)
def test_a_note_says_where_an_edit_means_less(
    workspace: Workspace, run: str, action: str, has_note: bool
) -> None:
    write_run(workspace.runs_root / "pair", "genesis")
    assert bool(edit_note(open_run(workspace, run), action)) == has_note


@pytest.mark.parametrize("words", ["figure samples --num 1", "edit remove", "walk --frames 6"])
def test_a_full_disk_leaves_nothing_half_written(workspace: Workspace, words: str) -> None:
    for name in ("a.mp4", "a.gif") if words.startswith("walk") else ("a.png", "a.pdf"):
        with largest_file(1000):
            result = sri(*words.split(), "--out", f"out/{name}")
        assert result.exit_code == 1, result.output
    assert list(Path("out").iterdir()) == []
