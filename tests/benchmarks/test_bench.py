"""`sri bench`, measured briefly, and the time and memory that it reports."""

from __future__ import annotations

import gzip
import json
import time
from pathlib import Path
from typing import Any

import pytest

from sri_cli import checkpoint as checkpoints
from sri_cli.benchmarks.measure import MATRIX_SIDE, measure, report_text, timings
from sri_cli.benchmarks.sample import sampling_text
from sri_cli.benchmarks.train import training_text
from sri_cli.config.load import load_recipe
from sri_cli.run import SHIPPED
from sri_cli.training.log import read_log
from tests.small_cli import sri, sri_json
from tests.small_data import write_small_data

TINY = ("--recipe", "sri-mog", "--seconds", "0.05", "size=tiny", "model.slot_size=8")


def bench(*args: str) -> dict[str, Any]:
    """The JSON object of `sri bench ARGS --json`, which prints nothing else."""
    result: dict[str, Any] = sri_json("bench", *args)
    assert {"machine", "cores", "threads", "torch", "device"} <= result.keys()
    return result


def test_bench_train(monkeypatch: pytest.MonkeyPatch) -> None:
    # Without instructions for bf16 the matrix product of a measurement takes ten seconds.
    monkeypatch.setitem(MATRIX_SIDE, "cpu", 256)
    result = bench("train", *TINY, "--gpus", "0", "train.batch=2", "train.precision=fp32")
    assert (result["batch"], result["dtype"], result["device"]) == (2, "fp32", "cpu")
    assert result["images_per_second"] == pytest.approx(2 / result["seconds_per_step"])
    assert 0 < result["seconds_min"] <= result["seconds_per_step"]
    rate = 1e9 * result["gflop_per_step"] / result["seconds_per_step"]
    assert result["flop_per_second"] == pytest.approx(rate)
    assert 0 < result["share_of_peak"] < 1.2
    assert result["aten_calls"] > 1000 and result["host_reads"] == 0
    assert 0 < result["memory_mb"] < 20_000 and result["busy_cores"] >= 0
    assert result["loss"] > 0 and result["skipped"] == 0 and result["parameters"] > 1e5
    assert "fp32" in training_text(result)


def test_the_execution_that_is_reported_is_the_one_that_ran() -> None:
    settings = ("train.precision=fp32", "train.compile=on", "model.order=hungarian")
    result = bench("train", *TINY, "train.batch=2", *settings)
    assert result["execution"] == "fp32"  # matched on the host, so not compiled


@pytest.mark.slow
def test_bench_train_on_several_processes() -> None:
    one, two = bench("train", *TINY, "--gpus", "1,2", "--backend", "gloo", "train.batch=2")["rows"]
    assert (one["processes"], two["processes"]) == (1, 2)
    assert two["all_reduce_seconds"] > 0
    expected = one["seconds_per_step"] / (2 * two["seconds_per_step"])
    assert two["efficiency"] == pytest.approx(expected)


def test_bench_sample_with_a_profile(here: Path) -> None:
    result = bench("sample", *TINY, "--num", "4", "--gpus", "0", "--profile")
    assert (result["num"], result["slots"]) == (4, 5)
    assert result["images_per_second"] == pytest.approx(4 / result["seconds_median"])
    assert result["seconds_for_10000"] == pytest.approx(10_000 / result["images_per_second"])
    assert 0 < result["share_of_peak"] < 1.2
    (trace,) = here.iterdir()
    assert trace.name == "sri-bench-trace.json.gz"
    assert json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    operations = result["operations"]
    shares = [operation["share"] for operation in operations]
    assert len(shares) == 5 and shares == sorted(shares, reverse=True)
    text = sampling_text(result)
    assert trace.name in text and all(operation["name"] in text for operation in operations)


def test_bench_data(tmp_path: Path) -> None:
    path = write_small_data(tmp_path / "some-32.h5", images=40)
    large = sri("bench", "data", *TINY, "--data", str(path), "train.batch=64")
    assert large.exit_code == 2 and "train.batch=40" in large.stderr
    result = bench("data", *TINY, "--data", str(path), "--gpus", "0", "train.batch=2")
    rows = {row["what"]: row["seconds_median"] for row in result["rows"]}
    assert (result["images"], result["image_count"]) == (str(path), 40)
    assert list(rows) == ["resident", "host", "streamed", "noise", "training step"]
    assert result["input_share_of_step"]["streamed"] == pytest.approx(
        (rows["streamed"] + rows["noise"]) / rows["training step"]
    )


def test_bench_data_of_random_images_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sri_cli.benchmarks.data.NOISE_IMAGES", 40)
    shown = sri(
        "bench", "data", *TINY, "--gpus", "0", "train.batch=2", "train.precision=fp32", code=0
    )
    assert "cores" in shown.stdout and "fp32" in shown.stdout and "40 images" in shown.stdout


def test_a_measurement_repeats_until_its_seconds_are_over() -> None:
    runs: list[float] = []

    def work() -> None:
        runs.append(time.perf_counter())
        time.sleep(0.02)

    result = timings(measure(work, 0.2))
    assert runs[-1] - runs[0] >= 0.2
    assert 0.02 <= result["seconds_min"] <= result["seconds_median"] < 0.2
    assert 3 <= result["repeats"] < len(runs)  # a warm-up is not counted


def test_a_busy_machine_is_noted() -> None:
    machine = dict.fromkeys(("machine", "cores", "threads", "device", "torch"), "x")
    assert "Note: " in report_text(machine | {"busy_cores": 1.0}, [])
    assert "Note: " not in report_text(machine | {"busy_cores": 0.0}, [])


def test_quality_of_a_run_whose_checkpoints_are_measured(here: Path) -> None:
    command = ("bench", "quality", "--run", "pretrained", "--sacc", "50", "--stack-fd", "1")
    result = sri_json(*command)
    assert result["started_from"]["step"] == 6000
    (row,) = result["checkpoints"]  # with metrics, so that nothing is measured
    log = read_log(SHIPPED["pretrained"])
    assert row["step"] == log[-1]["step"]
    seconds = row["minutes"] * 60
    batch, steps = 16, row["step"]
    rates = [record["images_per_second"] for record in log]
    assert batch * steps / max(rates) < seconds < batch * steps / min(rates)
    assert result["reached"] == {"sacc_estimate": row, "stack_fd": None}
    assert f"{steps:,}" in sri(*command).stdout
    lines = Path("runs/pretrained/metrics.jsonl").read_text().splitlines()
    measured = [json.loads(line) for line in lines]
    few = {"counts": {"real": 50, "generated": 50}, "value": 360.0}
    others: list[dict[str, Any]] = [
        few,
        {"data": {"split": "val"}},
        {"data": {"sha256": "0" * 64}},
        {"temperature": 0.5},
        {"seed": 1},
    ]
    with open("runs/pretrained/metrics.jsonl", "a") as file:
        for changes in others:
            last = next(m for m in measured if m["metric"] == "stack_fd")
            data = last["data"] | changes.pop("data", {})
            file.write(json.dumps(last | {"value": 1.0, "data": data} | changes) + "\n")
    assert sri_json(*command)["checkpoints"] == [row]


def test_quality_needs_a_log(here: Path) -> None:
    recipe = load_recipe("sri-mog", None, ["size=tiny"])
    checkpoints.save(here / "runs" / "imported", 1, {}, recipe.model_dump(mode="json"), {})
    assert "no log" in sri("bench", "quality", "--run", "imported", code=2).stderr
