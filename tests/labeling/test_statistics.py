"""Answers counted over sessions and raters: S-Acc, agreement, comparison, metrics.jsonl."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import binomtest

from sri_cli.checkpoint import newest_good
from sri_cli.config.load import recipe_from_dict
from sri_cli.data.dataset import DataFile
from sri_cli.errors import SriError
from sri_cli.labeling.ratings import collect_ratings, rated_scenes
from sri_cli.labeling.scenes import Source, check_sources, prepare_session
from sri_cli.labeling.session import (
    QUESTIONS,
    SCENES,
    STACKS,
    Item,
    Model,
    Session,
    read_sessions,
)
from sri_cli.labeling.statistics import summarise, summary_text
from sri_cli.metrics.records import data_facts
from sri_cli.metrics.sacc import cohen_kappa, difference, fleiss_kappa, wilson
from sri_cli.metrics.tables import DOUBTFUL
from sri_cli.run import Workspace
from sri_cli.training.run_folder import describe_run, trained_on
from tests import small_cli
from tests.labeling.conftest import judge, small_session
from tests.small_data import write_data, write_run
from tests.small_measurements import measured, printed

Verdict = Callable[[Item], str]


def session(workspace: Workspace, *names: str, num: int = 100, seed: int = 0) -> Path:
    """A session of these runs, without catch trials; the runs' folders are made, too."""
    models = {}
    for i, name in enumerate(names):
        (workspace.runs_root / name / "checkpoints").mkdir(parents=True, exist_ok=True)
        line = measured(
            "sacc", "S-Acc", 0.5, run=f"runs/{name}", model=f"weights of {name}", training_seed=i
        )
        facts = {"subject": line["subject"], "data": line["data"], "seed": seed, "slots": 9}
        models[i] = Model(name=name, weights=f"weights of {name}", temperature=1.0, **facts)
    labels = workspace.runs_root / "labels"
    return small_session(labels, num, seed, len(names), catch=0, subjects=models)


def first(*counts: int) -> Verdict:
    """The first scenes of each model are plausible, the others not."""
    return lambda item: "plausible" if item.index < counts[item.model or 0] else "implausible"


def records(workspace: Workspace, name: str) -> list[dict[str, Any]]:
    path = workspace.runs_root / name / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_figures_of_one_rater(empty: Workspace) -> None:
    def verdict(item: Item) -> str:
        return "plausible" if item.index < 63 else "unsure" if item.index < 73 else "implausible"

    judge(session(empty, "a"), "Ann", verdict)
    facts = summarise(empty)
    (ann,) = facts["models"][0]["raters"]
    assert [ann[k] for k in ("judged", "plausible", "implausible", "unsure")] == [100, 63, 27, 10]
    assert ann["value"] == pytest.approx(0.7)  # of 90 decided
    assert (ann["low"], ann["high"]) == pytest.approx(wilson(63, 90))
    assert facts["agreement"] is None and facts["comparison"] is None
    assert "70.0 [59.9, 78.5]" in summary_text(facts)


def test_it_is_recorded_once_and_again_when_it_changes(empty: Workspace) -> None:
    folder = session(empty, "a")
    judge(folder, "Ann", first(72))
    assert summarise(empty)["recorded"] == ["runs/a/metrics.jsonl"]
    assert summarise(empty)["recorded"] == []
    (record,) = records(empty, "a")
    assert (record["metric"], record["name"], record["value"]) == ("sacc", "S-Acc", 0.72)
    assert (record["low"], record["high"]) == pytest.approx((0.6251, 0.7986), abs=1e-4)
    assert (record["counts"]["scenes"], record["counts"]["raters"]) == (100, 1)
    assert record["data"]["name"] == "shapestacks" and record["temperature"] == 1.0
    table = printed([record])
    assert "72.0 [62.5, 79.9]" in table
    judge(folder, "Bert", first(80))
    assert summarise(empty)["recorded"] == ["runs/a/metrics.jsonl"]
    last = records(empty, "a")[-1]
    assert last["value"] == pytest.approx(0.76)
    assert (last["low"], last["high"]) == pytest.approx(wilson(76, 100))  # not of 200 scenes


def test_only_raters_who_judged_all_scenes_count(empty: Workspace) -> None:
    folder = session(empty, "a")
    judge(folder, "Ann", lambda item: "plausible" if item.index < 99 else "")
    facts = summarise(empty)
    assert facts["recorded"] == [] and records(empty, "a") == []
    assert "99 of 100" in summary_text(facts)
    judge(folder, "Bert", first(50))
    judge(session(empty, "a", num=5, seed=1), "Cleo", first(0))  # a small session of the same run
    facts = summarise(empty)
    assert [(r["rater"], r["finished"]) for r in facts["models"][0]["raters"]] == [
        ("Ann", False),
        ("Bert", True),
        ("Cleo", False),
    ]
    assert records(empty, "a")[-1]["value"] == 0.5


def test_a_larger_session_that_was_begun_adds_nothing_until_its_end(empty: Workspace) -> None:
    judge(session(empty, "a", num=10, seed=1), "Ann", first(10))
    large = session(empty, "a")
    judge(large, "Ann", lambda item: "implausible" if item.index < 37 else "")
    facts = summarise(empty)
    (ann,) = facts["models"][0]["raters"]
    assert (ann["finished"], ann["judged"]) == (False, 47) and "47 of 100" in summary_text(facts)
    (record,) = records(empty, "a")
    assert (record["name"], record["value"], record["counts"]["scenes"]) == (
        *("S-Acc of 10 scenes", 1.0),
        10,
    )
    judge(large, "Ann", lambda item: "implausible" if item.index >= 37 else "")
    assert summarise(empty)["models"][0]["raters"][0]["finished"]
    assert records(empty, "a")[-1]["counts"]["scenes"] == 110


def test_two_raters_agree_as_counted_by_hand(empty: Workspace) -> None:
    folder = session(empty, "a", num=50)
    judge(folder, "Ann", first(25))
    # 20 both plausible, 5 and 10 apart, 15 both not: kappa is 0.4.
    plausible = {*range(20), *range(25, 35)}
    judge(folder, "Bert", lambda i: "plausible" if i.index in plausible else "implausible")
    facts = summarise(empty)["agreement"]
    assert facts["scenes"] == 50 and "Cohen" in facts["method"]
    assert facts["alike"] == pytest.approx(0.7) and facts["kappa"] == pytest.approx(0.4)


def test_three_raters_are_compared_on_scenes_that_all_judged(empty: Workspace) -> None:
    folder = session(empty, "a", num=4)
    for rater, verdict in (("Ann", first(2)), ("Bert", first(2)), ("Cleo", first(1))):
        judge(folder, rater, lambda item, given=verdict: given(item) if item.index < 3 else "")
    facts = summarise(empty)["agreement"]
    assert facts["scenes"] == 3 and "Fleiss" in facts["method"]
    # Of (3, 0), (2, 1), (0, 3): observed 7/9, by chance (5/9)^2 + (4/9)^2.
    assert facts["kappa"] == pytest.approx((7 / 9 - 41 / 81) / (40 / 81))
    assert facts["alike"] == pytest.approx(2 / 3)


def test_a_rater_of_a_few_scenes_does_not_change_the_agreement_of_the_others(
    empty: Workspace,
) -> None:
    folder = session(empty, "a", num=4)
    judge(folder, "Ann", first(2))
    judge(folder, "Bert", first(2))
    judge(folder, "Cleo", lambda item: "plausible" if item.index < 3 else "")
    facts = summarise(empty)["agreement"]
    assert facts["raters"] == ["Ann", "Bert"] and "Cohen" in facts["method"]
    assert (facts["scenes"], facts["kappa"]) == (4, pytest.approx(1))


def test_two_models_are_compared_by_each_rater(empty: Workspace) -> None:
    folder = session(empty, "a", "b", num=4)
    judge(folder, "Ann", first(3, 1))
    judge(folder, "Bert", first(4, 0))
    facts = summarise(empty)
    ann, bert = facts["comparison"]["tests"]
    assert ann["difference"] == pytest.approx(0.5) and ann["p"] == pytest.approx(34 / 70)
    assert ann["low"] < 0.5 < ann["high"]
    assert bert["difference"] == pytest.approx(1) and bert["p"] == pytest.approx(2 / 70)
    assert "p = 0.029" in summary_text(facts)


def test_a_summary_of_chosen_models(empty: Workspace) -> None:
    judge(session(empty, "a", "b", "c", num=4), "Ann", first(1, 2, 3))
    assert summarise(empty)["comparison"] is None
    facts = summarise(empty, {"weights of a": "a", "weights of c": "c"})
    assert facts["comparison"]["models"] == ["a", "c"]


def test_a_scene_of_two_sessions_counts_once_with_its_last_answer(empty: Workspace) -> None:
    together, alone = session(empty, "a", "b", num=4), session(empty, "a", num=4)
    # The same four scenes of "a" lie in both.
    judge(together, "Ann", first(0, 0))
    judge(alone, "Ann", first(4))
    tally = collect_ratings(read_sessions(alone.parent))["weights of a"].tally("Ann")
    assert tally == {"plausible": 4}
    judge(session(empty, "a", num=4, seed=1), "Ann", first(4))
    tally = collect_ratings(read_sessions(alone.parent))["weights of a"].tally("Ann")
    assert tally == {"plausible": 8}, "other scenes of the model add up"


def test_rated_scenes_for_figures(tmp_path: Path) -> None:
    folder = small_session(tmp_path)
    assert rated_scenes(tmp_path, "weights-0") == []
    judge(folder, "Ann", lambda item: "unsure" if item.model == 0 and item.index else "")
    judge(folder, "Bert", lambda item: "plausible")
    scenes = rated_scenes(tmp_path, "weights-0")
    assert [scene.index for scene in scenes] == list(range(6))
    assert scenes[0].verdicts == {"Bert": "plausible"}
    assert scenes[1].verdicts == {"Ann": "unsure", "Bert": "plausible"}
    assert scenes[5].image.shape == (16, 16, 3)


def test_catch_trials_warn_of_a_careless_rater(workspace: Workspace, here: Path) -> None:
    folder = prepare_session(workspace, ["tiny", "other"], (), num=3, catch=10)
    for rater, is_right in (("Ann", True), ("Bert", False)):
        session = Session(folder, rater)
        for position in range(session.total):
            plausible = session._items[position].plausible is not False
            session.answer({position: "plausible" if plausible == is_right else "implausible"})
    facts = small_cli.sri_json("label-sacc", "--summary", "--run", "tiny")
    counts = [[one[key] for key in ("rater", "right", "wrong")] for one in facts["catch"]]
    assert counts == [["Ann", 10, 0], ["Bert", 0, 10]]
    (model,) = facts["models"]
    doubted = [model["raters"][1], model["together"], facts["catch"][1], facts["agreement"]]
    assert all("Bert" in one["warning"] for one in doubted)
    assert model["raters"][0]["warning"] is None
    assert [model["name"] for model in facts["models"]] == ["tiny, step 10"]
    (record,) = records(workspace, "tiny")
    assert "Bert" in record["warning"] and "Ann" not in record["warning"]
    assert records(workspace, "other") == []
    lines = small_cli.sri("label-sacc", "--summary").stdout.splitlines()
    marked = {
        line.split()[3]: DOUBTFUL in line
        for line in lines
        if line.startswith("tiny, step") and "minus" not in line
    }
    assert marked == {"Ann": False, "Bert": True, "mean": True}
    tests = summarise(workspace)["comparison"]["tests"]
    assert [bool(test["warning"]) for test in tests] == [False, True]
    assert f"]{DOUBTFUL}" in printed([record]), "the mark stands beside the value in tables, too"


def test_rooms_and_tables_have_a_question_and_a_share_of_their_own(workspace: Workspace) -> None:
    write_data(workspace.data_path("objects-room", 32), name="objects-room")
    folder = prepare_session(workspace, ["tiny"], (), num=4, catch=6, data="objects-room")
    assert read_sessions(folder.parent)[0].question == SCENES
    again = prepare_session(workspace, ["tiny"], (), num=4, catch=6, data="objects-room")
    assert again == folder and prepare_session(workspace, ["tiny"], (), num=4) != folder
    opened = judge(folder, "Ann", lambda item: "implausible" if item.index == 0 else "plausible")
    assert opened.question == QUESTIONS[SCENES]
    facts = summarise(workspace, {read_sessions(folder.parent)[0].models[0].weights: "run"})
    assert "S-Acc" not in summary_text(facts) and facts["models"][0]["together"]["value"] == 0.75
    (one,) = facts["catch"]
    assert one["sound"]["judged"] == one["broken"]["judged"] == 3
    (record,) = records(workspace, "tiny")
    assert (record["metric"], record["value"]) == ("plausible_by_eye", 0.75)
    named = printed([{**record, "name": "plausible by eye"}])
    assert "75.0" in named and "(plausible by eye)" not in named


def test_the_share_of_what_is_no_tower_has_a_warning(workspace: Workspace) -> None:
    write_data(workspace.data_path("mypics", 32), name="mypics")
    write_run(workspace.runs_root / "mine", "genesis-v2", data="mypics")  # of other weights
    for name in ("tiny", "mine"):  # beside the same real images
        folder = prepare_session(workspace, [name], (), num=4, catch=0, data="mypics")
        judge(folder, "Ann", first(3))
    summarise(workspace)
    (towers,), (others,) = (records(workspace, name) for name in ("tiny", "mine"))
    assert towers["metric"] == others["metric"] == "sacc"
    assert "mypics" in others["warning"] and "towers of blocks" not in (towers["warning"] or "")


def test_stacks_and_rooms_are_not_judged_together() -> None:
    sources = [
        Source(Model(name=kind, weights=kind, subject={}), 32, [], lambda: None, question=kind)
        for kind in (STACKS, SCENES)
    ]
    with pytest.raises(SriError, match="kinds"):
        check_sources(sources)


@pytest.mark.parametrize(
    ("right", "unsure", "is_doubted"), [(6, 0, False), (5, 0, True), (5, 3, True)]
)
def test_three_of_four_catch_trials_are_enough(
    empty: Workspace, right: int, unsure: int, is_doubted: bool
) -> None:
    def verdict(item: Item) -> str:
        if item.model is None and item.index >= right:
            return "unsure" if item.index < right + unsure else wrong[item.plausible]
        return known[item.plausible]

    known = {True: "plausible", False: "implausible", None: "plausible"}
    wrong = {True: "implausible", False: "plausible"}
    judge(small_session(empty.runs_root / "labels", models=1, catch=8), "Ann", verdict)
    (one,) = summarise(empty)["catch"]
    assert (one["right"], one["unsure"]) == (right, unsure)
    assert bool(one["warning"]) == is_doubted


def test_answers_are_counted_by_mode(empty: Workspace) -> None:
    folder = session(empty, "a", num=20)
    ann = Session(folder, "Ann")
    ann.answer(dict.fromkeys(range(5), "implausible"))
    ann.answer(dict.fromkeys(range(5, 17), "plausible"), mode="grid")
    path = folder / "answers.jsonl"
    old = [json.loads(line) for line in path.read_text().splitlines()][0]
    ann.answer(dict.fromkeys(range(17, 20), "unsure"))
    del old["mode"]  # as written by version 0.1
    path.write_text(path.read_text() + json.dumps({**old, "time": "9"}) + "\n")
    (rater,) = summarise(empty)["models"][0]["raters"]
    counts = {
        mode: [own[key] for key in ("plausible", "implausible", "unsure")]
        for mode, own in rater["modes"].items()
    }
    assert counts == {"grid": [12, 0, 0], "single": [0, 4, 3], "unknown": [0, 1, 0]}
    assert rater["judged"] == 20 and rater["value"] == pytest.approx(12 / 17)
    assert "Ann, grid" in summary_text(summarise(empty))


def test_folders_are_summarised_and_nothing_is_written_there(empty: Workspace, here: Path) -> None:
    (here / "theirs").mkdir()
    subject = {"kind": "images", "images": str(here / "theirs"), "count": 4, "sha256": "x"}
    model = Model(name="theirs", weights="x", subject=subject)
    labels = empty.runs_root / "labels"
    judge(small_session(labels, 4, 0, 1, 0, {0: model}), "Ann", first(3))
    facts = summarise(empty, folders=[Path("theirs")])
    assert facts["models"][0]["raters"][0]["value"] == 0.75
    assert facts["recorded"] == [] and list((here / "theirs").iterdir()) == []


def test_a_run_that_is_gone_is_not_recorded(
    empty: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    judge(session(empty, "a", num=4), "Ann", first(3))
    (empty.runs_root / "a" / "checkpoints").rmdir()
    assert summarise(empty)["recorded"] == []
    assert "runs/a" in capsys.readouterr().err


def test_a_run_is_found_where_it_was_moved_to_and_not_taken_for_another(
    workspace: Workspace, tmp_path: Path
) -> None:
    tiny, kept = workspace.runs_root / "tiny", tmp_path / "kept"
    judge(prepare_session(workspace, ["tiny"], (), num=4, catch=0), "Ann", first(3))
    tiny.rename(kept)
    shutil.copytree(workspace.runs_root / "other", tiny)  # trained anew, to the same step
    assert summarise(workspace)["recorded"] == [] and records(workspace, "tiny") == []
    (checkpoint,) = (tiny / "checkpoints").iterdir()
    checkpoint.rename(checkpoint.with_name("step-000000012"))  # or to another
    shutil.copytree(kept, workspace.runs_root / "study-x" / "tiny")
    assert len(summarise(workspace)["recorded"]) == 1
    assert [m["value"] for m in records(workspace, "study-x/tiny")] == [0.75]


def test_without_its_data_file_a_run_has_the_row_of_its_data(workspace: Workspace) -> None:
    run, path = workspace.runs_root / "tiny", workspace.data_path("demo-towers", 32)
    data = DataFile(path)
    about = {"trained_on": trained_on(data)}
    describe_run(run, recipe_from_dict(newest_good(run).recipe), about)
    expected = data_facts(data, "test")
    path.unlink()
    judge(prepare_session(workspace, ["tiny"], (), num=4, catch=0), "Ann", first(3))
    summarise(workspace)
    (record,) = records(workspace, "tiny")
    facts = ("name", "image_size", "source", "sha256", "split")
    assert {key: record["data"][key] for key in facts} == {key: expected[key] for key in facts}


# The formulas


@pytest.mark.parametrize("count", [1, 2, 7, 100, 1000])
def test_wilson_as_scipy(count: int) -> None:
    for yes in {0, 1, count // 2, count - 1, count}:
        other = binomtest(yes, count).proportion_ci(0.95, "wilson")
        assert wilson(yes, count) == pytest.approx((other.low, other.high), abs=1e-6)


def test_wilson_of_a_mean_over_raters() -> None:
    assert wilson(0, 0) is None
    low, high = wilson(9.5, 20)
    assert wilson(9, 20)[0] < low < 9.5 / 20 < high < wilson(10, 20)[1]


def test_difference_is_newcombes_example() -> None:
    # Newcombe (1998), Table II, contrast (a), method 10: 56/70 and 48/80.
    result = difference(56, 70, 48, 80)
    assert result[0] == pytest.approx(0.2)
    assert result[1] == pytest.approx((0.0524, 0.3339), abs=5e-5)
    turned = difference(48, 80, 56, 70)
    assert turned is not None and turned[0] == pytest.approx(-0.2)
    assert turned[1] == pytest.approx((-result[1][1], -result[1][0]))
    assert difference(0, 0, 1, 2) is None and difference(1, 2, 0, 0) is None


def test_agreement_and_tests_at_their_ends() -> None:
    assert cohen_kappa(["y", "n", "u"], ["y", "n", "u"]) == pytest.approx(1)
    assert cohen_kappa(["y", "n"], ["n", "y"]) == pytest.approx(-1)
    assert cohen_kappa(["y", "y"], ["y", "y"]) is None  # a single verdict
    assert fleiss_kappa([[3, 0], [3, 0]]) is None
