"""`sri bench`: what it reports, in a small size."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from sri_cli.cli.main import cli

TINY = ("--recipe", "sri-mog-tiny")
SMALL = ("--steps", "1", "--batch", "2", "--gpus", "0")


def sri(*args: str) -> Result:
    return CliRunner().invoke(cli, list(args))


def bench(*args: str) -> dict[str, Any]:
    """The JSON object of a verb."""
    shown = sri("bench", *args, "--json")
    assert shown.exit_code == 0, shown.output
    assert len(shown.stdout.splitlines()) == 1
    result: dict[str, Any] = json.loads(shown.stdout)
    assert {"machine", "cores", "threads", "torch", "device"} <= result.keys()
    return result


def check_rows(rows: list[dict[str, Any]]) -> None:
    """Spreads are in order, and rates follow from them."""
    for row in rows:
        keys = ("min", "q1", "median", "q3", "max")
        seconds = [row[f"seconds_{key}"] for key in keys]
        assert seconds == sorted(seconds) and seconds[0] > 0
        assert row["per_second"] == pytest.approx(row["number"] / row["seconds_median"])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_bench_train_reports_the_contract(precision: str) -> None:
    words = ("--steps", "3", "train.batch=2", f"train.precision={precision}")
    result = bench("train", *TINY, *words)
    assert (result["batch"], result["dtype"]) == (2, precision)
    assert result["images_per_second"] == pytest.approx(2 / result["seconds_per_step"])
    assert result["seconds_min"] <= result["seconds_q1"] <= result["seconds_per_step"]
    assert result["seconds_per_step"] <= result["seconds_q3"] <= result["seconds_max"]
    assert result["gflop_per_step"] > 0.1
    assert result["aten_calls"] > 1000
    assert result["host_reads"] == 0
    assert result["parameters"] > 1e6
    check_rows(result["timed"])


def test_bench_train_says_how_near_the_machine_s_peak_and_what_memory() -> None:
    result = bench("train", *TINY, *SMALL)
    rate = 1e9 * result["gflop_per_step"] / result["seconds_per_step"]
    assert result["flop_per_second"] == pytest.approx(rate)
    assert result["share_of_peak"] == pytest.approx(rate / result["peak_flop_per_second"])
    assert 0 < result["share_of_peak"] < 1.2
    assert 0 <= result["memory_added_mb"] < result["memory_mb"] < 20_000
    assert result["loss"] > 0 and result["skipped"] == 0


def test_bench_train_on_real_images(tmp_path: Path, write_small_data: Callable[..., Path]) -> None:
    path = write_small_data(tmp_path / "some-32.h5", images=6)
    result = bench("train", *TINY, *SMALL, "--data", str(path), "--no-counts")
    assert result["images"] == str(path)
    assert "gflop_per_step" not in result  # --no-counts
    shown = sri("bench", "train", *TINY, "--gpus", "0", "--data", str(path))
    assert shown.exit_code == 2 and "fewer than a batch" in shown.stderr


def test_bench_train_stops_when_its_seconds_are_over() -> None:
    result = bench(
        *("train", *TINY, "--steps", "500", "--batch", "2"), "--seconds", "0", "--no-counts"
    )
    assert result["repeats"] == 1


def test_profile(tmp_path: Path) -> None:
    trace = tmp_path / "trace.json.gz"
    result = bench("train", *TINY, *SMALL, "--no-counts", "--profile", "--out", str(trace))
    assert json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    assert len(result["operations"]) == 5 and result["trace"] == str(trace)
    shares = [operation["share"] for operation in result["operations"]]
    assert shares == sorted(shares, reverse=True) and 0.1 < sum(shares) <= 1


def test_bench_for_people_says_machine_dtype_and_rate() -> None:
    for verb, more in (("train", ("--steps", "1", "--batch", "2")), ("sample", ("--num", "4"))):
        shown = sri("bench", verb, *TINY, *more, "--precision", "fp32")
        assert shown.exit_code == 0, shown.output
        assert "cores" in shown.stdout and "fp32" in shown.stdout
        assert "images/s" in shown.stdout
        assert "median s" in shown.stdout and "% of peak" in shown.stdout


def test_bench_sample_json() -> None:
    result = bench("sample", *TINY, "--num", "4")
    assert result["images_per_second_min"] <= result["images_per_second"]
    assert result["images_per_second"] <= result["images_per_second_max"]
    assert result["num"] == 4 and result["slots"] == 4
    assert result["seconds_for_10000"] == pytest.approx(10_000 / result["images_per_second"])
    assert 0 < result["share_of_peak"] < 1.2
    check_rows(result["timed"])


def test_bench_data_from_a_file_and_from_noise(
    tmp_path: Path, write_small_data: Callable[..., Path]
) -> None:
    path = write_small_data(tmp_path / "some-32.h5", images=40)
    words = ("--steps", "1", "--repeats", "2", "train.batch=2")
    result = bench("data", *TINY, *words, "--data", str(path))
    assert (result["images"], result["image_count"]) == (str(path), 40)
    names = [row["what"] for row in result["rows"]]
    assert names == ["resident", "host", "streamed", "noise", "training step"]
    check_rows(result["rows"])
    step = result["rows"][-1]
    assert result["batches_per_second_needed"] == step["per_second"]
    assert result["input_share_of_step"]["streamed"] == pytest.approx(
        result["input_seconds"]["streamed"] / step["seconds_median"]
    )
    made = bench("data", *TINY, *words)
    assert "noise" in made["images"] and made["image_count"] >= 1000


def test_bench_prepare() -> None:
    words = ("--sets", "objects-room", "--scenes", "2", "--repeats", "2", "--workers", "1,2")
    result = bench("prepare", *words)
    check_rows(result["rows"])
    assert [(row["workers"], row["number"]) for row in result["rows"]] == [(1, 2), (2, 4)]
    assert result["rows"][0]["simulator"] == "objects-room"


def test_bench_eval() -> None:
    names = ("ari", "msc", "frechet-128", "root-128", "stack", "elbo")
    result = bench("eval", *TINY, "--metrics", ",".join(names), "--num", "4", "--repeats", "2")
    check_rows(result["rows"])
    assert [row["metric"] for row in result["rows"]] == list(names)
    units = {row["metric"]: row["unit"] for row in result["rows"]}
    assert (units["ari"], units["frechet-128"], units["elbo"]) == ("pairs", "distances", "images")
    shares = {row["metric"]: row.get("share_of_peak") for row in result["rows"]}
    assert shares["ari"] is None and 0 < shares["elbo"] < 1.2


def test_many_gpus_on_paper() -> None:
    words = ("--gpus", "4,1,2", "--seconds-at", "2:0.5,4:0.75,8:1.25", "--batch", "8")
    result = bench("train", *TINY, *words, "--bandwidth-gb", "1", "--latency-us", "0")
    one, two, four = result["rows"]
    whole = bench("train", *TINY, "--batch", "8", "--steps", "1", "--gpus", "0")
    assert result["gflop_per_step"] == pytest.approx(whole["gflop_per_step"])
    assert [row["gpus"] for row in result["rows"]] == [1, 2, 4]
    assert result["seconds_per_step"] == one["seconds_per_step"] == 1.25
    megabytes = result["parameters"] * 4 / 1e6
    assert two["all_reduce_seconds"] == pytest.approx(megabytes / 1000)
    assert four["all_reduce_seconds"] == pytest.approx(1.5 * megabytes / 1000)
    assert four["seconds_per_step"] == pytest.approx(0.5 + four["all_reduce_seconds"])
    assert four["efficiency"] == pytest.approx(1.25 / (4 * four["seconds_per_step"]))
    assert {row["how"] for row in result["rows"]} == {"modelled"}


@pytest.mark.skipif(torch.cuda.device_count() > 1, reason="here they would be measured")
def test_what_is_not_there_is_modelled_from_what_is_measured_here() -> None:
    shown = sri("bench", "train", *TINY, "--gpus", "1,2", "--batch", "2", "--steps", "1")
    assert shown.exit_code == 0, shown.output
    one, two = (line for line in shown.stdout.splitlines() if line.strip()[:2] in ("1 ", "2 "))
    assert one.endswith("measured") and two.endswith("modelled (NVLink 4)")
    assert "370 GB/s" in shown.stdout


def test_two_processes_are_measured() -> None:
    words = ("--gpus", "1,2", "--backend", "gloo", "--batch", "2", "--steps", "1")
    one, two = bench("train", *TINY, *words)["rows"]
    assert (one["how"], two["how"], two["link"]) == ("measured", "measured", "gloo")
    assert two["images_per_gpu"] == 1
    assert two["all_reduce_seconds"] > 0
    whole = two["compute_seconds"] + two["all_reduce_seconds"]
    assert two["seconds_per_step"] == pytest.approx(max(whole, two["all_reduce_seconds"]))


def test_the_suite_in_a_small_size(tmp_path: Path) -> None:
    words = ("gpu-suite", "--device", "cpu", "--quick", "--out", str(tmp_path / "out"))
    only = "environment,step fp32 graph,images,recipe genesis-v2-mog"
    shown = sri("bench", *words, "--only", only, "--json")
    assert shown.exit_code == 0, shown.output
    result = json.loads(shown.stdout)
    found = {record["part"]: record for record in result["records"]}
    assert found["environment"]["result"]["device"] == "cpu"
    assert found["step fp32 graph"]["status"] == "skipped"
    assert found["recipe genesis-v2-mog"]["result"]["images"].endswith(".h5")
    assert result["fastest"] is None  # no step was timed
    assert shown.stderr.count("\n") == len(found)
    report = (tmp_path / "out" / "suite.md").read_text()
    assert "genesis-v2-mog" in report
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["suite.jsonl", "suite.md"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("train", "--steps", "0"), "Invalid value"),
        (("train", "--batch", "0"), "Invalid value"),
        (("train", "--recipe", "nonsense"), "no recipe nonsense"),
        (("train", *TINY, "train.bacth=2"), "did you mean"),
        (("train", *TINY, "--out", "x.json"), "--profile"),
        (("train", *TINY, "--profile", "--out", "x.txt"), "no name for a trace"),
        (("train", *TINY, "--gpus", "two"), "not numbers"),
        (("train", *TINY, "--gpus", "1,64"), "leaves some without an image"),
        (("train", *TINY, "--gpus", "1,2", "--seconds-at", "x"), "IMAGES:SECONDS"),
        (("train", *TINY, "--gpus", "1,2", "--profile"), "--profile is for one device"),
        (("train", *TINY, "--latency-us", "3"), "several GPUs"),
        (("prepare", "--sets", "clevr7"), "did you mean clevr6"),
        (("prepare", "--workers", "0"), "not numbers"),
        (("eval", *TINY, "--metrics", "arr"), "did you mean ari"),
        (("data", *TINY, "--data", "nothing.h5"), "does not exist"),
        (("sample", *TINY, "--gpus", "2"), "--gpus 2"),
        (("gpu-suite", "--device", "cpu", "--only", "stepp"), "no part stepp"),
    ],
)
def test_bad_input(words: tuple[str, ...], message: str) -> None:
    shown = sri("bench", *words)
    assert shown.exit_code == 2 and shown.stderr.startswith("Error: ")
    assert message in " ".join(shown.stderr.split())
    assert len(shown.stderr.splitlines()) == 2
    assert shown.stdout == ""


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("words", [("train", *TINY, "--way", "graph"), ("gpu-suite",)])
def test_what_only_a_gpu_can(words: tuple[str, ...]) -> None:
    shown = sri("bench", *words)
    assert shown.exit_code == 2 and "GPU" in shown.stderr
