"""`sri bench`: what it reports, in a small size."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner, Result

from sri_cli.cli import cli

TINY = ("--recipe", "sri-mog-tiny")


def sri(*args: str) -> Result:
    return CliRunner().invoke(cli, list(args))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_bench_train_reports_the_contract(precision: str) -> None:
    shown = sri(
        *("bench", "train", *TINY, "--steps", "2", "--batch", "2", "--precision", precision),
        "--json",
    )
    assert shown.exit_code == 0, shown.output
    result = json.loads(shown.stdout)
    assert (result["batch"], result["dtype"], result["device"]) == (2, precision, result["device"])
    assert result["images_per_second"] == pytest.approx(2 / result["seconds_per_step"])
    assert result["seconds_min"] <= result["seconds_per_step"] <= result["seconds_max"]
    assert result["gflop_per_step"] > 0.1
    assert result["aten_calls"] > 1000
    assert result["host_reads"] == 0
    assert {"machine", "cores", "parameters"} <= result.keys()


def test_bench_for_people_says_machine_dtype_and_rate() -> None:
    for verb, more in (("train", ("--steps", "1", "--batch", "2")), ("sample", ("--num", "4"))):
        shown = sri("bench", verb, *TINY, *more, "--precision", "fp32")
        assert shown.exit_code == 0, shown.output
        assert "cores" in shown.stdout and "fp32" in shown.stdout
        assert "images/s" in shown.stdout


def test_bench_sample_json() -> None:
    result = json.loads(sri("bench", "sample", *TINY, "--num", "4", "--json").stdout)
    assert result["images_per_second_min"] <= result["images_per_second"]
    assert result["num"] == 4 and result["slots"] == 4


@pytest.mark.parametrize("words", [("--steps", "0"), ("--batch", "0"), ("--recipe", "nonsense")])
def test_bad_input(words: tuple[str, str]) -> None:
    shown = sri("bench", "train", *words)
    assert shown.exit_code == 2 and shown.stderr.startswith("Error: ")
    assert len(shown.stderr.splitlines()) == 2
