"""`sri figure`: every figure from small runs, what is said of what lacks, nothing empty."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pypdf
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from sri_cli.cli.main import cli
from sri_cli.errors import SriError
from sri_cli.generation.trained_run import open_run
from sri_cli.labeling.session import FOLDER, Item, Model, image_hash, open_session, write_session
from sri_cli.metrics.records import append_records, run_subject
from sri_cli.plotting.figure_draw import Request, figure_of_runs
from sri_cli.plotting.figure_make import make
from sri_cli.plotting.figure_names import KINDS, kind_of
from sri_cli.plotting.figure_raters import judged_by_raters
from sri_cli.plotting.figure_scenes import system_name
from sri_cli.plotting.sheet import Chart, Grid, Panels, Sheet
from sri_cli.run import Workspace

BOTH = ("tiny", "other")
SMALL = {"samples": 3, "order": 2, "slots": 2, "temperature": 2, "rollouts": 2, "segmentation": 2}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def logged(workspace: Workspace) -> Workspace:
    """Runs with logs of their training and measurements."""
    for name, stages in (("tiny", ("segregation", "imagination")), ("other", ("genesis-v2",))):
        folder = workspace.runs_root / name
        records = []
        for step in (10, 20, 30):
            record: dict[str, object] = {"step": step, "kl_scene": 3.0 / step}
            for stage in stages:
                values = (1 / step, 100 / step, 0.001 * step)
                for key, value in zip(("error_per_element", "kl", "beta"), values, strict=True):
                    record[f"{key}/{stage}"] = value
            records.append(json.dumps(record))
        (folder / "log.jsonl").write_text("\n".join(records) + "\n")
        subject = run_subject(open_run(workspace, name))
        append_records(folder, [measured(subject)])
    return workspace


def measured(subject: dict[str, object]) -> dict[str, object]:
    data = {"name": "demo-towers", "image_size": 32, "source": "simulated", "sha256": "c0ffee"}
    return {
        **{"schema": 1, "metric": "ari_fg", "name": "ARI-FG", "value": 0.6423},
        **{"low": 0.61, "high": 0.67, "interval": "95 %", "counts": {"images": 320}},
        **{"subject": subject, "data": data | {"split": "test"}, "seed": 0, "slots": 3},
        **{"temperature": None, "protocol": "strongest decoded mask", "warning": None},
    }


def sri(*words: str) -> Result:
    return CliRunner().invoke(cli, list(words))


def sheet_of(workspace: Workspace, name: str, runs: tuple[str, ...] = BOTH, **asked: Any) -> Sheet:
    asked.setdefault("num", SMALL.get(name))
    return make(workspace, runs, kind_of(name), Request(name, **asked)).sheet


def panels_of(sheet: Sheet) -> list[Panels]:
    return [block for row in sheet.rows for block in row if isinstance(block, Panels)]


@pytest.mark.parametrize("name", [kind.name for kind in KINDS])
def test_every_figure_is_drawn_and_nothing_in_it_is_empty(logged: Workspace, name: str) -> None:
    sheet = sheet_of(logged, name)
    blocks = [block for row in sheet.rows for block in row if block is not None]
    assert blocks
    for panels in panels_of(sheet):
        for cell in (cell for row in panels.cells for cell in row):
            assert cell is not None and cell.std() > 0
    for block in blocks:
        assert not isinstance(block, Chart) or all(block.lines.values())
        assert not isinstance(block, Grid) or len(block.rows) > 1


@pytest.mark.parametrize("name", ["samples", "curves"])
def test_a_figure_as_a_user_asks_for_it(logged: Workspace, name: str) -> None:
    words = [name, "--run", "tiny"] + (["--num", "2"] if name == "samples" else [])
    result = sri("figure", *words)
    assert result.exit_code == 0, result.output
    path = Path(result.stdout.strip().removeprefix("look: "))
    assert (
        path.resolve() == (logged.runs_root / "tiny" / "figures" / f"figure-{name}.png").resolve()
    )
    first = path.read_bytes()
    assert np.asarray(Image.open(io.BytesIO(first))).std() > 0
    assert sri("figure", *words).exit_code == 0 and path.read_bytes() == first
    assert sri("figure", *words, "--out", "x.pdf").exit_code == 0
    text = pypdf.PdfReader("x.pdf").pages[0].extract_text()
    assert "SRI-MoG tiny: demo-towers" in text.replace("\n", " ")
    pdf = Path("x.pdf").read_bytes()
    assert sri("figure", *words, "--out", "x.pdf").exit_code == 0
    assert Path("x.pdf").read_bytes() == pdf


def test_scale_counts_pixels_or_times(workspace: Workspace) -> None:
    wide = []
    for scale in ("1x", "3x", "128"):
        words = ["--num", "1", "--scale", scale, "--no-captions", "--out", "x.png"]
        result = sri("figure", "samples", *words)
        assert result.exit_code == 0 and "even" not in result.output
        wide.append(Image.open("x.png").width)
    margins = 20
    assert wide == [64 + margins, 3 * (64 + margins), 2 * (64 + margins)]
    uneven = sri("figure", "samples", "--num", "1", "--scale", "100", "--out", "x.png")
    assert "--scale 96 is even" in uneven.stderr


def test_another_seed_gives_other_scenes_and_more_begin_with_the_same(workspace: Workspace) -> None:
    few, many = (panels_of(sheet_of(workspace, "samples", num=n))[0] for n in (1, 3))
    other = panels_of(sheet_of(workspace, "samples", num=1, seed=1))[0]
    assert np.array_equal(few.cells[0][0], many.cells[0][0])  # type: ignore[arg-type]
    assert not np.array_equal(few.cells[0][0], other.cells[0][0])  # type: ignore[arg-type]


def test_slots_and_temperatures_asked_for_are_rows_of_their_own(workspace: Workspace) -> None:
    images, masks = panels_of(sheet_of(workspace, "slots", ("tiny",), slots=11))
    assert list(images.rows) == [
        *("1 slot", "3 slots (as in training)", "5 slots", "7 slots", "11 slots")
    ]
    assert len(masks.cells) == 5
    (warm,) = panels_of(sheet_of(workspace, "temperature", ("tiny",), temperature=0.6))
    assert "temperature 0.6" in warm.rows and len(warm.rows) == 6
    usual = panels_of(sheet_of(workspace, "samples", ("tiny",), num=2))[0]
    at_one = warm.cells[list(warm.rows).index("temperature 1")]
    for one, other in zip(at_one, usual.cells[0], strict=True):
        assert np.array_equal(one, other)  # type: ignore[arg-type]


def test_systems_stand_in_rows_and_data_sets_in_columns(workspace: Workspace) -> None:
    runs = workspace.runs_root
    for name in ("tiny", "other"):
        shutil.copytree(runs / name, runs / f"{name}-elsewhere")
    for meta in runs.glob("*-elsewhere/checkpoints/*/meta.json"):
        _say_source(meta, "clevr6")
    names = ("tiny", "other", "tiny-elsewhere", "other-elsewhere", "tiny")
    sheet = sheet_of(workspace, "samples", names)
    shown = [
        [block.caption.split("; ")[0] if isinstance(block, Panels) else None for block in row]
        for row in sheet.rows
    ]
    row = [f"SRI-MoG tiny: {data}" for data in ("demo-towers, simulated", "clevr6")]
    assert shown == [row, row, [row[0], None]]  # the second run of a system has its own row


def _say_source(meta: Path, caption: str) -> None:
    """A checkpoint that remembers other data."""
    from sri_cli.checkpoint import _digest

    content = json.loads(meta.read_text())
    content.pop("sha256")
    content["extra"] = {"source": {"caption": caption}}
    meta.write_text(json.dumps(content | {"sha256": _digest(content)}))


def test_without_true_masks_that_row_is_left_out_and_said(
    workspace: Workspace, write_data: Callable[..., None]
) -> None:
    write_data(workspace.data_path("demo-towers", 32), with_masks=False)
    made = make(workspace, ("tiny",), kind_of("segmentation"), Request("segmentation", num=2))
    (panels,) = panels_of(made.sheet)
    assert "true masks" not in panels.columns and "input" in panels.columns
    assert made.notes == ["demo-towers, simulated holds no masks: drawn without the true ones"]
    assert list(made.sheet.notes) == list(made.notes)


def test_without_rollouts_that_row_is_left_out_and_said(workspace: Workspace) -> None:
    made = make(workspace, BOTH, kind_of("rollouts"), Request("rollouts", num=2))
    tiny, other = panels_of(made.sheet)
    assert (len(tiny.rows), len(other.rows)) == (3, 2)
    assert "other imagines nothing" in made.notes[0]
    assert np.array_equal(tiny.cells[0][1], other.cells[0][1])  # type: ignore[arg-type]


def test_failures_are_those_scenes_that_were_judged_broken(workspace: Workspace) -> None:
    from sri_cli.plotting.figure_failures import failure_block, judged

    trained = open_run(workspace, "tiny")
    verdicts = judged(trained, 3, 1.0, 0)
    assert len(verdicts.images) == len(verdicts.told) == len(verdicts.broken)
    broken = verdicts._replace(broken=verdicts.score < 0)
    assert failure_block(broken, trained, 4, 2) is None
    score = np.linspace(1, 0, len(verdicts.images)).astype(np.float32)
    some = verdicts._replace(score=score, broken=score < 0.02)
    block = failure_block(some, trained, 50, 4)
    assert block is not None
    shown = [cell for row in block.cells for cell in row]
    assert len(shown) == int((score < 0.02).sum()) > 1
    assert np.array_equal(shown[0], verdicts.images[-1])  # type: ignore[arg-type]


def test_failures_by_raters_come_before_those_of_the_estimate(workspace: Workspace) -> None:
    trained = open_run(workspace, "tiny")
    subject = run_subject(trained)
    side, num = trained.model.image_size, 6
    pictures = np.random.default_rng(0).integers(0, 256, (num + 1, side, side, 3), np.uint8)
    items = [
        Item(id=f"m0-{i}", sha256=image_hash(picture), index=i, model=None if i == num else 0)
        for i, picture in enumerate(pictures)
    ]
    weights = subject["model"]
    model = Model(name="tiny", weights=weights, subject=subject, seed=0)
    settings = {"weights": [weights], "seed": 0, "num": num, "catch": 1, "data": None}
    labels = workspace.runs_root / FOLDER
    folder = write_session(labels, settings, [model], items, pictures)
    assert judged_by_raters(labels, trained) is None
    said = {"ada": "nnyuny", "bob": "nyyuyy"}  # of scenes 0 to 5; the catch trial is judged, too
    words = {"y": "plausible", "n": "implausible", "u": "unsure"}
    for rater, answers in said.items():
        session = open_session(folder, rater)
        for place in range(session.total):
            shown = session.image(place)
            index = next(i for i, picture in enumerate(pictures) if np.array_equal(picture, shown))
            assert session.answer({place: words[(answers + "n")[index]]})
    found = judged_by_raters(labels, trained)
    assert found is not None
    assert found.told == ["0: 2 of 2", "1: 1 of 2", "2: 0 of 2", "4: 1 of 2", "5: 0 of 2"]
    assert found.broken.tolist() == [True, False, False, False, False]
    assert np.array_equal(found.images, pictures[[0, 1, 2, 4, 5]])
    assert judged_by_raters(labels, open_run(workspace, "other")) is None
    sheet = make(workspace, ["tiny"], kind_of("failures"), Request("failures", num=1)).sheet
    assert any("Judged by 2 raters" in note for note in sheet.notes)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sampels"], "no figure sampels (did you mean samples?)"),
        ([], "which figure?"),
        (["samples", "--format", "jpg"], "'jpg' is not one of"),
        (["samples", "--out", "x.jpg"], "neither .png nor .pdf"),
        (["samples", "--out", "data"], "is a folder"),
        (["samples", "--out", "x.png", "--format", "pdf"], "is no pdf"),
        (["samples", "--num", "0"], "--num 0"),
        (["samples", "--num", "100000"], "fit on a sheet"),
        (["rollouts", "--num", "60"], "22 fit on a sheet"),
        (["order", "--slots", "300"], "not even one fits"),
        (["samples", "--scale", "big"], "--scale big"),
        (["samples", "--scale", "0x"], "--scale 0x"),
        (["samples", "--scale", "50x"], "too large"),
        (["curves", "--scale", "64"], "has no pictures"),
        (["samples", "--temp", "0"], "--temp 0"),
        (["samples", "--seed", "-1"], "--seed -1"),
        (["segmentation", "--slots", "9"], "changes nothing"),
        (["curves", "--num", "9"], "changes nothing"),
        (["samples", "--run", "tinny"], "did you mean tiny?"),
        (["curves"], "has no log"),
        (["table"], "nothing has been measured"),
    ],
)
def test_mistakes_are_told_in_two_lines_and_nothing_is_written(
    workspace: Workspace, tmp_path: Path, words: list[str], said: str
) -> None:
    result = sri("figure", *words)
    assert result.exit_code == 2, result.output
    error, hint = result.stderr.splitlines()[-2:]
    assert error.startswith("Error: ") and said in error and hint
    assert not list(tmp_path.glob("runs/*/figures")) and not list(tmp_path.glob("x*"))


def test_what_is_said_to_fit_fits_and_one_more_does_not(workspace: Workspace) -> None:
    for name in (kind.name for kind in KINDS if kind.num is not None):
        with pytest.raises(SriError) as caught:
            figure_of_runs(workspace, BOTH, Request(name, num=3000))
        most = int(str(caught.value.hint).removeprefix("--num "))
        with pytest.raises(SriError, match=f"{most} fit"):
            figure_of_runs(workspace, BOTH, Request(name, num=most + 1))
        assert most >= 6


def test_the_list_names_every_figure_and_needs_no_run(tmp_path: Path) -> None:
    result = sri("--runs-root", "nowhere", "figure", "--list")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines] == [kind.name for kind in KINDS]
    assert "the paper's Figure 4" in next(line for line in lines if line.startswith("order"))


def test_the_table_shows_what_was_measured_and_the_curves_every_run(logged: Workspace) -> None:
    (table,) = [b for row in sheet_of(logged, "table").rows for b in row]
    assert isinstance(table, Grid) and len(table.rows) == 3 and table.marked == {1, 2}
    assert "0.642 [0.610, 0.670]" in table.rows[1]
    charts = [b for row in sheet_of(logged, "curves").rows for b in row if isinstance(b, Chart)]
    by_name = {chart.caption.partition(" (")[0]: chart for chart in charts}
    assert len(by_name["KL, nats"].lines) == 2  # each run's own objective, whatever its name
    assert len(by_name["KL of segregation, nats"].lines) == 1
    assert len({tuple(chart.keys) for chart in charts}) == 1


def test_systems_bear_the_names_of_the_paper() -> None:
    names = [
        system_name(recipe, size)
        for recipe, size in (
            ("sri-g", "paper"),
            ("sri-g-no-scene", "paper"),
            ("sri-g-no-alignment", "tiny"),
            ("genesis-v2-scene", "paper"),
            ("sri-mog-tiny", "paper"),
            ("my-own", "paper"),
        )
    ]
    assert names == [
        "SRI-G",
        "SRI-G (a) no scene variable",
        "SRI-G (b) no alignment tiny",
        "GENESIS-v2 + scene",
        "SRI-MoG tiny",
        "my-own",
    ]
