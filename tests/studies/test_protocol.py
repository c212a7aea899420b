"""The protocol file of a study: its keys, its faults, and the shipped studies."""

from __future__ import annotations

import json
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

ROOT = Path(__file__).parent.parent.parent
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
    found = faults(tmp_path, **{key: value for key, (value, _) in wrong.items()})
    expected = [place for _, places in wrong.values() for place in places]
    assert sorted(fault.partition(":")[0] for fault in found) == sorted(expected)


def test_all_faults_of_all_recipes(tmp_path: Path) -> None:
    systems = {"sri-mgo": {}, "sri-mog": {"overrides": ["train.lrr=1", "model.image_size=64"]}}
    found = "; ".join(faults(tmp_path, systems=systems, claims=[]))
    assert "systems.sri-mgo:" in found
    assert "train.lrr" in found


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
def test_published_studies_are_of_the_shipped_recipes(tmp_path: Path, name: str) -> None:
    study = read_study(Workspace(tmp_path, tmp_path), name)
    assert study.protocol.name == name and study.protocol.description
    published = json.loads((ROOT / ".github" / "studies" / name / "summary.json").read_text())
    assert published["systems"] == {
        system: {"recipe": system, "recipe_sha256": study.recipe_digest(system)}
        for system in study.protocol.systems
    }
    assert published["seeds"] == study.protocol.seeds
    claimed = [
        (c.better, than, by) for c in study.protocol.claims for than in c.than for by in c.by
    ]
    assert [(c["better"], c["than"], c["measure"]) for c in published["claims"]] == claimed


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
