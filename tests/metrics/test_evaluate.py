"""`sri eval`: what is measured of runs and folders, recorded, and rejected."""

from __future__ import annotations

import errno
import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from PIL import Image

from sri_cli import checkpoint as checkpoints
from sri_cli.config.load import load_recipe
from sri_cli.data.dataset import DataFile
from sri_cli.data.prepare import prepare
from sri_cli.data.sources.folder import FolderOptions, FolderSource
from sri_cli.errors import SriError
from sri_cli.generation.trained_run import TrainedRun, open_run
from sri_cli.metrics.evaluate import (
    evaluate_all,
    evaluate_run,
    open_images,
    parse_metrics,
    show_recorded,
)
from sri_cli.metrics.image_metrics import SHAPES, ImageMetrics
from sri_cli.metrics.model_metrics import (
    SplitTask,
    bound_scores,
    matching_gaps,
    segmentation_scores,
)
from sri_cli.metrics.records import (
    Context,
    Measurement,
    data_facts,
    read_records,
    recorded,
    run_subject,
)
from sri_cli.metrics.tables import evaluation_text, paper_tables
from sri_cli.metrics.tabular import format_tables
from sri_cli.models.build import build_model
from sri_cli.models.matching import MATCHINGS
from sri_cli.plotting.samples import write_samples
from sri_cli.run import Workspace
from tests import small_cli
from tests.small_cli import ROOT, finish, start, wait_until
from tests.small_data import towers, write_data, write_images, write_small_data, write_splits


def value(records: list[Measurement], metric: str, run: str = "") -> Any:
    """The one value of a metric (of a run whose path ends so)."""
    (found,) = (
        m["value"] for m in records if m["metric"] == metric and m["subject"]["run"].endswith(run)
    )
    return found


def sri_eval(workspace: Workspace, *words: str, **how: Any) -> Result:
    roots = ["--data-root", str(workspace.data_root), "--runs-root", str(workspace.runs_root)]
    return small_cli.sri(*roots, "eval", *words, **how)


# Runs ---------------------------------------------------------------------------------------


def test_measurements_are_complete_and_recorded(workspace: Workspace) -> None:
    records, known = evaluate_all(workspace, ["tiny", "other"], num=10)
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


def test_truncated_lines_spoil_no_other(workspace: Workspace, trained: TrainedRun) -> None:
    file = workspace.runs_root / "tiny" / "metrics.jsonl"
    file.write_text('{"negative_elbo": 1.0, "run": "an older version"}\n{"schema": 1, "met')
    first = evaluate_run(trained, ["elbo"], num=2)
    second = evaluate_run(trained, ["order"], num=2)
    assert read_records(workspace.runs_root / "tiny") == first + second


def test_records_of_version_01_are_read() -> None:
    measured = {m["metric"]: m for m in read_records(ROOT / "tests" / "version_0_1")}
    assert measured["ari_fg"]["value"] == pytest.approx(0.8531, abs=1e-4)
    assert "ARI-FG" in evaluation_text(list(measured.values()))


def test_recorded_measurements_are_of_the_newest_checkpoint(
    workspace: Workspace, trained: TrainedRun
) -> None:
    with pytest.raises(SriError):
        show_recorded(workspace, ["tiny"])
    measured = evaluate_run(trained, ["elbo"], num=2)
    assert show_recorded(workspace, ["tiny"]) == recorded(trained) == measured
    shown = sri_eval(workspace, "--run", "tiny", "--recorded", "--table", "markdown")
    assert "| sri-mog, tiny 32 px, 10 steps |" in shown.stdout
    checkpoint = open_run(workspace, "tiny", device="cpu")
    state = {k: v + 1 for k, v in checkpoint.model.state_dict().items()}
    recipe = checkpoint.recipe.model_dump(mode="json")
    checkpoints.save(workspace.runs_root / "tiny", 20, state, recipe, {})
    with pytest.raises(SriError):
        show_recorded(workspace, ["tiny"])
    before = str(checkpoints.checkpoint_path(workspace.runs_root / "tiny", 10))
    assert show_recorded(workspace, [before]) == measured


def test_a_table_measures_nothing_and_shows_the_largest_sample(
    workspace: Workspace, trained: TrainedRun
) -> None:
    file = trained.run_dir / "metrics.jsonl"
    missing = sri_eval(workspace, "--run", "tiny", "--table")
    assert missing.exit_code == 2 and not file.exists()
    for num in (12, 4):
        evaluate_run(trained, ["ari"], num=num)
    before, known = file.read_bytes(), show_recorded(workspace, ["tiny"])
    shown = sri_eval(workspace, "--run", "tiny", "--table", "--json")
    assert shown.exit_code == 0 and file.read_bytes() == before
    results = json.loads(shown.stdout)["results"]
    assert results == known[: len(known) // 2]  # of 12 images
    tables = [sri_eval(workspace, "--run", "tiny", "--table", *style) for style in ([], ["text"])]
    assert tables[0].stdout == tables[1].stdout
    assert "ARI-FG: 12 images" in " ".join(tables[0].stdout.split())
    assert sri_eval(workspace, "--table", "--num", "4").exit_code == 2
    words = ("--table", "--run", "tiny", "--metrics", "ari", "--num", "3")
    # The new values are recorded, and the table shows the larger sample.
    assert "ARI-FG: 12 images" in " ".join(sri_eval(workspace, *words).stdout.split())
    assert file.read_bytes().startswith(before) and len(file.read_bytes()) > len(before)


def test_a_run_that_cannot_be_written_is_not_measured(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("sri_cli.atomic.tempfile.TemporaryFile", refuse)
    monkeypatch.setattr("sri_cli.metrics.evaluate.evaluate_run", None)
    assert "writable" in sri_eval(workspace, "--run", "tiny", "--num", "2", code=1).stderr


def test_numbers_do_not_depend_on_chunks(
    trained: TrainedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = trained.open_data()
    context = Context(run_subject(trained), data_facts(data, "test"), 0)
    results = []
    for chunk in (1, 7, 16):
        monkeypatch.setattr("sri_cli.metrics.model_metrics.chunk_size", lambda *_, n=chunk: n)
        task = SplitTask(trained, data, "test", 16, seed=0, precision="fp32")
        results.append(segmentation_scores(task, context, ["ari"]) + bound_scores(task, context))
    for other in results[1:]:
        for metric, error in (("negative_elbo", 1e-2), ("ari_fg_attention", 1e-3)):
            assert value(other, metric) == pytest.approx(value(results[0], metric), abs=error)


def test_what_another_order_costs(trained: TrainedRun) -> None:
    task_data = trained.open_data()
    task = SplitTask(trained, task_data, "test", 8, seed=0, precision="fp32")
    gaps = matching_gaps(task)
    assert gaps.keys() == {
        (key, order)
        for key in ("kl_slot", "elbo", "same")
        for order in ("greedy", "hungarian", "sinkhorn", "random")
    }
    assert not gaps["elbo", "greedy"].any() and gaps["same", "greedy"].all()
    changed = gaps["same", "random"] == 0
    assert changed.any() and np.array_equal(gaps["kl_slot", "random"] != 0, changed)
    # A model whose own matching is the other has the sum of both as its -ELBO.
    context, bounds = Context(run_subject(trained), data_facts(task_data, "test"), 0), {}
    for order in ("greedy", "hungarian"):
        trained.model.match = MATCHINGS[order]
        bounds[order] = value(bound_scores(task, context), "negative_elbo")
    gap = bounds["hungarian"] - bounds["greedy"]
    assert gaps["elbo", "hungarian"].mean() == pytest.approx(gap, abs=1e-2)


def test_models_that_match_no_slots_have_no_order_to_exchange(workspace: Workspace) -> None:
    result = sri_eval(workspace, "--run", "other", "--num", "2", "--metrics", "matching")
    assert result.exit_code == 2 and "other" in result.stderr


def test_images_without_foreground_are_counted(trained: TrainedRun) -> None:
    records = evaluate_run(trained, ["ari"], num=16)  # the first image is empty
    objects = np.array([len(np.unique(m)) - 1 for m in towers(16, 2)[1]])
    one = int((objects == 1).sum())
    assert one and records[0]["counts"] == {
        "images": 16,
        "without_foreground": 1,
        "one_object": one,
    }
    assert "1 without foreground" in evaluation_text(records)
    several = next(m for m in records if m["metric"] == "ari_fg_several")
    assert several["counts"] == {"images": 15 - one, "without_foreground": 0, "one_object": 0}
    # An image of one object scores 0 or 1: the mean of all is theirs and that of the others.
    rest = 15 * value(records, "ari_fg") - (15 - one) * several["value"]
    assert rest == pytest.approx(round(rest), abs=1e-9) and 0 <= round(rest) <= one


def test_a_void_label_is_left_out(trained: TrainedRun, tmp_path: Path) -> None:
    whole = write_data(tmp_path / "all-32.h5", name="all")
    file = write_data(tmp_path / "void-32.h5", name="void", void_label=3)
    objects = [len({*np.unique(m).tolist()} - {0, 3}) for m in towers(16, 2)[1]]
    (first, *_) = evaluate_run(trained, ["ari"], str(file), num=16)
    plain, data = DataFile(whole), DataFile(file)
    assert first["data"]["labels"] == data.split("test").labels_digest
    assert data.attrs["sha256"] == plain.attrs["sha256"]  # of the images
    assert data.split("test").labels_digest != plain.split("test").labels_digest
    assert first["counts"]["one_object"] == objects.count(1) and "void label 3" in first["protocol"]


def test_overlaps_and_counts_of_slots(workspace: Workspace, trained: TrainedRun) -> None:
    records = evaluate_run(trained, ["msc", "mbo", "miou", "slots"])
    by_key = {m["metric"]: m for m in records}
    for masks in ("", "_attention"):
        exact, off_by = by_key[f"slots_exact{masks}"], by_key[f"slots_difference{masks}"]
        assert 0 < by_key[f"miou{masks}"]["value"] <= by_key[f"mbo{masks}"]["value"] <= 1
        assert by_key[f"mbo{masks}"]["value"] == by_key[f"msc_fg{masks}"]["value"]
        assert 1 <= by_key[f"slots_used{masks}"]["value"] <= 3
        table = np.array(exact["confusion"])  # of 0 to 3 objects and 0 to 3 used slots
        assert table.shape == (4, 4) and table.sum() == exact["counts"]["images"] == 16
        objects = np.array([len(np.unique(m)) - 1 for m in towers(16, 2)[1]])
        assert table.sum(axis=1).tolist() == np.bincount(objects, minlength=4).tolist()
        assert exact["value"] == np.trace(table, offset=1) / 16  # one for the background, too
        apart = abs(np.subtract.outer(np.arange(1, 5), np.arange(4)))
        assert off_by["value"] == pytest.approx((table * apart).sum() / 16)
        assert exact["low"] < exact["value"] + 1e-9 and exact["high"] > exact["value"] - 1e-9
    assert read_records(trained.run_dir) == records
    shown = sri_eval(workspace, "--run", "tiny", "--table", "latex").stdout
    for heading in ("mBO", "mIoU", r"slot count exact \%", "slot count off by"):
        assert heading in shown


def test_masks_are_needed_by_segmentation_alone(trained: TrainedRun, tmp_path: Path) -> None:
    file = tmp_path / "bare-32.h5"
    write_data(file, with_masks=False)
    with pytest.raises(SriError, match="bare|demo-towers"):
        evaluate_run(trained, ["ari"], str(file))
    assert evaluate_run(trained, ["elbo"], str(file), num=2)[0]["counts"]["images"] == 2


def test_dynamic_slots_are_in_the_protocol(workspace: Workspace) -> None:
    plain, free = (
        evaluate_all(
            workspace, ["tiny"], (), ["ari", "elbo", "matching"], num=8, dynamic_slots=dynamic
        )[0]
        for dynamic in (False, True)
    )
    assert all("dynamic slots" in m["protocol"] for m in free)
    assert not any("dynamic slots" in m["protocol"] for m in plain)
    assert np.isfinite([m["value"] for m in free]).all()
    assert {m["slots"] for m in free} == {None} and {m["slots"] for m in plain} != {None}


def test_dynamic_slots_of_a_model_that_has_none(workspace: Workspace) -> None:
    recipe = load_recipe("sri-sa", None, ["size=tiny", "model.slots=3"])
    model = build_model(**recipe.model.model_dump())
    folder = workspace.runs_root / "fixed"
    checkpoints.save(folder, 1, model.state_dict(), recipe.model_dump(mode="json"), {})
    with pytest.raises(SriError, match="--dynamic-slots"):
        evaluate_all(workspace, ["fixed"], (), ["elbo"], dynamic_slots=True)


def test_split_and_seed_reach_the_measurement(workspace: Workspace) -> None:
    words = ("--run", "tiny", "--metrics", "elbo", "--num", "8", "--json")
    usual, seed, split = (
        json.loads(sri_eval(workspace, *words, *more).stdout)["results"][0]
        for more in ((), ("--seed", "1"), ("--split", "val"))
    )
    assert len({m["value"] for m in (usual, seed, split)}) == 3
    assert (seed["seed"], split["data"]["split"]) == (1, "val")


def test_several_runs_are_one_table(workspace: Workspace) -> None:
    words = ("--run", "tiny", "--run", "other")
    result = sri_eval(workspace, *words, "--num", "4", code=0)
    assert result.stdout.splitlines()[0].split() == ["tiny,", "step", "10", "other,", "step", "10"]
    result = sri_eval(workspace, *words, "--recorded", "--table", "markdown", code=0)
    rows = [line for line in result.stdout.splitlines() if line.startswith("|")]
    names = [row.split("|")[1].split(", ")[-1].strip() for row in rows[2:]]
    assert sorted(names) == ["other", "tiny"]


# Generated images ---------------------------------------------------------------------------


def test_distances_in_random_features_are_not_called_fid(
    workspace: Workspace, trained: TrainedRun, capsys: pytest.CaptureFixture[str]
) -> None:
    networks = ImageMetrics(workspace, features="random")
    kernel, record = evaluate_run(trained, ["fid", "kid"], num=3, networks=networks)
    assert record["name"] == "FD-random-inception(3/3)" and record["metric"] == "fid"
    assert kernel["name"] == "KD-random-inception" and kernel["metric"] == "kid"
    assert kernel["counts"] == record["counts"] == {"real": 3, "generated": 3}
    assert kernel["low"] < kernel["value"] < kernel["high"]
    assert record["warning"] in capsys.readouterr().err
    text = format_tables(paper_tables([kernel, record]), "text")
    assert "KD x1000, other features" in text and "KID" not in text
    assert list((workspace.data_root / "fid").iterdir())
    assert list((workspace.runs_root / "tiny" / "fid").iterdir())


def test_images_on_disk_measure_as_the_run_does(
    workspace: Workspace, trained: TrainedRun, tmp_path: Path
) -> None:
    (own,) = evaluate_run(trained, ["stack-fd"], num=12)
    folders = [
        write_samples(trained, tmp_path / kind, num=12, file_format=kind)
        for kind in ("png", "npz", "h5")
    ]
    given, _ = evaluate_all(workspace, (), folders, ["stack-fd"], data="demo-towers", num=12)
    for record in given:
        assert record["value"] == pytest.approx(own["value"], rel=1e-5)
        assert record["name"] == own["name"] == "stack-FD(12/12)"
        assert record["subject"]["kind"] == "images" and record["subject"]["count"] == 12
    sources = (workspace, ["tiny"], folders[:1], ["stack-fd"])
    both, known = evaluate_all(*sources, data="demo-towers", num=16)
    assert [m["subject"]["kind"] for m in both] == ["run", "images"] and known[-2:] == both


def test_all_images_of_a_folder_are_counted(
    workspace: Workspace, trained: TrainedRun, tmp_path: Path
) -> None:
    folder = write_samples(trained, tmp_path / "few", num=5)
    metrics = ["sacc-estimate", "stack-fd"]
    (distance, share), _ = evaluate_all(workspace, (), [folder], metrics, data="demo-towers")
    assert distance["counts"] == {"real": 16, "generated": 5}
    assert share["counts"]["generated"] == 5 and 0 <= share["low"] <= share["high"] <= 1
    # Features are kept under the hash of the images, with the data.
    caches = list((workspace.data_root / "fid").glob("images_*/*.npz"))
    before = [path.stat().st_mtime_ns for path in caches]
    (again,), _ = evaluate_all(workspace, (), [folder], ["stack-fd"], data="demo-towers")
    assert len(caches) == 1 and again["value"] == distance["value"]
    assert [path.stat().st_mtime_ns for path in caches] == before


def test_other_real_images_change_no_estimate_of_a_runs_scenes(
    workspace: Workspace, trained: TrainedRun, tmp_path: Path
) -> None:
    other = str(write_data(tmp_path / "shapestacks-32.h5", name="shapestacks"))
    (own,) = evaluate_run(trained, ["sacc-estimate"], num=6)
    (beside,) = evaluate_run(trained, ["sacc-estimate"], other, num=6)
    bounds = "value", "low", "high"
    assert [beside[key] for key in bounds] == [own[key] for key in bounds]
    folder = write_samples(trained, tmp_path / "few", num=6)  # whose look --data tells
    (given,), _ = evaluate_all(workspace, (), [folder], ["sacc-estimate"], data=other)
    assert given["high"] != own["high"]


def test_shapes_have_a_warning_where_the_network_is_unsure_of_real_ones(
    workspace: Workspace, tmp_path: Path
) -> None:
    images, masks = towers(16, seed=0)
    for kind, contrast in (("clear", 1.0), ("faint", 0.2)):
        faded = (130 + contrast * (images - 130.0)).astype(np.uint8)
        file = write_splits(tmp_path / f"{kind}.h5", "shapestacks", {"test": (faded, masks, {})})
        (tmp_path / kind).mkdir()
        np.save(tmp_path / kind / "all.npy", images)
        records, _ = evaluate_all(workspace, (), [tmp_path / kind], ["shapes"], data=str(file))
        (sure,) = (m["value"] for m in records if m["metric"] == "shapes_sure_real")
        assert [bool(m["warning"]) for m in records] == [sure < 0.5] * len(records)
        assert (sure < 0.5) == (kind == "faint")


def test_real_images_have_the_shapes_of_real_images(workspace: Workspace, tmp_path: Path) -> None:
    images, masks = towers(16, seed=0)
    blocks = masks.max((1, 2))[:, None] > np.arange(6)
    test = images, masks, {"shapes": np.where(blocks, 0, -1).astype(np.int16)}
    file = write_splits(tmp_path / "squares.h5", "demo-towers", {"test": test})
    (tmp_path / "same").mkdir()
    np.save(tmp_path / "same" / "all.npy", images)
    records, _ = evaluate_all(workspace, (), [tmp_path / "same"], ["shapes"], data=str(file))
    values = {m["metric"]: m["value"] for m in records}
    assert records[0]["metric"] == "shapes_difference" and records[0]["value"] == 0
    named = [values[f"shapes_{shape}"] for shape in SHAPES]
    assert named == [values[f"shapes_{shape}_real"] for shape in SHAPES]
    assert sum(named) == pytest.approx(1) and 0 <= values["shapes_correct_real"] <= 1
    assert all(m["low"] <= m["value"] <= m["high"] for m in records)
    assert records[0]["counts"].items() >= {"real": 16, "generated": 16}.items()
    assert records[-1]["counts"]["blocks"] == blocks.sum()
    test = images, masks, {"shapes": np.zeros((16, 10), np.int16)}
    # Its codes are of other shapes, and it has more objects.
    other = write_splits(tmp_path / "tables.h5", "clevr10", {"test": test})
    records, _ = evaluate_all(workspace, (), [tmp_path / "same"], ["shapes"], data=str(other))
    assert "shapes_correct_real" not in {m["metric"] for m in records}


def test_a_warning_stands_beside_values_of_lossy_files(
    workspace: Workspace, tmp_path: Path
) -> None:
    """In JSON, the table for reading and the paper's; not beside those of PNG files."""
    for ending in ("png", "jpg"):
        write_images(tmp_path / ending, 4, ending=ending)
    words = ["--images", str(tmp_path / "jpg"), "--images", str(tmp_path / "png")]
    words += ["--data", "demo-towers", "--metrics", "sacc-estimate"]
    records = json.loads(sri_eval(workspace, *words, "--json").stdout)["results"]
    assert ["lossy" in (m["warning"] or "") for m in records] == [True, False]
    assert [m["subject"].get("lossy") for m in records] == [4, None]
    for style in ([], ["--table", "text"]):
        shown = sri_eval(workspace, *words, *style).stdout
        assert shown.count("†") == 2 and "4 of the images measured" in " ".join(shown.split())


def test_data_prepared_from_lossy_files_is_known(trained: TrainedRun, tmp_path: Path) -> None:
    """A warning beside what is compared with the real images, none beside scores of scenes."""
    noise = np.random.default_rng(0).integers(0, 256, (9, 32, 32, 3), np.uint8)
    for i, image in enumerate(noise):
        split, ending = ("train", "val", "test")[i // 3], "png" if i < 4 else "jpg"
        (tmp_path / "photos" / split).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / "photos" / split / f"{i}.{ending}")
    file = tmp_path / "photos-32.h5"
    options = FolderOptions(size_px=32)
    data = prepare(FolderSource(tmp_path / "photos", options), file, workers=1).data
    assert [data.num_lossy(split) for split in ("train", "val", "test")] == [0, 2, 3]
    records = evaluate_run(trained, ["elbo", "order"], str(file), num=3)
    warned = {m["metric"]: "lossy" in (m["warning"] or "") for m in records}
    assert warned["negative_elbo"] and not warned["order_iou"]
    assert records[0]["data"]["lossy"] == 3


def test_an_interrupted_evaluation_continues(workspace: Workspace, trained: TrainedRun) -> None:
    run, cache = workspace.runs_root / "tiny", workspace.data_root / "fid"
    words = ["--data-root", str(workspace.data_root), "--runs-root", str(workspace.runs_root)]
    words += ["eval", "--run", "tiny", "--metrics", "elbo,stack-fd"]
    process = start(*words, "--num", "20000")
    wait_until(lambda: list(cache.rglob("*.npz")), process)
    process.send_signal(signal.SIGTERM)
    out, err = finish(process, 75, 120)
    assert out == "" and "Traceback" not in err
    metrics = {m["metric"] for m in read_records(run)}
    assert "negative_elbo" in metrics and "stack_fd" not in metrics
    # The features of the real images are there already.
    (file,) = cache.rglob("*.npz")
    before = file.stat().st_mtime_ns
    evaluate_run(trained, ["stack-fd"], num=16, networks=ImageMetrics(workspace))
    assert file.stat().st_mtime_ns == before
    assert json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["metric"] == "stack_fd"


# Wrong input --------------------------------------------------------------------------------


def test_errors_come_before_the_first_measurement(workspace: Workspace, tmp_path: Path) -> None:
    other_size = str(write_small_data(tmp_path / "demo-towers-64.h5", 4, 64))
    mixed = write_images(tmp_path / "mixed", 2)
    Image.new("RGB", (16, 16)).save(mixed / "2.png")
    large = tmp_path / "large"
    large.mkdir()
    np.savez(large / "a.npz", images=np.zeros((4, 64, 64, 3), np.uint8))
    own = str(workspace.data_path("demo-towers", 32))
    for metrics in (["elbo"], ["stack-fd"]):
        with pytest.raises(SriError, match="64 px"):
            evaluate_all(workspace, ["tiny"], (), metrics, data=other_size)
    with pytest.raises(SriError, match=r"2\.png"):
        evaluate_all(workspace, ["tiny"], [mixed], ["stack-fd"], data=own, num=3)
    with pytest.raises(SriError, match=r"64 px.*\n.*--size 64"):
        evaluate_all(workspace, ["tiny"], [large], ["stack-fd"], data=own)
    with pytest.raises(SriError, match="elbo"):
        evaluate_all(workspace, ["tiny"], [large], ["elbo"], data=own)
    with pytest.raises(SriError, match=str(large)):
        evaluate_all(workspace, ["tiny"], [large], ["stack-fd"])
    single = str(write_small_data(tmp_path / "single-32.h5", 1))
    with pytest.raises(SriError, match="1 test image"):
        evaluate_all(workspace, ["tiny"], (), ["elbo", "stack-fd"], data=single)
    single = str(write_small_data(tmp_path / "single-64.h5", 1, 64))
    with pytest.raises(SriError, match="1 test image"):
        open_images(workspace, large, ["stack-fd"], single, "test", None, 0)
    assert not read_records(workspace.runs_root / "tiny")


def test_metric_names() -> None:
    assert parse_metrics(" elbo, ari,elbo") == ("elbo", "ari")
