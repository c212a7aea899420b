"""A study: its protocol file and faults, verdicts, shares of the machine, the shipped studies."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from sri_cli import checkpoint as checkpoints
from sri_cli.config.registry import copy_recipe, study_names
from sri_cli.cores import Threads
from sri_cli.data.dataset import DataFile
from sri_cli.errors import SriError
from sri_cli.metrics.records import HALF, append_records, data_facts
from sri_cli.run import Workspace
from sri_cli.studies.plan import plan_study, plan_text
from sri_cli.studies.processes import Slots, choose_slots
from sri_cli.studies.protocol import Study, check_unchanged, read_study, record_content
from sri_cli.studies.reuse import with_reused_runs
from sri_cli.studies.status import status_of
from sri_cli.studies.summary import judge, paired_differences, values_of, write_summary
from sri_cli.training.run_folder import resolve_run
from tests.small_cli import ROOT
from tests.small_data import write_small_data
from tests.small_measurements import measured

SMALL: dict[str, Any] = {
    "name": "small",
    "data": {"name": "demo-towers", "size": 32},
    "overrides": ["size=tiny"],
    "steps": 6,
    "batch": 4,
    "seeds": [0, 1],
    "systems": {"sri-mog": {}, "genesis-v2-mog": {}},
    "metrics": {"order": 4, "elbo": 8},
    "claims": [{"better": "sri-mog", "than": ["genesis-v2-mog"], "by": ["elbo"]}],
}


def read(root: Path, **changes: Any) -> Study:
    path = root / "small.yaml"
    path.write_text(yaml.safe_dump(SMALL | changes, sort_keys=False))
    return read_study(Workspace(root / "data", root / "runs"), str(path))


def faults(root: Path, **changes: Any) -> list[str]:
    with pytest.raises(SriError) as caught:
        read(root, **changes)
    assert caught.value.exit_code == 2 and str(root / "small.yaml") in (caught.value.hint or "")
    return caught.value.message.removeprefix("study small: ").split("; ")


def test_runs_come_seed_by_seed_equal_but_for_the_seed(tmp_path: Path) -> None:
    systems = {"genesis-v2-mog": None, "fast": {"recipe": "sri-mog", "overrides": ["train.lr=1"]}}
    runs = read(tmp_path, systems=systems, claims=[]).runs()
    assert [run.name for run in runs] == [
        "genesis-v2-mog-seed-0",
        "fast-seed-0",
        "genesis-v2-mog-seed-1",
        "fast-seed-1",
    ]
    train = [run.recipe.train for run in runs]
    assert [one.seed for one in train] == [0, 0, 1, 1]
    assert {(one.steps, one.batch) for one in train} == {(6, 4)}
    assert [one.lr for one in train] == [1e-3, 1, 1e-3, 1]
    assert runs[1].recipe.name == "fast" and runs[1].recipe.model.image_size == 32
    assert runs[0].run_dir == tmp_path / "runs" / "study-small" / "genesis-v2-mog-seed-0"


@pytest.mark.parametrize(
    "wrong",
    [
        {  # keys and values
            "batches": (4, ["batches"]),
            "steps": (0, ["steps"]),
            "data": (
                {"name": "demo-towers", "size": 48, "preparing": "x"},
                ["data.size", "data.preparing"],
            ),
            "systems": ({"sri-mog": {"recip": "x"}}, ["systems.sri-mog.recip"]),
        },
        {  # what they mean together
            "systems": (
                {"sri-mog": {}, "genesis-v2-mog": {"overrides": ["train.seed=4"]}},
                ["systems.genesis-v2-mog.overrides"],
            ),
            "metrics": ({"order": 1000, "elbow": 4}, ["metrics.elbow", "metrics.order"]),
            "claims": (
                [
                    {"better": "sri-mgo", "than": ["genesis-v2-mog"], "by": ["stack-fd"]},
                    {"better": "sri-mog", "than": ["sri-mog"], "by": ["order-io"]},
                ],
                ["claims.0.better", "claims.0.by", "claims.1", "claims.1.by"],
            ),
        },
    ],
)
def test_all_faults_are_reported_at_once(
    tmp_path: Path, wrong: dict[str, tuple[Any, list[str]]]
) -> None:
    reported = faults(tmp_path, **{key: value for key, (value, _) in wrong.items()})
    expected = [key for _, keys in wrong.values() for key in keys]
    assert sorted(fault.partition(":")[0] for fault in reported) == sorted(expected)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"overrides": []}, "64 px"),
        ({"seeds": [0, 0]}, "seeds: "),
        ({"seeds": [0]}, "seeds: "),
        ({"seeds": []}, "seeds: "),
        ({"systems": {}}, "systems: "),
        ({"systems": ["sri-mog"]}, "systems: "),
        ({"systems": {"sri-mgo": {}}, "claims": []}, "systems.sri-mgo:"),
        ({"systems": {"sri-mog": {"overrides": ["train.lrr=1"]}}, "claims": []}, "train.lrr"),
        ({"claims": {}}, "claims: "),
        ({"metrics": {"stack-fd": 1}, "claims": []}, "metrics.stack-fd: "),
        ({"metrics": {"order": 1}, "claims": []}, "metrics.order: "),
        ({"metrics": {"matching": 8}, "claims": []}, "systems.genesis-v2-mog: metrics.matching"),
        ({"name": "a/b"}, "name: "),
    ],
)
def test_what_is_refused(tmp_path: Path, changes: dict[str, Any], named: str) -> None:
    assert named in "; ".join(faults(tmp_path, **changes))


def test_a_recipe_of_ones_own_lies_beside_the_study(tmp_path: Path) -> None:
    copy_recipe("sri-sa", tmp_path / "mine.yaml")
    study = read(tmp_path, claims=[], systems={"mine": {"recipe": "mine.yaml"}})
    assert study.recipes["mine"].model.segregation == "slot-attention"
    command = study.command(study.runs()[0], Path("data/x.h5"))
    assert command.startswith(f"sri train --recipe {tmp_path / 'mine.yaml'} --data data/x.h5 --run")


GRID = {"model.std": [0.5, 0.7], "train.geco_target": [0.56, -0.5]}


def test_a_grid_multiplies_the_runs_and_claims_compare_its_points(tmp_path: Path) -> None:
    own = {"better": "sri-mog-std0.5-geco_target0.56", "than": ["sri-mog-std0.7-geco_target-0.5"]}
    claims = [*SMALL["claims"], own | {"by": ["elbo"]}]
    study = read(tmp_path, grid=GRID, claims=claims)
    names = [
        f"{system}-std{std}-geco_target{target}"
        for system in ("sri-mog", "genesis-v2-mog")
        for std in (0.5, 0.7)
        for target in (0.56, -0.5)
    ]
    assert list(study.protocol.points()) == names
    runs = study.runs()
    assert [run.name for run in runs] == [f"{name}-seed-{i}" for i in (0, 1) for name in names]
    for run in runs:
        assert run.recipe.name == run.system
        train = run.recipe.train
        assert run.system.endswith(f"-std{run.recipe.model.std}-geco_target{train.geco_target}")
    assert list(study.protocol.comparisons()) == [
        *((ours, theirs, "elbo") for ours, theirs in zip(names[:4], names[4:], strict=True)),
        (names[0], names[3], "elbo"),
    ]
    assert len(study.runs(["sri-mog"], [0])) == 4 and len(study.runs([names[5]])) == 2
    plan = plan_study(Workspace(tmp_path, tmp_path), str(study.path), measure=False)
    assert (plan["runs"], plan["claims"]) == (16, 5)
    assert plan["systems"][names[1]]["point"] == {"model.std": 0.5, "train.geco_target": -0.5}


def test_all_faults_of_a_grid_are_reported_once(tmp_path: Path) -> None:
    wrong = {
        "model.sdt": [1],
        "train.seed": [0],
        "train.lr": [],
        "model.scene": [True, True],
        "model.std": [[1]],
    }
    reported = faults(tmp_path, grid=wrong, claims=[])
    assert [fault.partition(": ")[0] for fault in reported] == [f"grid.{key}" for key in wrong]
    values = {"model.std": [0.5, -1], "train.geco_target": ["high", "low", 0.5]}
    reported = faults(tmp_path, grid=values, claims=[])
    assert [fault.partition(": ")[2].partition(":")[0] for fault in reported] == [
        "train.geco_target",
        "train.geco_target",
        "model.std",
    ]
    mixed = [{"better": "sri-mog", "than": ["genesis-v2-mog-std0.5"], "by": ["elbo"]}]
    assert faults(tmp_path, grid={"model.std": [0.5, 0.7]}, claims=mixed)[0].startswith("claims.0:")
    assert "grid: " in "; ".join(faults(tmp_path, grid={"train.lr": [-1, "1"]}, claims=[]))


def test_what_older_protocols_do_not_have_leaves_their_digest_as_it_is(tmp_path: Path) -> None:
    keys = {*SMALL, "split"}
    study, later = read(tmp_path), read(tmp_path, test="paired", grid=GRID, runs_of=["earlier"])
    assert study.content()["protocol"].keys() == keys
    assert later.content()["protocol"].keys() == keys | {"test", "grid"}
    assert read(tmp_path, test="separation").digest() == study.digest() != later.digest()


def test_how_the_images_are_named_and_made_may_be_added_later(tmp_path: Path) -> None:
    data = DataFile(write_small_data(tmp_path / "demo-towers-32.h5"))
    study = read(tmp_path)
    study.folder.mkdir(parents=True)
    record_content(study, data)
    named = SMALL["data"] | {"sha256": str(data.attrs["sha256"]), "prepare": "shapestacks"}
    check_unchanged(read(tmp_path, data=named))
    with pytest.raises(SriError, match=r"protocol\.batch"):
        check_unchanged(read(tmp_path, batch=8))


def test_equal_finished_runs_of_an_earlier_study_are_reused(tmp_path: Path) -> None:
    data = DataFile(write_small_data(tmp_path / "demo-towers-32.h5"))
    earlier = {"name": "earlier", "systems": {"old": {"recipe": "sri-mog"}}, "claims": []}
    for run in read(tmp_path, **earlier).runs():
        content = str(data.attrs["sha256"])[:16]
        extra = {"data": {"name": "towers", "images": 16, "content": content}}
        steps = run.recipe.train.steps
        recipe = run.recipe.model_dump(mode="json")
        recipe["train"] |= {"log_every": 7, "checkpoint_every": 5}  # what is learned is the same
        checkpoints.save(run.run_dir, steps - run.seed, {}, recipe, {}, extra)  # seed 1: not done
    changes: dict[str, Any] = {"seeds": [0, 1, 2], "runs_of": ["earlier"]}
    study = read(tmp_path, **changes)
    reused = with_reused_runs(study, data)
    assert reused.digest() == study.digest()
    folder = tmp_path / "runs" / "study-earlier" / "old-seed-0"
    assert dict(reused.reused) == {"sri-mog-seed-0": folder}
    assert reused.runs()[0].run_dir == folder and reused.runs()[0].name == "sri-mog-seed-0"
    assert status_of(reused, reused.runs()[0], data).trained
    grid = read(tmp_path, **changes, grid={"model.std": [0.6, 0.7]})
    assert list(with_reused_runs(grid, data).reused) == ["sri-mog-std0.7-seed-0"]
    for other in ({"steps": 5}, {"batch": 8}, {"overrides": ["size=tiny", "train.lr=0.1"]}):
        assert not with_reused_runs(read(tmp_path, **changes | other), data).reused
    other_data = DataFile(write_small_data(tmp_path / "others.h5", images=20))
    assert not with_reused_runs(study, other_data).reused


def test_values_that_an_earlier_study_recorded_count_where_its_runs_are_gone(
    tmp_path: Path,
) -> None:
    data = DataFile(write_small_data(tmp_path / "demo-towers-32.h5"))
    workspace = Workspace(tmp_path, tmp_path / "runs")
    earlier = read(tmp_path, name="earlier", metrics={"elbo": 8, "order": 4}, claims=[])
    images = min(8, data.counts["test"])
    how = {"name": "-ELBO", "counts": {"images": images}, "protocol": "", "warning": None}
    orders = {"order_iou": {"value": 0.5}, "order_information": {"value": 0.4}}
    summary: dict[str, Any] = {
        "study": "earlier",
        "steps": 6,
        "data": {"sha256": str(data.attrs["sha256"])},
        "systems": {
            name: {"recipe_sha256": earlier.recipe_digest(name)} for name in earlier.recipes
        },
        "how": {"negative_elbo": how} | dict.fromkeys(orders, how | {"counts": {"scenes": 4}}),
        "runs": [
            {"system": "sri-mog", "seed": seed, "step": step, "train_seconds": 1.5}
            | {"diverged": None, "machine": {"sri": "0.0.9"}, "model": "ab", "metrics": metrics}
            for seed, step, metrics in [
                (0, 6, orders | {"negative_elbo": {"value": 7.0, "low": 6.0, "high": 8.0}}),
                (1, 6, orders),  # the ELBO was not measured
                (2, 4, orders | {"negative_elbo": {"value": 7.0}}),  # not finished
            ]
        ],
    }

    def recorded(**changes: Any) -> Study:
        study = read(tmp_path, seeds=[0, 1, 2, 3], runs_of=["earlier"], **changes)
        return with_reused_runs(study, data)

    folder = tmp_path / "runs" / "study-earlier"
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps(summary))
    study = recorded()
    assert list(study.recorded) == ["sri-mog-seed-0"] and not study.reused
    for seeds, names in ([0], ["sri-mog-seed-0"]), ([1], []):
        plan = plan_study(workspace, str(tmp_path / "small.yaml"), seeds=seeds, measure=False)
        assert list(plan["recorded"]) == names
    statuses = [status_of(study, run, data) for run in study.runs()]
    assert [one.run.name for one in statuses if one.done] == ["sri-mog-seed-0"]
    assert values_of(study, statuses)["elbo"] == {("sri-mog", 0): 7.0}
    _, again = write_summary(study, statuses, data, tmp_path)
    first = again["runs"][0]
    assert (first["run_of"], first["recorded"]) == ("earlier", True)
    assert first["machine"] == {"sri": "0.0.9"}
    assert first["metrics"] == summary["runs"][0]["metrics"]
    assert values_of(study, statuses)["order-mi"] == {("sri-mog", 0): 0.4}
    for other in ({"steps": 5}, {"metrics": {"elbo": 8, "order": 3}}, {"split": "val"}):
        assert not recorded(**other).recorded
    own = read(tmp_path, name="earlier", seeds=[0, 1])  # itself, all its folders lost
    assert list(with_reused_runs(own, data).recorded) == ["sri-mog-seed-0"]
    copy_recipe("sri-mog", tmp_path / "mine.yaml")
    mine = {"sri-mog": {"recipe": "mine.yaml"}}
    before = read(tmp_path, name="earlier", seeds=[0, 1], claims=[], systems=mine)
    summary["protocol_sha256"] = before.digest()
    summary["systems"]["sri-mog"]["recipe_sha256"] = before.recipe_digest("sri-mog")
    (folder / "summary.json").write_text(json.dumps(summary))
    text = (tmp_path / "mine.yaml").read_text()
    (tmp_path / "mine.yaml").write_text(text.replace("description: ", "description: my "))
    after = read(tmp_path, name="earlier", seeds=[0, 1], claims=[], systems=mine)
    assert after.recipe_digest("sri-mog") != before.recipe_digest("sri-mog")
    assert list(with_reused_runs(after, data).recorded) == ["sri-mog-seed-0"]
    own.runs()[0].run_dir.mkdir()  # begun anew
    assert not with_reused_runs(own, data).recorded
    summary["data"]["sha256"] = "0" * 64
    (folder / "summary.json").write_text(json.dumps(summary))
    assert not recorded().recorded
    with pytest.raises(SriError, match="other images"):
        record_content(own, data)
    assert not (folder / "study.json").exists()


def test_what_was_measured_by_hand_in_another_way_is_not_the_studys(tmp_path: Path) -> None:
    data = DataFile(write_small_data(tmp_path / "demo-towers-32.h5"))
    study = read(tmp_path, metrics={"elbo": 8, "kid": 4}, claims=[])
    run = study.runs()[0]
    steps, slots = run.recipe.train.steps, run.recipe.model.slots
    checkpoints.save(run.run_dir, steps, {}, run.recipe.model_dump(mode="json"), {}, {})
    subject = {"kind": "run", "run": str(run.run_dir), "model": "ab", "step": steps}
    facts = data_facts(data, "test")

    def measure(metric: str, value: float, **changed: Any) -> None:
        counts = {"generated": 4} if metric == "kid" else {"images": 8}
        record = measured(metric, metric.upper(), value, data=facts, **subject)
        record |= {"counts": counts, "slots": slots}
        append_records(run.run_dir, [record | changed])

    for value, number in ((1.0, slots), (2.0, None), (3.0, slots + 1)):  # None: dynamic slots
        measure("negative_elbo", value, slots=number)
        measure("kid", value, slots=number)
    status = status_of(study, run, data)
    assert status.done and {m["value"] for m in status.measured.values()} == {1.0}
    measure("negative_elbo", 4.0)
    measure("kid", 4.0, name="KD-random-inception")
    values = {key: m["value"] for key, m in status_of(study, run, data).measured.items()}
    assert values == {"negative_elbo": 4.0, "kid": 1.0}
    measure("kid", 9.0, subject=subject | {"model": "cd", HALF: True})
    assert {key: m["value"] for key, m in status_of(study, run, data).measured.items()} == values
    study = read(tmp_path, metrics={"ari": 8}, claims=[])
    for labels, done in (("of an older file", False), (None, True)):
        measure("ari_fg", 0.5, data=facts | {"labels": labels})
        assert status_of(study, run, data).done is done


@pytest.mark.parametrize("name", ["order-and-scen", "nothing.yaml", "."])
def test_a_study_that_does_not_exist(tmp_path: Path, name: str) -> None:
    with pytest.raises(SriError, match=name):
        read_study(Workspace(tmp_path, tmp_path), name)


@pytest.mark.parametrize("name", study_names())
def test_shipped_studies_can_be_run(tmp_path: Path, name: str) -> None:
    study = read_study(Workspace(tmp_path, tmp_path), name)
    assert study.protocol.name == name and study.protocol.description
    plan = plan_study(Workspace(tmp_path, tmp_path), name, measure=False)
    assert plan["data_missing"] and plan["hours"] is None and not plan["trained"]
    assert plan["order"] == [run.name for run in study.runs()]
    assert all(row["steps_left"] == row["runs"] * plan["steps"] for row in plan["systems"].values())
    assert study.protocol.data.prepare
    assert f"sri prepare {study.protocol.data.prepare}" in plan_text(plan)
    assert not list(tmp_path.iterdir())


PUBLISHED = ROOT / ".github" / "studies"


@pytest.mark.parametrize("name", sorted(path.name for path in PUBLISHED.iterdir()))
def test_published_studies_are_of_the_shipped_recipes(tmp_path: Path, name: str) -> None:
    study = read_study(Workspace(tmp_path, tmp_path), name)
    published = json.loads((PUBLISHED / name / "summary.json").read_text())
    assert {key: one["recipe_sha256"] for key, one in published["systems"].items()} == {
        system: study.recipe_digest(system) for system in study.protocol.points()
    }
    assert published["seeds"] == study.protocol.seeds
    claimed = [
        (c.better, than, by) for c in study.protocol.claims for than in c.than for by in c.by
    ]
    assert [(c["better"], c["than"], c["measure"]) for c in published["claims"]] == claimed


def test_a_run_of_a_study_is_the_run_that_its_command_makes(tmp_path: Path) -> None:
    data = write_small_data(tmp_path / "data" / "demo-towers-32.h5")
    systems = {"sri-mog": {}, "slow": {"recipe": "genesis-v2-scene", "overrides": ["train.lr=1"]}}
    study = read(tmp_path, systems=systems, claims=[])
    for run in study.runs():
        words = shlex.split(study.command(run, data))
        flags = dict(zip(words[2:10:2], words[3:10:2], strict=True))
        recipe, _, run_dir = resolve_run(
            Workspace(tmp_path / "data", tmp_path / "runs"),
            flags["--recipe"],
            data=flags["--data"],
            run=flags["--run"],
            overrides=[*words[10:], f"train.seed={flags['--seed']}"],
        )
        # The study's digest has the name in the recipe; a run records that of its images.
        recipe = recipe.model_copy(update={"data": run.recipe.data})
        assert (recipe, run_dir) == (run.recipe, run.run_dir)


def test_paired_differences_by_hand() -> None:
    # Differences -2, -4, -6: mean -4, standard deviation 2, t(2; 0.975) = 4.302653,
    # so the half width is 4.302653 * 2 / sqrt(3) = 4.968275.
    paired = paired_differences([1, 2, 3], [3, 6, 9], lower_is_better=True)
    assert paired.differences == [-2, -4, -6]
    assert (paired.mean, paired.in_favour, paired.seeds) == (-4, 3, 3)
    assert (paired.low, paired.high) == pytest.approx((-8.968275, 0.968275), abs=1e-6)
    one = paired_differences([1, None], [3, 6], lower_is_better=False)
    assert one is not None and one.differences == [-2, None]
    assert (one.mean, one.low, one.high, one.in_favour, one.seeds) == (-2, None, None, 0, 1)
    assert paired_differences([None], [3], lower_is_better=False) is None


@pytest.mark.parametrize(
    ("ours", "verdicts"),
    [  # against 0, 10, 20: by separation of the seeds, by the paired interval (larger is better)
        ([21, 30, 41], ("confirmed", "confirmed")),
        ([20, 30, 41], ("undecided, in favour", "confirmed")),  # two seeds meet
        ([10, 10, 10], ("undecided", "undecided")),
        ([1, 11, 21.1], ("undecided, in favour", "confirmed")),
        ([-1, 13, 21], ("undecided, in favour", "undecided, in favour")),
        ([1, 7, 19], ("refuted", "undecided")),
        ([-1, 9, 18.9], ("refuted", "refuted")),
        ([1, 11, None], ("open: 2 of 3 seeds", "open: 2 of 3 seeds")),
    ],
)
def test_a_protocol_chooses_the_test(
    tmp_path: Path, ours: list[float], verdicts: tuple[str, str]
) -> None:
    systems = {name: {"recipe": "sri-mog"} for name in "ab"}
    claims = [{"better": "a", "than": ["b"], "by": ["order-iou"]}]
    values = {("a", seed): value for seed, value in enumerate(ours)}
    values |= {("b", seed): 10.0 * seed for seed in range(3)}
    for test, verdict in zip(("separation", "paired"), verdicts, strict=True):
        study = read(tmp_path, seeds=[0, 1, 2], systems=systems, claims=claims, test=test)
        assert judge(study.protocol, {"order-iou": values})[0].verdict == verdict


def test_a_claim_is_open_until_every_seed_of_both_is_measured(tmp_path: Path) -> None:
    systems = {name: {"recipe": "sri-mog"} for name in "abc"}
    claims = [{"better": "a", "than": ["b", "c"], "by": ["elbo"]}]
    protocol = read(tmp_path, seeds=[4, 7], systems=systems, claims=claims).protocol
    values = {("a", 4): 1.0, ("a", 7): 2.0, ("b", 4): 3.0, ("b", 7): None, ("c", 4): 3, ("c", 7): 4}
    first, second = judge(protocol, {"elbo": values})
    assert (first.than, first.verdict) == ("b", "open: 1 of 2 seeds")
    assert first.values == ([1.0, 2.0], [3.0, None])
    assert (second.than, second.verdict) == ("c", "confirmed")


def test_each_run_sees_one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    slots = Slots(jobs=3, gpus=2, threads=1)
    fixed = Slots(jobs=1, gpus=2, threads=3, fixed_threads=True)
    assert fixed.environment(1) == {"CUDA_VISIBLE_DEVICES": "1", "OMP_NUM_THREADS": "3"}
    assert [slots.environment(i) for i in range(3)] == [
        {"CUDA_VISIBLE_DEVICES": gpu} for gpu in ("0", "1", "0")
    ]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")  # those that are ours to share
    assert slots.environment(1) == {"CUDA_VISIBLE_DEVICES": "7"}


def test_runs_share_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for name in ("_default_threads", "available_cores"):
        monkeypatch.setattr(f"sri_cli.cores.{name}", lambda: 4)
    slots = [choose_slots(jobs) for jobs in (None, 1, 2, 3, 8)]
    assert [(one.jobs, one.threads) for one in slots] == [(1, 4), (1, 4), (2, 2), (3, 1), (8, 1)]
    assert slots[2].environment(0) == {}  # the run follows the free cores, up to its share
    fixed = choose_slots(2, Threads(3))
    assert fixed.environment(0) == {"OMP_NUM_THREADS": "3"}
    monkeypatch.setattr("sri_cli.studies.plan._seconds_per_step", lambda *_: (600.0, 1))
    read(tmp_path)
    plan = plan_study(Workspace(tmp_path, tmp_path), str(tmp_path / "small.yaml"))
    assert plan["core_hours"] == pytest.approx(4) == plan["hours"]  # 4 runs of 6 steps, one thread
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert choose_slots(8).environment(0) == {"OMP_NUM_THREADS": "2"}
