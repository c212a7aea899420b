"""A study: its protocol file, checked as a whole, and its runs.

Its runs are systems by points of a grid (any keys of the recipes, a list of values each) by seeds.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from sri_cli.atomic import write_atomic
from sri_cli.config.load import (
    RecipeFaults,
    data_sets,
    faults_of,
    load_recipe,
    recipe_from_dict,
    suggest_key,
    with_old_keys,
)
from sri_cli.config.registry import study_path
from sri_cli.config.schema import Count, Recipe, Section, describe_keys, flatten, without_effect
from sri_cli.config.strict_yaml import read_yaml, write_yaml
from sri_cli.data.dataset import DataFile
from sri_cli.errors import SriError, did_you_mean
from sri_cli.metrics.evaluate import MAX_ORDER_SCENES
from sri_cli.metrics.records import ALL, COMPARED
from sri_cli.run import Workspace
from sri_cli.strict_json import from_json, to_json

# Files in a study's folder
STUDY_FILE = "study.json"  # what its runs were made by
SUMMARY_FILE = "summary.json"  # its results
LONGEST_VALUE = 60  # characters of a changed value in an error
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
NEED_TWO = {*COMPARED, "order"}  # metrics that need two images or scenes
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
    "kid": Measure("kid", "kid", "KID x1000", True),
    "sacc-estimate": Measure("sacc-estimate", "sacc_estimate", "S-Acc estimate %"),
    "order-iou": Measure("order", "order_iou", "order IoU"),
    "order-mi": Measure("order", "order_information", "order MI"),
    "ari": Measure("ari", "ari_fg", "ARI-FG"),
    "msc": Measure("msc", "msc_fg", "mSC-FG"),
    "mbo": Measure("mbo", "mbo", "mBO"),
    "miou": Measure("miou", "miou", "mIoU"),
    "slots": Measure("slots", "slots_exact", "slot count exact %"),
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


class Point(NamedTuple):
    """A system at a point of the grid: recipe key -> value (none without a grid)."""

    system: str
    values: dict[str, Any]


class ClaimSection(Section):
    """The claim that `better` is better than each of `than` by each measure of `by`.

    Two systems are compared at each point of the grid; the names of points compare these alone.
    """

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
    grid: dict[str, list[Any]] = Field(
        {}, description="recipe key -> values: every system is trained with every combination"
    )
    runs_of: list[Annotated[str, Field(pattern=NAME)]] = Field(
        [], description="studies whose finished runs count as runs of this one where they are equal"
    )
    split: Literal["val", "test"] = Field("test", description="split of the real images")
    metrics: Annotated[dict[str, Count], Field(min_length=1)] = Field(
        description="metric -> number of images or scenes"
    )
    test: Literal["separation", "paired"] = Field(
        "separation",
        description="what confirms a claim: all seeds of one system before all of the other, or the"
        " 95 % interval of the differences by seed",
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
        faults = [*self._faults(), *self._grid_faults(), *self._claim_faults()]
        if faults:
            raise ValueError("; ".join(faults))
        return self

    def _faults(self) -> Iterator[str]:
        for name in self.metrics:
            if name not in ALL:
                yield f"metrics.{name}: unknown metric{did_you_mean(name, ALL)}"
            elif name in NEED_TWO and self.metrics[name] < 2:
                yield f"metrics.{name}: at least 2"
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

    def _grid_faults(self) -> Iterator[str]:
        known = [key for key, *_ in describe_keys()]
        words = [*self.overrides, *(w for one in self.systems.values() for w in one.overrides)]
        overridden = {word.partition("=")[0] for word in words}
        for key, values in self.grid.items():
            texts = [json.dumps(value, default=str) for value in values]
            if key in SET_BY_STUDY:
                yield f"grid.{key}: set by the study itself"
            elif key not in known:
                yield f"grid.{key}: unknown key{suggest_key(key, known)}"
            elif key in overridden:
                yield f"grid.{key}: an override sets it, too"
            if not values:
                yield f"grid.{key}: no values"
            elif any(isinstance(value, list | dict) for value in values):
                yield f"grid.{key}: should be a list of plain values, not {', '.join(texts)}"
            elif len(set(texts)) < len(texts):
                yield f"grid.{key}: a value occurs twice"
        named = Counter(name for name, _ in self._named_points())
        for name in [name for name, count in named.items() if count > 1]:
            yield f"grid: two of its points would be called {name}"

    def _claim_faults(self) -> Iterator[str]:
        points = self.points()
        known = {**self.systems, **points}
        for i, claim in enumerate(self.claims):
            for key, names in (("better", [claim.better]), ("than", claim.than)):
                for name in names:
                    if name not in known:
                        near = did_you_mean(name, known)
                        yield f"claims.{i}.{key}: unknown system {name}{near}"
                    elif claim.better in known and (name in points) != (claim.better in points):
                        yield f"claims.{i}: {claim.better} and {name} are not both points"
            if claim.better in claim.than:
                yield f"claims.{i}: {claim.better} is compared with itself"
            for name in claim.by:
                if name not in MEASURES:
                    near = did_you_mean(name, MEASURES)
                    yield f"claims.{i}.by: unknown measure {name}{near}"
                elif MEASURES[name].metric not in self.metrics:
                    yield f"claims.{i}.by: {name} needs {MEASURES[name].metric} in metrics"

    def points(self) -> dict[str, Point]:
        """Every system at every point of the grid, by a name for people and files."""
        return dict(self._named_points())

    def _named_points(self) -> Iterator[tuple[str, Point]]:
        titles = grid_titles(self.grid)
        for system in self.systems:
            for values in itertools.product(*self.grid.values()):
                parts = map(_name_of_value, titles, values)
                point = Point(system, dict(zip(self.grid, values, strict=True)))
                yield "-".join([system, *parts]), point

    def comparisons(self) -> Iterator[tuple[str, str, str]]:
        """What is claimed: the name of a point, of another that is worse, and the measure."""
        points = self.points()
        for claim in self.claims:
            for than in claim.than:
                if claim.better in points:
                    pairs = [(claim.better, than)]
                else:
                    ours, theirs = (
                        [name for name, point in points.items() if point.system == system]
                        for system in (claim.better, than)
                    )
                    pairs = list(zip(ours, theirs, strict=True))
                for better, other in pairs:
                    for measure in claim.by:
                        yield better, other, measure

    def measures(self) -> dict[str, Measure]:
        """Every measure that the metrics of this study give."""
        return {name: one for name, one in MEASURES.items() if one.metric in self.metrics}


def grid_titles(grid: Mapping[str, Any]) -> list[str]:
    """The keys of a grid without their sections, where that is unique."""
    leaves = [key.rpartition(".")[2] for key in grid]
    return [
        leaf if leaves.count(leaf) == 1 else key for key, leaf in zip(grid, leaves, strict=True)
    ]


def _name_of_value(title: str, value: Any) -> str:
    """`std0.7`, `alignment-false`: a part of a file's name."""
    text = re.sub(r"[^A-Za-z0-9._-]+", "-", value_text(value))
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return f"{title}{text}" if is_number else f"{title}-{text}"


def value_text(value: Any) -> str:
    """A value of a grid as KEY=VALUE has it."""
    return value if isinstance(value, str) else json.dumps(value)


@dataclass(frozen=True)
class StudyRun:
    """One run of a study: a system (at a point of the grid) with a seed."""

    system: str
    seed: int
    recipe: Recipe
    run_dir: Path

    @property
    def name(self) -> str:
        """The name of the run folder; one that another study trained may have another."""
        return f"{self.system}-seed-{self.seed}"

    @property
    def title(self) -> str:
        """The run for people."""
        return f"{self.system} seed {self.seed}"


@dataclass(frozen=True)
class Study:
    """A protocol with its recipes resolved.

    recipes: by name of a point, with seed 0; sources: the name or file of each system's recipe;
    folder: of all runs; reused: by name, the folders of runs that another study trained; recorded:
    by name, what the summary of another study has of runs whose folders are gone.
    """

    path: Path
    protocol: Protocol
    recipes: Mapping[str, Recipe]
    sources: Mapping[str, str]
    folder: Path
    reused: Mapping[str, Path] = field(default_factory=dict)
    recorded: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def runs(
        self, systems: Sequence[str] | None = None, seeds: Sequence[int] | None = None
    ) -> list[StudyRun]:
        """The runs (of these systems or points and seeds), seed by seed: each a whole comparison.

        Raises:
            SriError: for a system or a seed that the study does not have.
        """
        points = self.protocol.points()
        for name in systems or ():
            if name not in self.protocol.systems and name not in points:
                near = did_you_mean(name, {**self.protocol.systems, **points})
                known = ", ".join(self.protocol.systems)
                raise SriError(f"--only: unknown system {name}{near}", f"choose from {known}")
        for seed in seeds or ():
            if seed not in self.protocol.seeds:
                known = ", ".join(map(str, self.protocol.seeds))
                raise SriError(f"--seeds: the study has no seed {seed}", f"choose from {known}")
        runs = [
            StudyRun(name, seed, _seeded(self.recipes[name], seed), Path())
            for seed in self.protocol.seeds
            for name, point in points.items()
            if (systems is None or {name, point.system} & set(systems))
            and (seeds is None or seed in seeds)
        ]
        return [
            replace(run, run_dir=self.reused.get(run.name, self.folder / run.name)) for run in runs
        ]

    def content(self) -> dict[str, Any]:
        """Everything that decides the results; comments and descriptions do not."""
        trees = {system: with_old_keys(recipe) for system, recipe in self.recipes.items()}
        for tree in trees.values():
            del tree["description"]
        # Keys that older studies do not have leave their digests as they are; a run that another
        # study trained is the same run.
        defaults = {key: Protocol.model_fields[key].default for key in ("grid", "test")}
        later = {key for key, one in defaults.items() if getattr(self.protocol, key) == one}
        kept = self.protocol.model_dump(mode="json", exclude={"description", "runs_of", *later})
        return {"protocol": kept, "recipes": trees}

    def digest(self) -> str:
        """SHA-256 of `content`."""
        return hashlib.sha256(json.dumps(self.content(), sort_keys=True).encode()).hexdigest()

    def recipe_digest(self, system: str) -> str:
        """SHA-256 of a point's resolved recipe, under the keys of version 0.1, with seed 0."""
        return hashlib.sha256(write_yaml(with_old_keys(self.recipes[system])).encode()).hexdigest()

    def command(self, run: StudyRun, data: Path) -> str:
        """The command that makes this run alone."""
        source = self.sources[self.protocol.points()[run.system].system]
        words = ["sri", "train", "--recipe", source, "--data", str(data)]
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
    faults: list[str] = []
    try:
        protocol = Protocol.model_validate(tree)
    except ValidationError as error:
        faults = faults_of(error, Protocol)
    else:
        sources = {system: _source(protocol, system, path) for system in protocol.systems}
        of_recipes: dict[str, list[str]] = {}  # fault -> systems; many points have the same ones
        for name, point in protocol.points().items():
            try:
                recipes[name] = _resolved(protocol, name, sources[point.system])
            except SriError as error:
                several = error.faults if isinstance(error, RecipeFaults) else [error.message]
            else:
                useless = without_effect(recipes[name].model.model_dump())
                matches = "order" not in useless or "matching" not in protocol.metrics
                several = [] if matches else ["metrics.matching: it matches no slots"]
            for fault in several:
                of_recipes.setdefault(fault, []).append(point.system)
        for fault, systems in of_recipes.items():
            faults.append(f"systems.{', '.join(dict.fromkeys(systems))}: {fault}")
    if faults:
        raise SriError(f"study {path.stem}: {'; '.join(faults)}", f"correct {path}")
    return Study(path, protocol, recipes, sources, workspace.runs_root / f"study-{protocol.name}")


def _source(protocol: Protocol, system: str, path: Path) -> str:
    """The name or file of a recipe; a file is beside the study or in the current folder."""
    recipe = protocol.systems[system].recipe or system
    beside = path.parent / recipe
    return os.path.abspath(beside) if beside.is_file() else recipe


def _overrides(protocol: Protocol, name: str) -> list[str]:
    point = protocol.points()[name]
    system = protocol.systems[point.system]
    # Two systems of one recipe get names of their own.
    own = [] if name == (system.recipe or point.system) else [f"name={name}"]
    equal = [f"train.steps={protocol.steps}", f"train.batch={protocol.batch}"]
    grid = [f"{key}={value_text(value)}" for key, value in point.values.items()]
    return [*protocol.overrides, *system.overrides, *grid, *equal, *own]


def _resolved(protocol: Protocol, name: str, source: str) -> Recipe:
    """The recipe with its settings for the study's data set, or its defaults if it has none."""
    data = protocol.data
    chosen = data.name if data.name in data_sets(source) else None
    recipe = load_recipe(source, chosen, [*_overrides(protocol, name), "train.seed=0"])
    if recipe.model.image_size != data.size:
        raise SriError(
            f"the recipe is for images of {recipe.model.image_size} px, the data have {data.size}"
            " px (size=tiny shrinks any recipe to 32 px, size=small to 64)"
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
    # A version between may have had other keys, in a recipe or here; new ones have their defaults.
    protocol = Protocol.model_validate(stored["asked"]["protocol"])
    recipes = {key: recipe_from_dict(one) for key, one in stored["asked"]["recipes"].items()}
    before = replace(study, protocol=protocol, recipes=recipes)
    old, new = flatten(before.content()), flatten(study.content())
    changes = []
    # `record_content` compares the images themselves.
    of_images = {"protocol.data.prepare", "protocol.data.sha256"}
    for key in sorted((old.keys() | new.keys()) - of_images):
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
    path, sha256 = study.folder / STUDY_FILE, str(data.attrs["sha256"])
    known = sha256
    if path.is_file():
        known = _stored(path)["data"].get("sha256")
    else:  # a summary of another machine would be overwritten
        with suppress(OSError, ValueError, TypeError, KeyError):
            known = from_json((study.folder / SUMMARY_FILE).read_bytes())["data"]["sha256"]
    if known != sha256:
        raise SriError(
            f"the runs in {study.folder} were made with other images than those of {data.path}",
            f"restore that file, or move the runs away: mv {study.folder} ELSEWHERE",
        )
    if path.is_file():
        return
    stored = {"sha256": study.digest(), "data": data_facts(study, data), "asked": study.content()}
    write_atomic(path, f"{to_json(stored, indent=1)}\n".encode())
    write_atomic(study.folder / "protocol.yaml", study.path.read_bytes())


def data_facts(study: Study, data: DataFile) -> dict[str, Any]:
    """The data file of the study, and how it is made."""
    return {
        "name": data.name,
        "size": data.size,
        "source": data.source,
        "sha256": str(data.attrs["sha256"]),
        "labels": data.split(study.protocol.split).labels_digest,
        "images": data.counts,
        "prepare": study.protocol.data.prepared_by,
    }
