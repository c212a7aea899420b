"""Order, reconstructions and measurements of a run: what is written, said and refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sri_cli import checkpoints
from sri_cli.errors import SriError
from sri_cli.looking.evaluate import evaluate_one, evaluate_runs, words
from sri_cli.looking.order import look_at_order, order_of_run
from sri_cli.looking.reconstruct import reconstruct_of_run
from sri_cli.looking.trained import Trained, open_data, open_run
from sri_cli.metrics.evaluate import evaluate, parse_metrics
from sri_cli.model.build import build_model
from sri_cli.recipe.load import load_recipe
from sri_cli.workspace import Workspace


def test_order_record_and_figure(workspace: Workspace) -> None:
    record = order_of_run(workspace, None, num=12, seed=0, out=None)
    assert record["run"].endswith("tiny") and record["scenes"] == 12  # the latest run
    assert json.loads(json.dumps(record)) == record
    assert Image.open(record["figure"]).width > 5 * 72
    for which in ("model", "shuffled"):
        for estimate in record[which].values():
            assert estimate["low"] <= estimate["value"] <= estimate["high"]


def test_order_repeats_from_its_seed(trained: Trained) -> None:
    first, again, other = (look_at_order(trained, 6, seed) for seed in (1, 1, 2))
    assert first.record == again.record != other.record
    assert np.array_equal(first.figure, again.figure)


@pytest.mark.parametrize("num", [-1, 1, 10**6])
def test_order_needs_scenes_to_compare(workspace: Workspace, num: int) -> None:
    with pytest.raises(SriError, match="--num"):
        order_of_run(workspace, None, num, 0, None)


@pytest.mark.parametrize(("run", "rows"), [("tiny", 5), ("other", 4)])
def test_reconstruction_figure(workspace: Workspace, tmp_path: Path, run: str, rows: int) -> None:
    path, caption = reconstruct_of_run(workspace, run, None, "val", 4, 0, tmp_path / "r.png")
    assert caption == "demo-towers, simulated"
    assert Image.open(path).height // (64 + 2) == rows  # GENESIS-v2 imagines nothing


@pytest.mark.parametrize(("num", "split"), [(0, "test"), (65, "test"), (4, "tset")])
def test_reconstruction_refuses(workspace: Workspace, num: int, split: str) -> None:
    with pytest.raises(SriError) as caught:
        reconstruct_of_run(workspace, "tiny", None, split, num, 0, None)
    assert caught.value.hint
    assert not (workspace.runs_root / "tiny" / "figures").exists()


def test_evaluation_record(workspace: Workspace) -> None:
    records = evaluate_runs(workspace, ["tiny", "other"], "ari,msc,elbo,order", num=10)
    for record in records:
        assert record["images"] == 10 and record["data"] == "demo-towers, simulated"
        assert 0 <= record["msc_fg"] <= 1 and -1 <= record["ari_fg_attention"] <= 1
        written = Path(record["run"], "metrics.jsonl").read_text().splitlines()
        assert [json.loads(line) for line in written] == [record]
    terms = records[0]["terms"]
    bound = terms["nll"] + terms["kl_scene"] + terms["kl_slot"]  # no segregation, no cross-order
    assert records[0]["negative_elbo"] == pytest.approx(bound, rel=1e-5)
    assert "demo-towers, simulated" in words(records, "text")


def test_records_are_appended(workspace: Workspace) -> None:
    for _ in range(2):
        evaluate_runs(workspace, ["tiny"], "elbo", num=2)
    assert len((workspace.runs_root / "tiny" / "metrics.jsonl").read_text().splitlines()) == 2


def test_numbers_do_not_depend_on_chunks(
    workspace: Workspace, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = open_data(workspace, trained.loaded)
    results = []
    for chunk in (1, 7, 16):
        monkeypatch.setattr("sri_cli.metrics.evaluate.chunk_size", lambda *_, n=chunk: n)
        results.append(evaluate(trained.loaded, data, ("ari", "elbo"), num=16, precision="fp32"))
    for other in results[1:]:
        assert other["negative_elbo"] == pytest.approx(results[0]["negative_elbo"], rel=1e-6)
        assert other["ari_fg_attention"] == pytest.approx(results[0]["ari_fg_attention"], abs=1e-3)


def test_images_without_foreground_are_counted(workspace: Workspace, trained: Trained) -> None:
    record = evaluate_one(workspace, trained, ("ari",), num=16)  # the first image is empty
    assert record["without_foreground"] == 1
    assert "1 without foreground" in words([record], "text")


def test_no_masks_no_ari(
    workspace: Workspace, write_data: Callable[..., None], tmp_path: Path
) -> None:
    file = tmp_path / "bare-32.h5"
    write_data(file, with_masks=False)
    with pytest.raises(SriError, match="no masks"):
        evaluate_runs(workspace, [], "ari", data=str(file))
    assert evaluate_runs(workspace, [], "elbo", data=str(file), num=2)[0]["images"] == 2


@pytest.mark.parametrize("num", [0, -5])
def test_no_images_is_refused(workspace: Workspace, num: int) -> None:
    with pytest.raises(SriError, match="--num"):
        evaluate_runs(workspace, [], "elbo", num=num)


@pytest.mark.parametrize(
    ("text", "said"),
    [("fid", "later"), ("ari,sacc-estimate", "later"), ("elbow", "mean elbo"), (" ,", "no metric")],
)
def test_metric_names(text: str, said: str) -> None:
    with pytest.raises(SriError, match=said):
        parse_metrics(text)
    assert parse_metrics(" elbo, ari,elbo") == ("elbo", "ari")


def test_sampling_needs_no_data(workspace: Workspace) -> None:
    workspace.data_path("demo-towers", 32).unlink()
    assert open_run(workspace).caption == "demo-towers (data file not here)"
    with pytest.raises(SriError, match="no data file"):
        open_data(workspace, open_run(workspace).loaded)


def test_dynamic_slots_are_used_and_told(workspace: Workspace, tmp_path: Path) -> None:
    plain, free = (
        evaluate_runs(workspace, ["tiny"], "ari,elbo", num=8, dynamic_slots=dynamic)[0]
        for dynamic in (False, True)
    )
    assert free.pop("dynamic_slots") is True and "dynamic_slots" not in plain
    assert "; dynamic slots" in words([{**free, "dynamic_slots": True}], "text")
    assert np.isfinite([value for value in free.values() if isinstance(value, float)]).all()
    reconstruct_of_run(workspace, "tiny", None, "val", 4, 0, tmp_path / "r.png", True)


def test_dynamic_slots_of_a_model_that_has_none(workspace: Workspace) -> None:
    folder = workspace.runs_root / "slots-of-its-own"
    recipe = load_recipe("sri-sa", None, ["size=tiny", "model.slots=3"])
    model = build_model(**recipe.model.model_dump())
    checkpoints.save(folder, 1, model.state_dict(), recipe.model_dump(mode="json"), {})
    with pytest.raises(SriError, match="--dynamic-slots: sri-sa does not take images apart"):
        evaluate_runs(workspace, ["slots-of-its-own"], "elbo", dynamic_slots=True)
