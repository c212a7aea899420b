"""What comes of labelling: the summary's figures, metrics.jsonl, the paper's tables."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from sri_cli.cli.main import cli
from sri_cli.labeling.rate import prepared
from sri_cli.labeling.results import results
from sri_cli.labeling.scenes import Asked, Deck, Model, cards_of, save
from sri_cli.labeling.session import open_session
from sri_cli.labeling.sources import Wanted, open_sources
from sri_cli.labeling.words import p_words, words
from sri_cli.metrics.sacc import wilson
from sri_cli.run import Workspace
from tests.small_measurements import measured, printed

SIDE = 8
Say = Callable[[int], str]  # a scene's index -> verdict


def model(name: str, **subject: Any) -> Model:
    """A run of sri-g on ShapeStacks, as a measurement names it."""
    record = measured(
        "sacc", "S-Acc", 0.5, run=f"runs/{name}", model=f"weights of {name}", **subject
    )
    return Model(name, f"weights of {name}", record["subject"], record["data"], 0, 9, 1.0)


def session(workspace: Workspace, models: list[Model], num: int = 100, seed: int = 0) -> Path:
    """A session of noise; the runs' folders are made, too."""
    random = np.random.default_rng(seed)
    pictures = random.integers(0, 256, (len(models) * num, SIDE, SIDE, 3), dtype=np.uint8)
    cards = [
        card
        for i in range(len(models))
        for card in cards_of(pictures[i * num : (i + 1) * num], i, range(num))
    ]
    for one in models:
        (workspace.runs_root / one.name / "checkpoints").mkdir(parents=True, exist_ok=True)
    asked = Asked(tuple(one.weights for one in models), seed, num, 0)
    nothing = np.empty((0, SIDE, SIDE, 3), np.uint8)
    deck = Deck(asked, tuple(models), tuple(cards), pictures, (), nothing)
    return save(workspace.runs_root / "labels", deck)


def judge(folder: Path, rater: str, *says: Say) -> None:
    """All scenes of model i as says[i] has it; those that it says "" of are left."""
    opened = open_session(folder, rater)
    for place in range(opened.total):
        card = opened._card(place)
        verdict = says[card.model or 0](card.index)
        if verdict:
            opened.answer(place, verdict, 1.0)


def first(count: int, then: str = "implausible") -> Say:
    return lambda index: "plausible" if index < count else then


def records(workspace: Workspace, name: str) -> list[dict[str, Any]]:
    path = workspace.runs_root / name / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.chdir(tmp_path)
    return Workspace(Path("data"), Path("runs"))


def test_one_raters_figures(empty: Workspace) -> None:
    folder = session(empty, [model("a")])
    judge(folder, "Ann", lambda i: "plausible" if i < 63 else "unsure" if i < 73 else "implausible")
    facts = results(empty)
    (one,) = facts["models"]
    (ann,) = one["raters"]
    assert (ann["judged"], ann["plausible"], ann["implausible"], ann["unsure"]) == (100, 63, 27, 10)
    assert ann["value"] == pytest.approx(0.7)  # of 90 decided
    assert (ann["low"], ann["high"]) == pytest.approx(wilson(63, 90))
    assert (ann["least"], ann["most"]) == pytest.approx((0.63, 0.73))
    assert facts["agreement"] is None and facts["comparison"] is None
    text = words(facts)
    assert "70.0 [59.9, 78.5]" in text and "63.0 to 73.0" in text


def test_it_is_recorded_once_and_again_when_it_changes(empty: Workspace) -> None:
    folder = session(empty, [model("a")])
    judge(folder, "Ann", first(72))
    assert results(empty)["recorded"] == ["runs/a/metrics.jsonl"]
    assert results(empty)["recorded"] == []
    (record,) = records(empty, "a")
    assert record["metric"] == "sacc" and record["name"] == "S-Acc"
    assert record["value"] == 0.72
    assert (record["low"], record["high"]) == pytest.approx((0.6251, 0.7986), abs=1e-4)
    assert record["counts"]["scenes"] == 100 and record["counts"]["raters"] == 1
    assert record["data"]["name"] == "shapestacks" and record["temperature"] == 1.0
    judge(folder, "Bert", first(80))
    assert results(empty)["recorded"] == ["runs/a/metrics.jsonl"]
    assert records(empty, "a")[-1]["value"] == pytest.approx(0.76)


def test_only_who_has_judged_all_counts(empty: Workspace) -> None:
    folder = session(empty, [model("a")])
    judge(folder, "Ann", lambda i: "plausible" if i < 99 else "")
    facts = results(empty)
    assert facts["recorded"] == [] and records(empty, "a") == []
    assert "99 of 100" in words(facts) and "Not recorded" in words(facts)
    judge(folder, "Bert", first(50))
    results(empty)
    assert records(empty, "a")[-1]["value"] == 0.5


def test_who_tried_a_few_scenes_spoils_no_figure_of_a_hundred(empty: Workspace) -> None:
    one = model("a")
    judge(session(empty, [one]), "Ann", first(72))
    judge(session(empty, [one], num=5, seed=1), "Bert", first(0))
    facts = results(empty)
    (record,) = records(empty, "a")
    assert (record["name"], record["value"]) == ("S-Acc", 0.72)
    assert [rater["finished"] for rater in facts["models"][0]["raters"]] == [True, False]


def test_several_raters_are_no_more_scenes(empty: Workspace) -> None:
    folder = session(empty, [model("a")])
    for rater in ("Ann", "Bert", "Cleo"):
        judge(folder, rater, first(72))
    together = results(empty)["models"][0]["together"]
    assert together["value"] == pytest.approx(0.72)
    assert (together["low"], together["high"]) == pytest.approx(wilson(72, 100))
    assert "mean" in together["interval"]


def test_fewer_scenes_do_not_bear_the_plain_name(empty: Workspace) -> None:
    judge(session(empty, [model("a")], num=20), "Ann", first(10))
    results(empty)
    (record,) = records(empty, "a")
    assert record["name"] == "S-Acc of 20 scenes"
    table = printed([record])
    assert "50.0 [29.9, 70.1] (S-Acc of 20 scenes)" in table


def test_the_papers_table_shows_it_under_s_acc(empty: Workspace) -> None:
    judge(session(empty, [model("a")]), "Ann", first(72))
    results(empty)
    own = records(empty, "a")
    estimate = measured("sacc_estimate", "S-Acc estimate", 0.31) | {"subject": own[0]["subject"]}
    table = printed([*own, estimate])
    header = next(line for line in table.splitlines() if line.startswith("model"))
    row = next(line for line in table.splitlines() if "72.0 [62.5, 79.9]" in line)
    # The rater's figure ends where the paper's heading does, the network's under its own.
    end = header.index("S-Acc %") + len("S-Acc %")
    assert row[:end].endswith("72.0 [62.5, 79.9]")
    assert row[end:].strip() == "31.0"
    assert "S-Acc estimate %" in header
    assert "judged by eye" in table


def test_two_raters_agree_as_counted_by_hand(empty: Workspace) -> None:
    folder = session(empty, [model("a")], num=50)
    judge(folder, "Ann", first(25))
    # 20 both plausible, 5 and 10 apart, 15 both not: the textbook's kappa of 0.4.
    judge(folder, "Bert", lambda i: "plausible" if i < 20 or 25 <= i < 35 else "implausible")
    facts = results(empty)["agreement"]
    assert facts["scenes"] == 50 and facts["method"] == "Cohen's kappa"
    assert facts["alike"] == pytest.approx(0.7) and facts["kappa"] == pytest.approx(0.4)


def test_three_raters_on_what_all_have_judged(empty: Workspace) -> None:
    folder = session(empty, [model("a")], num=4)
    judge(folder, "Ann", first(2))
    judge(folder, "Bert", first(2))
    judge(folder, "Cleo", lambda i: ["plausible", "implausible", "implausible", ""][i])
    facts = results(empty)["agreement"]
    assert facts["scenes"] == 3 and facts["method"] == "Fleiss' kappa"
    # Of (3, 0), (2, 1), (0, 3): observed 7/9, by chance (5/9)^2 + (4/9)^2.
    assert facts["kappa"] == pytest.approx((7 / 9 - 41 / 81) / (40 / 81))
    assert facts["alike"] == pytest.approx(2 / 3)


def test_raters_that_always_say_the_same_have_no_kappa(empty: Workspace) -> None:
    folder = session(empty, [model("a")], num=4)
    for rater in ("Ann", "Bert"):
        judge(folder, rater, first(4))
    facts = results(empty)
    assert facts["agreement"]["kappa"] is None and facts["agreement"]["alike"] == 1
    assert "not defined" in words(facts)


def test_two_models_are_tested_against_each_other(empty: Workspace) -> None:
    folder = session(empty, [model("a"), model("b", training_seed=1)], num=4)
    judge(folder, "Ann", first(3), first(1))
    facts = results(empty)
    comparison = facts["comparison"]
    assert comparison["models"] == ["a", "b"]
    (ann,) = comparison["tests"]
    assert ann["difference"] == pytest.approx(0.5)
    assert ann["p"] == pytest.approx(34 / 70)
    assert ann["low"] < 0.5 < ann["high"]
    assert "Ann: +50.0 [" in words(facts) and "p = 0.486" in words(facts)


def test_a_majority_is_of_scenes(empty: Workspace) -> None:
    folder = session(empty, [model("a"), model("b", training_seed=1)], num=4)
    judge(folder, "Ann", first(4), first(0))
    judge(folder, "Bert", first(4), first(0))
    judge(folder, "Cleo", first(0), first(4))
    tests = results(empty)["comparison"]["tests"]
    assert tests[-1]["rater"] is None
    assert tests[-1]["difference"] == pytest.approx(1)
    assert tests[-1]["p"] == pytest.approx(2 / 70)  # of 4 and 4 scenes, not of 12 and 12


def test_three_models_are_not_tested(empty: Workspace) -> None:
    models = [model(name, training_seed=i) for i, name in enumerate("abc")]
    judge(session(empty, models, num=4), "Ann", first(1), first(2), first(3))
    facts = results(empty)
    assert facts["comparison"] is None and len(facts["models"]) == 3
    assert results(empty, {"weights of a": "a", "weights of c": "c"})["comparison"]["models"] == [
        "a",
        "c",
    ]


def test_a_rater_who_misses_catch_trials_is_warned_of(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    wanted = Wanted(num=3, catch=10)
    sources = open_sources(workspace, ["tiny"], (), wanted)
    folder = prepared(workspace.runs_root / "labels", sources, wanted)
    for rater, is_right in (("Ann", True), ("Bert", False)):
        opened = open_session(folder, rater)
        for place in range(opened.total):
            plausible = opened._card(place).plausible is not False
            opened.answer(place, "plausible" if plausible == is_right else "implausible")
    facts = results(workspace)
    assert facts["catch"] == [
        {"rater": "Ann", "right": 10, "wrong": 0, "unsure": 0},
        {"rater": "Bert", "right": 0, "wrong": 10, "unsure": 0},
    ]
    (record,) = records(workspace, "tiny")
    assert record["warning"] == "Bert was right on 0 of 10 catch trials"
    assert record["data"]["name"] == "demo-towers"


def sri(*words_: str) -> Result:
    return CliRunner().invoke(cli, list(words_))


def test_the_command_prints_one_object_and_eval_shows_it(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    wanted = Wanted(num=3, catch=2)
    sources = open_sources(workspace, ["tiny", "other"], (), wanted)
    folder = prepared(workspace.runs_root / "labels", sources, wanted)
    judge(folder, "Ann", first(3), first(1))
    shown = sri("label-sacc", "--summary", "--json")
    assert shown.exit_code == 0, shown.output
    facts = json.loads(shown.stdout)
    assert sorted(one["name"] for one in facts["models"]) == ["other, step 10", "tiny, step 10"]
    assert sorted(facts["recorded"]) == [
        str(workspace.runs_root / name / "metrics.jsonl") for name in ("other", "tiny")
    ]
    shown = sri("label-sacc", "--summary", "--run", "tiny", "--json")
    assert [one["name"] for one in json.loads(shown.stdout)["models"]] == ["tiny, step 10"]
    shown = sri("eval", "--recorded", "--run", "tiny", "--run", "other", "--table", "text")
    assert shown.exit_code == 0, shown.output
    assert shown.stdout.count("(S-Acc of 3 scenes)") == 2
    (value,) = (one["raters"][0]["value"] for one in facts["models"] if "tiny" in one["name"])
    assert f"{100 * value:.1f} [" in shown.stdout


def test_folders_are_summarised_and_nothing_is_written_there(
    empty: Workspace, tmp_path: Path
) -> None:
    subject = {"kind": "images", "images": str(tmp_path / "theirs"), "count": 4, "sha256": "x"}
    judge(session(empty, [Model("theirs", "x", subject)], num=4), "Ann", first(3))
    (tmp_path / "theirs").mkdir()
    facts = results(empty, {}, [Path("theirs")])
    assert facts["models"][0]["raters"][0]["value"] == 0.75
    assert facts["recorded"] == [] and list((tmp_path / "theirs").iterdir()) == []


def test_a_run_that_is_gone_is_told(empty: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    judge(session(empty, [model("a")], num=4), "Ann", first(3))
    (empty.runs_root / "a" / "checkpoints").rmdir()
    facts = results(empty)
    assert facts["recorded"] == [] and facts["models"][0]["raters"][0]["value"] == 0.75
    assert "runs/a is not there" in capsys.readouterr().err


def test_words_for_p() -> None:
    assert [p_words(p) for p in (0.0123, 0.00099, 1.0)] == ["p = 0.012", "p < 0.001", "p = 1.000"]
