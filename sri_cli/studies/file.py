"""A study's file with its recipes resolved: every run that it asks for."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sri_cli.config.load import data_sets, load_recipe, recipe_from_dict, recipe_to_yaml
from sri_cli.config.registry import study_path
from sri_cli.config.schema import Recipe
from sri_cli.config.strict_yaml import read_yaml
from sri_cli.errors import SriError, did_you_mean
from sri_cli.run import Workspace
from sri_cli.studies.protocol import Protocol, read_protocol


@dataclass(frozen=True)
class Cell:
    """One run of a study."""

    system: str
    seed: int
    recipe: Recipe
    run_dir: Path

    @property
    def name(self) -> str:
        return self.run_dir.name

    @property
    def words(self) -> str:
        """For people."""
        return f"{self.system} seed {self.seed}"


@dataclass(frozen=True)
class Study:
    """A protocol; `recipes` of its systems, with seed 0; `sources`: their names or files."""

    path: Path
    protocol: Protocol
    recipes: Mapping[str, Recipe]
    sources: Mapping[str, str]
    folder: Path  # of its runs

    def cells(
        self, only: Sequence[str] | None = None, seeds: Sequence[int] | None = None
    ) -> list[Cell]:
        """The runs, seed by seed, so that after each seed a whole comparison stands."""
        return [
            Cell(system, seed, _seeded(self.recipes[system], seed), self.folder / name)
            for seed in self.protocol.seeds
            for system in self.protocol.systems
            if (only is None or system in only) and (seeds is None or seed in seeds)
            for name in [f"{system}-seed-{seed}"]
        ]

    def asked(self) -> dict[str, Any]:
        """Everything that decides what comes out; comments and descriptions do not."""
        return _plain(self.protocol, self.recipes)

    def digest(self) -> str:
        """SHA-256 of `asked`."""
        return hashlib.sha256(json.dumps(self.asked(), sort_keys=True).encode()).hexdigest()

    def recipe_digest(self, system: str) -> str:
        """SHA-256 of a system's resolved recipe as `recipe.yaml` has it, with seed 0."""
        return hashlib.sha256(recipe_to_yaml(self.recipes[system]).encode()).hexdigest()

    def command(self, cell: Cell, data: Path) -> str:
        """What makes this one run by itself."""
        words = ["sri", "train", "--recipe", self.sources[cell.system], "--data", str(data)]
        words += ["--run", str(cell.run_dir), "--seed", str(cell.seed)]
        return shlex.join(words + _overrides(self.protocol, cell.system))


def read_study(workspace: Workspace, name_or_file: str) -> Study:
    """A shipped study or a file; SriError with every fault of the file and of its recipes."""
    path = study_path(name_or_file)
    try:
        tree = read_yaml(path.read_text("utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise SriError(f"study {path} cannot be read: {error}", "name a YAML file") from error
    if not isinstance(tree, dict):
        raise SriError(f"study {path} holds no keys", "start from a copy of a shipped one")
    protocol, faults = read_protocol(tree)
    recipes: dict[str, Recipe] = {}
    sources: dict[str, str] = {}
    for system in protocol.systems if protocol else ():
        assert protocol is not None
        sources[system] = _source(protocol, system, path)
        try:
            recipes[system] = _resolved(protocol, system, sources[system])
        except SriError as error:
            faults.append(f"systems.{system}: {error.message}")
    if protocol is None or faults:
        raise SriError(f"study {path.stem}: {'; '.join(faults)}", f"mend {path}")
    folder = workspace.runs_root / f"study-{protocol.name}"
    return Study(path, protocol, recipes, sources, folder)


def check_chosen(study: Study, only: Sequence[str] | None, seeds: Sequence[int] | None) -> None:
    """SriError for systems or seeds that the study does not have."""
    systems = study.protocol.systems
    for name in only or ():
        if name not in systems:
            near = did_you_mean(name, systems)
            raise SriError(f"--only: no system {name}{near}", f"it has {', '.join(systems)}")
    for seed in seeds or ():
        if seed not in study.protocol.seeds:
            known = ", ".join(map(str, study.protocol.seeds))
            raise SriError(f"--seeds: the study has no seed {seed}", f"it has {known}")


def _source(protocol: Protocol, system: str, path: Path) -> str:
    """The recipe's name or file; a file lies beside the study's, or where the user is."""
    recipe = protocol.systems[system].recipe or system
    beside = path.parent / recipe
    return os.path.abspath(beside) if beside.is_file() else recipe


def _overrides(protocol: Protocol, system: str) -> list[str]:
    # A name of its own, so that two systems of one recipe are not taken for one.
    recipe = protocol.systems[system].recipe
    named = [] if recipe in (None, system) else [f"name={system}"]
    equal = [f"train.steps={protocol.steps}", f"train.batch={protocol.batch}"]
    return [*protocol.overrides, *protocol.systems[system].overrides, *equal, *named]


def _resolved(protocol: Protocol, system: str, source: str) -> Recipe:
    """The recipe for the study's data set, or as its default says where it has no part for it."""
    data = protocol.data
    chosen = data.name if data.name in data_sets(source) else None
    recipe = load_recipe(source, chosen, [*_overrides(protocol, system), "train.seed=0"])
    if recipe.model.image_size != data.size:
        raise SriError(
            f"images of {recipe.model.image_size} px are wanted, the data are of {data.size} px"
            " (size=tiny shrinks any recipe to 32 px)"
        )
    return recipe


def _seeded(recipe: Recipe, seed: int) -> Recipe:
    return recipe.model_copy(update={"train": recipe.train.model_copy(update={"seed": seed})})


def _plain(protocol: Protocol, recipes: Mapping[str, Recipe]) -> dict[str, Any]:
    words = {"description"}
    return {
        "protocol": protocol.model_dump(mode="json", exclude=words),
        "recipes": {k: one.model_dump(mode="json", exclude=words) for k, one in recipes.items()},
    }


def as_now(asked: Mapping[str, Any]) -> dict[str, Any]:
    """What `Study.asked` gave, keys that came to the schemas since at their defaults."""
    protocol = Protocol.model_validate(asked["protocol"])
    recipes = {name: recipe_from_dict(one) for name, one in asked["recipes"].items()}
    return _plain(protocol, recipes)
