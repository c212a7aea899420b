"""A study: its protocol file, checked as a whole, and its runs."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from sri_cli.atomic import write_atomic
from sri_cli.config.load import (
    data_sets,
    faults_of,
    load_recipe,
    recipe_from_dict,
    with_old_keys,
)
from sri_cli.config.registry import study_path
from sri_cli.config.schema import Count, Recipe, Section, flatten
from sri_cli.config.strict_yaml import read_yaml, write_yaml
from sri_cli.data.dataset import DataFile
from sri_cli.errors import SriError, did_you_mean
from sri_cli.metrics.evaluate import MAX_ORDER_SCENES
from sri_cli.metrics.records import ALL
from sri_cli.run import Workspace
from sri_cli.strict_json import from_json, to_json

STUDY_FILE = "study.json"  # in a study's folder: what its runs were made by
LONGEST_VALUE = 60  # characters of a changed value in an error
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
SET_BY_STUDY = {"train.steps", "train.batch", "train.seed", "name", "data"}


class Measure(NamedTuple):
    """A value that a claim may be about: its metric and its key in metrics.jsonl."""

    metric: str
    key: str
    heading: str
    lower_is_better: bool = False


MEASURES = {
    "stack-fd": Measure("stack-fd", "stack_fd", "stack-FD", True),
    "fid": Measure("fid", "fid", "FID", True),
    "sacc-estimate": Measure("sacc-estimate", "sacc_estimate", "S-Acc estimate %"),
    "order-iou": Measure("order", "order_iou", "order IoU"),
    "order-mi": Measure("order", "order_information", "order MI"),
    "ari": Measure("ari", "ari_fg", "ARI-FG"),
    "msc": Measure("msc", "msc_fg", "mSC-FG"),
    "elbo": Measure("elbo", "negative_elbo", "-ELBO (nats)", True),
}


class DataSection(Section):
    """The one data file of all runs."""

    name: Annotated[str, Field(pattern=NAME)] = Field(description="data set")
    size: Literal[32, 64, 96, 128] = Field(description="image side, px")
    file: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\.h5$")] | None = Field(
        None, description="in the data folder; default NAME-SIZE.h5"
    )
    prepare: str | None = Field(None, description="arguments of `sri prepare` that make it")
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = Field(
        None, description="of its images when the study was first run"
    )

    @property
    def prepared_by(self) -> str | None:
        """The arguments of `sri prepare` that make the file in data/."""
        out = "" if self.file is None else f" --out data/{self.file}"
        return None if self.prepare is None else self.prepare + out


class SystemSection(Section):
    """A system: a recipe with overrides."""

    recipe: str | None = Field(None, description="name or file; default: the system's name")
    overrides: list[str] = Field([], description="KEY=VALUE, after those for all systems")


class ClaimSection(Section):
    """The claim that `better` is better than each of `than` by each measure of `by`."""

    better: str
    than: Annotated[list[str], Field(min_length=1)]
    by: Annotated[list[str], Field(min_length=1)]


class Protocol(Section):
    """What is trained, what is measured, and what is claimed."""

    name: Annotated[str, Field(pattern=NAME)] = Field(description="runs are in study-NAME")
    description: str = ""
    data: DataSection
    overrides: list[str] = Field([], description="KEY=VALUE, for all systems")
    steps: Count = Field(description="per run; the last checkpoint is measured")
    batch: Count = Field(description="images per step")
    seeds: Annotated[list[Annotated[int, Field(ge=0, lt=2**63)]], Field(min_length=1)]
    systems: Annotated[
        dict[Annotated[str, Field(pattern=NAME)], SystemSection], Field(min_length=1)
    ]
    split: Literal["val", "test"] = Field("test", description="split of the real images")
    metrics: Annotated[dict[str, Count], Field(min_length=1)] = Field(
        description="metric -> number of images or scenes"
    )
    claims: list[ClaimSection] = []

    @field_validator("systems", mode="before")
    @classmethod
    def _systems_without_keys(cls, systems: Any) -> Any:
        """`sri-mog:` alone is a system with no overrides."""
        if not isinstance(systems, dict):
            return systems
        return {name: {} if system is None else system for name, system in systems.items()}

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        faults = [*self._faults(), *self._claim_faults()]
        if faults:
            raise ValueError("; ".join(faults))
        return self

    def _faults(self) -> Iterator[str]:
        for name in self.metrics:
            if name not in ALL:
                yield f"metrics.{name}: unknown metric{did_you_mean(name, ALL)}"
        if self.metrics.get("order", 0) > MAX_ORDER_SCENES:
            yield f"metrics.order: at most {MAX_ORDER_SCENES} scenes, every pair is compared"
        if len(set(self.seeds)) < len(self.seeds):
            yield "seeds: a seed occurs twice"
        if self.claims and len(self.seeds) == 1:
            yield "seeds: a claim needs two or more"
        sections = {"overrides": self.overrides}
        sections |= {f"systems.{name}.overrides": s.overrides for name, s in self.systems.items()}
        for section, overrides in sections.items():
            for key in {override.partition("=")[0] for override in overrides} & SET_BY_STUDY:
                yield f"{section}: {key} is set by the study itself"

    def _claim_faults(self) -> Iterator[str]:
        for i, claim in enumerate(self.claims):
            for key, names in (("better", [claim.better]), ("than", claim.than)):
                for name in names:
                    if name not in self.systems:
                        near = did_you_mean(name, self.systems)
                        yield f"claims.{i}.{key}: unknown system {name}{near}"
            if claim.better in claim.than:
                yield f"claims.{i}: {claim.better} is compared with itself"
            for name in claim.by:
                if name not in MEASURES:
                    near = did_you_mean(name, MEASURES)
                    yield f"claims.{i}.by: unknown measure {name}{near}"
                elif MEASURES[name].metric not in self.metrics:
                    yield f"claims.{i}.by: {name} needs {MEASURES[name].metric} in metrics"

    def measures(self) -> dict[str, Measure]:
        """Every measure that the metrics of this study give."""
        return {name: one for name, one in MEASURES.items() if one.metric in self.metrics}


@dataclass(frozen=True)
class StudyRun:
    """One run of a study: a system with a seed."""

    system: str
    seed: int
    recipe: Recipe
    run_dir: Path

    @property
    def name(self) -> str:
        """The name of the run folder."""
        return self.run_dir.name

    @property
    def title(self) -> str:
        """The run for people."""
        return f"{self.system} seed {self.seed}"


@dataclass(frozen=True)
class Study:
    """A protocol with its recipes resolved.

    recipes: by system, with seed 0; sources: the name or file of each recipe; folder: of all runs.
    """

    path: Path
    protocol: Protocol
    recipes: Mapping[str, Recipe]
    sources: Mapping[str, str]
    folder: Path

    def runs(
        self, systems: Sequence[str] | None = None, seeds: Sequence[int] | None = None
    ) -> list[StudyRun]:
        """The runs (of these systems and seeds), seed by seed: each seed is a whole comparison.

        Raises:
            SriError: for a system or a seed that the study does not have.
        """
        for name in systems or ():
            if name not in self.protocol.systems:
                near = did_you_mean(name, self.protocol.systems)
                known = ", ".join(self.protocol.systems)
                raise SriError(f"--only: unknown system {name}{near}", f"choose from {known}")
        for seed in seeds or ():
            if seed not in self.protocol.seeds:
                known = ", ".join(map(str, self.protocol.seeds))
                raise SriError(f"--seeds: the study has no seed {seed}", f"choose from {known}")
        return [
            StudyRun(system, seed, _seeded(self.recipes[system], seed), self.folder / name)
            for seed in self.protocol.seeds
            for system in self.protocol.systems
            if (systems is None or system in systems) and (seeds is None or seed in seeds)
            for name in [f"{system}-seed-{seed}"]
        ]

    def content(self) -> dict[str, Any]:
        """Everything that decides the results; comments and descriptions do not."""
        return _content(self.protocol, self.recipes)

    def digest(self) -> str:
        """SHA-256 of `content`."""
        return hashlib.sha256(json.dumps(self.content(), sort_keys=True).encode()).hexdigest()

    def recipe_digest(self, system: str) -> str:
        """SHA-256 of a system's resolved recipe, under the keys of version 0.1, with seed 0."""
        return hashlib.sha256(write_yaml(with_old_keys(self.recipes[system])).encode()).hexdigest()

    def command(self, run: StudyRun, data: Path) -> str:
        """The command that makes this run alone."""
        words = ["sri", "train", "--recipe", self.sources[run.system], "--data", str(data)]
        words += ["--run", str(run.run_dir), "--seed", str(run.seed)]
        return shlex.join(words + _overrides(self.protocol, run.system))


def read_study(workspace: Workspace, name_or_file: str) -> Study:
    """Read a shipped study or a file; SriError with every fault of it or of its recipes."""
    path = study_path(name_or_file)
    try:
        tree = read_yaml(path.read_text("utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise SriError(f"study {path} cannot be read: {error}", "name a YAML file") from error
    recipes: dict[str, Recipe] = {}
    sources: dict[str, str] = {}
    faults = []
    try:
        protocol = Protocol.model_validate(tree)
    except ValidationError as error:
        faults = faults_of(error, Protocol)
    else:
        for system in protocol.systems:
            sources[system] = _source(protocol, system, path)
            try:
                recipes[system] = _resolved(protocol, system, sources[system])
            except SriError as error:
                faults.append(f"systems.{system}: {error.message}")
    if faults:
        raise SriError(f"study {path.stem}: {'; '.join(faults)}", f"correct {path}")
    return Study(path, protocol, recipes, sources, workspace.runs_root / f"study-{protocol.name}")


def _content_now(content: Mapping[str, Any]) -> dict[str, Any]:
    """The `content` of an older version in the schemas of this one, new keys at their defaults."""
    protocol = Protocol.model_validate(content["protocol"])
    recipes = {name: recipe_from_dict(one) for name, one in content["recipes"].items()}
    return _content(protocol, recipes)


def _content(protocol: Protocol, recipes: Mapping[str, Recipe]) -> dict[str, Any]:
    trees = {system: with_old_keys(recipe) for system, recipe in recipes.items()}
    for tree in trees.values():
        del tree["description"]
    return {"protocol": protocol.model_dump(mode="json", exclude={"description"}), "recipes": trees}


def _source(protocol: Protocol, system: str, path: Path) -> str:
    """The name or file of a recipe; a file is beside the study or in the current folder."""
    recipe = protocol.systems[system].recipe or system
    beside = path.parent / recipe
    return os.path.abspath(beside) if beside.is_file() else recipe


def _overrides(protocol: Protocol, system: str) -> list[str]:
    # Two systems of one recipe get names of their own.
    recipe = protocol.systems[system].recipe
    name = [] if recipe in (None, system) else [f"name={system}"]
    equal = [f"train.steps={protocol.steps}", f"train.batch={protocol.batch}"]
    return [*protocol.overrides, *protocol.systems[system].overrides, *equal, *name]


def _resolved(protocol: Protocol, system: str, source: str) -> Recipe:
    """The recipe with its settings for the study's data set, or its defaults if it has none."""
    data = protocol.data
    chosen = data.name if data.name in data_sets(source) else None
    recipe = load_recipe(source, chosen, [*_overrides(protocol, system), "train.seed=0"])
    if recipe.model.image_size != data.size:
        raise SriError(
            f"the recipe is for images of {recipe.model.image_size} px, the data have {data.size}"
            " px (size=tiny shrinks any recipe to 32 px)"
        )
    return recipe


def _seeded(recipe: Recipe, seed: int) -> Recipe:
    return recipe.model_copy(update={"train": recipe.train.model_copy(update={"seed": seed})})


def check_unchanged(study: Study) -> None:
    """SriError when the existing runs of the study's folder were made by another protocol."""
    path = study.folder / STUDY_FILE
    if not path.is_file():
        return
    stored = _stored(path)
    if stored.get("sha256") == study.digest():
        return
    # A version between may have had other keys, in a recipe or here.
    old, new = flatten(_content_now(stored["asked"])), flatten(study.content())
    changes = []
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key):
            values = f"{old.get(key)} -> {new.get(key)}"
            changes.append(f"{key} {values}" if len(values) <= LONGEST_VALUE else key)
    if changes:
        raise SriError(
            f"the protocol changed after the runs in {study.folder}: {'; '.join(changes)}",
            f"undo the change, or give the study another name in {study.path}",
        )


def _stored(path: Path) -> dict[str, Any]:
    """What `record_content` wrote; SriError where it is damaged."""
    try:
        stored = from_json(path.read_bytes())
    except (OSError, ValueError):
        stored = None
    parts = stored if isinstance(stored, dict) else {}
    if all(isinstance(parts.get(key), dict) for key in ("data", "asked")):
        return parts
    raise SriError(
        f"{path} is damaged",
        f"restore it, or move the study's folder away: mv {path.parent} ELSEWHERE",
    )


def record_content(study: Study, data: DataFile) -> None:
    """Record protocol and data before the first run; SriError when the data changed since."""
    path = study.folder / STUDY_FILE
    if path.is_file():
        if _stored(path)["data"].get("sha256") != data.attrs["sha256"]:
            raise SriError(
                f"the runs in {study.folder} were made with other images than those of {data.path}",
                f"restore that file, or move the runs away: mv {study.folder} ELSEWHERE",
            )
        return
    stored = {
        "sha256": study.digest(),
        "data": data_facts(study, data),
        "asked": study.content(),
    }
    write_atomic(path, f"{to_json(stored, indent=1)}\n".encode())
    write_atomic(study.folder / "protocol.yaml", study.path.read_bytes())


def data_facts(study: Study, data: DataFile) -> dict[str, Any]:
    """The data file of the study, and how it is made."""
    return {
        "name": data.name,
        "size": data.size,
        "source": data.source,
        "sha256": str(data.attrs["sha256"]),
        "images": data.counts,
        "prepare": study.protocol.data.prepared_by,
    }
