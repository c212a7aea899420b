"""A study's file: what it may say, what is told of a bad one, and the study that is shipped."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from sri_cli.config.registry import study_names
from sri_cli.errors import SriError
from sri_cli.run import Workspace
from sri_cli.studies.protocol import Study, read_study
from sri_cli.studies.runner import plan_study, plan_text
from sri_cli.training.run_folder import resolve_run

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


def test_everything_wrong_is_told_at_once(tmp_path: Path) -> None:
    told = faults(
        tmp_path,
        batches=4,
        steps=0,
        data={"name": "demo-towers", "size": 48, "preparing": "x"},
        systems={"sri-mog": {"recip": "x"}, "genesis-v2-mog": {"overrides": ["train.seed=4"]}},
        metrics={"order": 1000, "elbow": 4},
        claims=[
            {"better": "sri-mgo", "than": ["genesis-v2-mog"], "by": ["order-iou", "stack-fd"]},
            {"better": "sri-mog", "than": ["sri-mog"], "by": ["order-io"]},
        ],
    )
    for part in (
        "batches",
        "data.size",
        "data.preparing",
        "steps",
        "systems.sri-mog.recip",
        "systems.genesis-v2-mog.overrides",
        "metrics.elbow",
        "metrics.order",
        "claims.0.better",
        "claims.0.by",
        "claims.1",
        "claims.1.by",
    ):
        assert part in {fault.partition(":")[0] for fault in told}, part


def test_all_faults_of_all_recipes(tmp_path: Path) -> None:
    systems = {"sri-mgo": {}, "sri-mog": {"overrides": ["train.lrr=1", "model.image_size=64"]}}
    told = "; ".join(faults(tmp_path, systems=systems, claims=[]))
    assert "systems.sri-mgo:" in told
    assert "train.lrr" in told


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"overrides": []}, "64 px"),
        ({"seeds": [0, 0]}, "seeds: "),
        ({"seeds": [0]}, "seeds: "),
        ({"seeds": []}, "seeds: "),
        ({"systems": {}}, "systems: "),
        ({"systems": ["sri-mog"]}, "systems: "),
        ({"claims": {}}, "claims: "),
        ({"name": "a/b"}, "name: "),
    ],
)
def test_what_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    assert message in "; ".join(faults(tmp_path, **changes))


def test_a_recipe_of_ones_own_lies_beside_the_study(tmp_path: Path) -> None:
    from sri_cli.config.registry import copy_recipe

    copy_recipe("sri-mog-tiny", tmp_path / "mine.yaml")
    study = read(tmp_path, overrides=[], claims=[], systems={"mine": {"recipe": "mine.yaml"}})
    assert study.recipes["mine"].train.beta_min == 0.01
    command = study.command(study.runs()[0], Path("data/x.h5"))
    assert command.startswith(f"sri train --recipe {tmp_path / 'mine.yaml'} --data data/x.h5 --run")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("order-and-scen", "order-and-scene"),
        ("nothing.yaml", "nothing.yaml"),
        (".", "."),
    ],
)
def test_a_study_that_is_not_there(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(SriError) as caught:
        read_study(Workspace(tmp_path, tmp_path), name)
    assert message in caught.value.message


@pytest.mark.parametrize("name", study_names())
def test_every_shipped_study_is_good(tmp_path: Path, name: str) -> None:
    study = read_study(Workspace(tmp_path, tmp_path), name)
    assert study.protocol.name == name and study.protocol.description


def test_the_plan_of_the_shipped_study(tmp_path: Path) -> None:
    plan = plan_study(
        Workspace(tmp_path / "data", tmp_path / "runs"), "order-and-scene", measure=False
    )
    systems = ["sri-mog", "genesis-v2-mog", "genesis-v2-scene", "sri-g"]
    systems += ["sri-g-no-scene", "sri-g-no-alignment", "sri-g-no-cross-order"]
    assert list(plan["systems"]) == systems
    assert (plan["runs"], plan["trained"], plan["steps"], plan["batch"]) == (21, 0, 6000, 16)
    assert plan["order"] == [f"{system}-seed-{seed}" for seed in (0, 1, 2) for system in systems]
    assert all(one["steps_left"] == 18_000 for one in plan["systems"].values())
    assert plan["claims"] == 4 + 2 + 3 * 2
    assert plan["data_missing"] and plan["hours"] is None
    assert "sri prepare shapestacks --preset demo" in plan_text(plan)
    assert not (tmp_path / "runs").exists()


def test_systems_of_the_shipped_study_differ_in_nothing_but_what_they_are(tmp_path: Path) -> None:
    study = read_study(Workspace(tmp_path, tmp_path), "order-and-scene")
    full = study.recipes["sri-g"]
    for key in ("scene", "alignment", "cross_order"):
        other = study.recipes[f"sri-g-no-{key.replace('_', '-')}"]
        assert other.train == full.train
        changed = {
            name
            for name, value in other.model.model_dump().items()
            if value != getattr(full.model, name)
        }
        # Without a scene variable its width means nothing.
        assert changed <= {key, "scene_size", "cross_order"} and key in changed
    seen = study.protocol.steps * study.protocol.batch / 6000
    assert seen <= 20


def test_a_run_of_a_study_is_the_run_that_its_command_makes(
    tmp_path: Path, write_small_data: Callable[..., Path]
) -> None:
    (tmp_path / "data").mkdir()
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
        assert (recipe, run_dir) == (run.recipe, run.run_dir)
