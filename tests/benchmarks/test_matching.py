"""`sri bench order`: its table, its JSON, and a run's own means."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from sri_cli.cli.main import cli
from sri_cli.generation.trained_run import TrainedRun
from sri_cli.metrics import bench_matching as matching
from sri_cli.models.matching import greedy_order
from sri_cli.run import Workspace


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small tables."""
    monkeypatch.setattr(matching, "SLOTS", (3, 9))
    monkeypatch.setattr(matching, "BATCHES", 3)


def bench(workspace: Workspace | None, *words: str) -> Result:
    roots = []
    if workspace is not None:
        roots = ["--data-root", str(workspace.data_root), "--runs-root", str(workspace.runs_root)]
    return CliRunner().invoke(cli, [*roots, "bench", "order", *words])


def test_made_up_means() -> None:
    result = json.loads(bench(None, "--json", "--batch", "8", "--seed", "1").stdout)
    assert (result["batch"], result["seed"], result["run"]) == (8, 1, None)
    kinds = [(row["slots"], row["noise"]) for row in result["rows"]]
    assert kinds == [(slots, noise) for slots in (3, 9) for noise in matching.NOISES]
    for row in result["rows"]:
        assert row["images"] == 24 and row["timed_batch"] == 8
        for name in ("greedy", "hungarian"):
            assert 0 < row[f"{name}_ms_min"] <= row[f"{name}_ms"] <= row[f"{name}_ms_max"]
    close, unrelated = result["rows"][5], result["rows"][-1]
    assert close["images_differ"] == 0 and close["excess_percent"] == 0
    assert unrelated["images_differ"] > 0.5 and 0.5 < unrelated["excess_percent"] < 20
    assert unrelated["places_differ"] <= unrelated["images_differ"]


def test_what_is_compared_does_not_depend_on_the_machine() -> None:
    keys = ("images_differ", "places_differ", "excess_percent")
    one, two = (
        [[row[key] for key in keys] for row in json.loads(shown.stdout)["rows"]]
        for shown in (bench(None, "--json"), bench(None, "--json"))
    )
    assert one == two


def test_the_table() -> None:
    lines = bench(None, "--batch", "4").stdout.splitlines()
    assert "cores" in lines[0]
    assert lines[1].startswith("milliseconds for 4 images")
    assert len(lines) == 3 + 2 * len(matching.NOISES)
    assert lines[-1].split()[:2] == ["9", "unrelated"] and lines[-1].endswith("%")
    assert len({len(line) for line in lines[3:]}) == 1


def test_a_run_matches_its_own_means(workspace: Workspace, trained: TrainedRun) -> None:
    result = json.loads(bench(workspace, "--run", "tiny", "--json", "--batch", "4").stdout)
    (row,) = result["rows"]
    assert (row["slots"], row["images"], row["means"]) == (3, 12, "tiny")
    assert (result["step"], result["trained_with"]) == (10, "greedy")
    assert 0 <= row["places_differ"] <= row["images_differ"] <= 1


def test_the_means_are_those_that_the_model_orders(
    workspace: Workspace, trained: TrainedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    model = trained.model
    monkeypatch.setattr(matching, "row", lambda means, batch: {"means": means})
    infer = model.infer
    monkeypatch.setattr(
        model, "infer", lambda *given: seen.append(infer(*given)) or seen[-1], raising=True
    )
    device = torch.device("cpu")
    means = matching.row_of_run(workspace, trained, 4, 0, device)["means"]
    assert torch.equal(greedy_order(*means), torch.cat([found.order for found in seen]))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--run", "other"), "matches no slots"),
        (("--run", "nothing"), "no run nothing"),
        (("--batch", "0"), "--batch"),
        (("--seed", "-1"), "--seed"),
    ],
)
def test_bad_input(workspace: Workspace, words: tuple[str, ...], message: str) -> None:
    shown = bench(workspace, *words)
    assert shown.exit_code == 2 and message in shown.stderr.splitlines()[0]
    assert len(shown.stderr.splitlines()) == 2


def test_data_that_is_gone(workspace: Workspace) -> None:
    Path(workspace.data_path("demo-towers", 32)).unlink()
    assert "no data file" in bench(workspace, "--run", "tiny").stderr
