"""Order, reconstructions and measurements of a run: what is written, said and refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sri_cli import checkpoint as checkpoints
from sri_cli.config.load import load_recipe
from sri_cli.errors import SriError
from sri_cli.generation.trained_run import TrainedRun, load_run, open_run
from sri_cli.metrics.evaluate import evaluate, parse_metrics
from sri_cli.metrics.evaluate_runs import evaluate_all, evaluate_one, show_recorded
from sri_cli.metrics.measured_words import tables, words
from sri_cli.metrics.picture_metrics import Wanted
from sri_cli.metrics.records import Measurement, read_records
from sri_cli.models.build import build_model
from sri_cli.run import Workspace


def value(records: list[Measurement], metric: str, run: str = "") -> Any:
    """The one value of a metric (of a run whose path ends so)."""
    (found,) = (
        m["value"] for m in records if m["metric"] == metric and m["subject"]["run"].endswith(run)
    )
    return found


def measure(workspace: Workspace, *metrics: str, run: str = "tiny", **more: Any) -> list[Any]:
    return evaluate_one(workspace, open_run(workspace, run), Wanted(metrics, **more))


def test_measurements_are_whole_and_kept(workspace: Workspace) -> None:
    wanted = Wanted(("ari", "msc", "elbo", "order"), num=10)
    records, known = evaluate_all(workspace, ["tiny", "other"], [], wanted)
    assert records == known
    for run in ("tiny", "other"):
        own = [m for m in records if Path(m["subject"]["run"]).name == run]
        assert read_records(workspace.runs_root / run) == own
        assert -1 <= value(own, "ari_fg_attention") <= 1 and 0 <= value(own, "msc_fg") <= 1
        for m in own:
            assert m["low"] is None or m["low"] <= m["value"] <= m["high"]
            assert m["subject"]["step"] == 10 and len(m["subject"]["model"]) == 64
            assert (m["data"]["name"], m["data"]["source"]) == ("demo-towers", "simulated")
            assert m["protocol"] and m["counts"] and m["seed"] == 0
    terms = [value(records, f"term_{name}", "tiny") for name in ("nll", "kl_scene", "kl_slot")]
    # no segregation, no cross-order
    assert value(records, "negative_elbo", "tiny") == pytest.approx(sum(terms), rel=1e-5)
    assert "demo-towers (simulated)" in words(records)


def test_records_are_appended_and_a_torn_line_spoils_no_other(workspace: Workspace) -> None:
    file = workspace.runs_root / "tiny" / "metrics.jsonl"
    file.write_text('{"negative_elbo": 1.0, "run": "an older version"}\n{"schema": 1, "met')
    first = measure(workspace, "elbo", num=2)
    second = measure(workspace, "order", num=2)
    assert read_records(workspace.runs_root / "tiny") == first + second


def test_what_was_measured_before_is_shown_again(workspace: Workspace) -> None:
    with pytest.raises(SriError, match="nothing has been measured"):
        show_recorded(workspace, ["tiny"], [], Wanted())
    kept = measure(workspace, "elbo", num=2)
    found = show_recorded(workspace, ["tiny"], [], Wanted())
    assert found.measured == kept
    assert "| sri-mog-tiny, 32 px, 10 steps |" in tables(found.known, "markdown")
    # A newer checkpoint is another model.
    checkpoint = load_run(workspace.runs_root / "tiny")
    state = {k: v + 1 for k, v in checkpoint.model.state_dict().items()}
    recipe = checkpoint.recipe.model_dump(mode="json")
    checkpoints.save(workspace.runs_root / "tiny", 20, state, recipe, {})
    with pytest.raises(SriError, match="nothing has been measured"):
        show_recorded(workspace, ["tiny"], [], Wanted())


def test_numbers_do_not_depend_on_chunks(
    workspace: Workspace, trained: TrainedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = trained.open_data()
    results = []
    for chunk in (1, 7, 16):
        monkeypatch.setattr("sri_cli.metrics.evaluate.chunk_size", lambda *_, n=chunk: n)
        parts = evaluate(trained, data, ("ari", "elbo"), num=16, precision="fp32")
        results.append([m for part in parts for m in part])
    for other in results[1:]:
        for metric, error in (("negative_elbo", 1e-2), ("ari_fg_attention", 1e-3)):
            assert value(other, metric) == pytest.approx(value(results[0], metric), abs=error)


def test_images_without_foreground_are_counted(workspace: Workspace) -> None:
    records = measure(workspace, "ari", num=16)  # the first image is empty
    assert records[0]["counts"] == {"images": 16, "without_foreground": 1}
    assert "1 without foreground" in words(records)


def test_no_masks_no_ari(
    workspace: Workspace, write_data: Callable[..., None], tmp_path: Path
) -> None:
    file = tmp_path / "bare-32.h5"
    write_data(file, with_masks=False)
    with pytest.raises(SriError, match="no masks"):
        measure(workspace, "ari", data=str(file))
    assert measure(workspace, "elbo", data=str(file), num=2)[0]["counts"]["images"] == 2


def test_data_of_another_size_are_refused_before_any_run_is_measured(
    workspace: Workspace, write_small_data: Callable[..., Path], tmp_path: Path
) -> None:
    file = write_small_data(tmp_path / "demo-towers-64.h5", 4, 64)
    for metrics in (("elbo",), ("stack-fd",)):
        with pytest.raises(SriError, match="64 px, 32 px are wanted"):
            evaluate_all(workspace, ["tiny"], [], Wanted(metrics, data=str(file)))


def test_what_is_wrong_with_the_last_is_told_before_the_first_is_measured(
    workspace: Workspace, tmp_path: Path
) -> None:
    (tmp_path / "given").mkdir()
    for i, side in enumerate((32, 32, 16)):
        Image.new("RGB", (side, side)).save(tmp_path / "given" / f"{i}.png")
    wanted = Wanted(("stack-fd",), data="demo-towers", num=3)
    with pytest.raises(SriError, match="mixes sizes: 2.png is 16 px"):
        evaluate_all(workspace, ["tiny"], [tmp_path / "given"], wanted)
    assert not read_records(workspace.runs_root / "tiny")


@pytest.mark.parametrize("num", [0, -5])
def test_no_images_is_refused(workspace: Workspace, num: int) -> None:
    with pytest.raises(SriError, match="--num"):
        evaluate_all(workspace, [], [], Wanted(("elbo",), num=num))


@pytest.mark.parametrize(
    ("text", "said"),
    [("fdi", "mean fid"), ("ari,sacc-estimat", "mean sacc-estimate"), (" ,", "no metric")],
)
def test_metric_names(text: str, said: str) -> None:
    with pytest.raises(SriError, match=said):
        parse_metrics(text)
    assert parse_metrics(" elbo, ari,elbo") == ("elbo", "ari")


def test_sampling_needs_no_data(workspace: Workspace) -> None:
    workspace.data_path("demo-towers", 32).unlink()
    assert open_run(workspace).caption == "demo-towers (data file not here)"
    with pytest.raises(SriError, match="no data file"):
        open_run(workspace).open_data()


def test_dynamic_slots_are_used_and_told(workspace: Workspace) -> None:
    plain, free = (
        evaluate_all(workspace, ["tiny"], [], Wanted(("ari", "elbo"), num=8), dynamic).measured
        for dynamic in (False, True)
    )
    assert all("dynamic slots" in m["protocol"] for m in free)
    assert not any("dynamic slots" in m["protocol"] for m in plain)
    assert np.isfinite([m["value"] for m in free]).all()
    assert "part of the bound" in words(free)


def test_dynamic_slots_of_a_model_that_has_none(workspace: Workspace) -> None:
    folder = workspace.runs_root / "slots-of-its-own"
    recipe = load_recipe("sri-sa", None, ["size=tiny", "model.slots=3"])
    model = build_model(**recipe.model.model_dump())
    checkpoints.save(folder, 1, model.state_dict(), recipe.model_dump(mode="json"), {})
    with pytest.raises(SriError, match="--dynamic-slots: sri-sa"):
        evaluate_all(workspace, ["slots-of-its-own"], [], Wanted(("elbo",)), True)
