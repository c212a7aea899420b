"""A study: its protocol file, checked as a whole, and every run that it asks for."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, ValidationError

from sri_cli.config.load import data_sets, faults_of, load_recipe, recipe_from_dict, recipe_to_yaml
from sri_cli.config.registry import study_path
from sri_cli.config.schema import Count, Recipe, Section
from sri_cli.config.strict_yaml import read_yaml
from sri_cli.errors import SriError, did_you_mean
from sri_cli.metrics.evaluate import ALL, MAX_ORDER_SCENES
from sri_cli.run import Workspace

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
SET_BY_STUDY = ("train.steps", "train.batch", "train.seed", "name", "data")


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

    def measures(self) -> dict[str, Measure]:
        """Every measure that the metrics of this study give."""
        return {name: one for name, one in MEASURES.items() if one.metric in self.metrics}


def read_protocol(tree: Mapping[str, Any]) -> tuple[Protocol | None, list[str]]:
    """The protocol and all faults of its file; no protocol when a key is wrong."""
    tree = dict(tree)
    if isinstance(tree.get("systems"), dict):
        # `sri-mog:` alone is a system with no overrides.
        tree["systems"] = {k: {} if v is None else v for k, v in tree["systems"].items()}
    protocol, faults = None, []
    try:
        protocol = Protocol.model_validate(tree)
    except ValidationError as error:
        faults = faults_of(error, Protocol)
    # The rest is checked whatever else is wrong, so that all faults are reported at once.
    return protocol, [*faults, *_metric_faults(tree), *_override_faults(tree), *_claim_faults(tree)]


def _metric_faults(tree: Mapping[str, Any]) -> Iterator[str]:
    metrics = _section(tree, "metrics")
    for name in metrics:
        if name not in ALL:
            yield f"metrics.{name}: unknown metric{did_you_mean(str(name), ALL)}"
    if isinstance(metrics.get("order"), int) and metrics["order"] > MAX_ORDER_SCENES:
        yield f"metrics.order: at most {MAX_ORDER_SCENES} scenes, because every pair is compared"
    seeds = tree.get("seeds")
    if isinstance(seeds, list) and len({str(seed) for seed in seeds}) < len(seeds):
        yield "seeds: a seed occurs twice"
    if isinstance(seeds, list) and len(seeds) == 1 and tree.get("claims"):
        yield "seeds: a claim needs two or more"


def _override_faults(tree: Mapping[str, Any]) -> Iterator[str]:
    """Overrides of keys that the study itself sets."""
    sections = {"overrides": tree.get("overrides")}
    for name, system in _section(tree, "systems").items():
        if isinstance(system, dict):
            sections[f"systems.{name}.overrides"] = system.get("overrides")
    for section, overrides in sections.items():
        for override in overrides if isinstance(overrides, list) else []:
            key = str(override).partition("=")[0]
            if key in SET_BY_STUDY:
                yield f"{section}: {key} is set by the study itself"


def _claim_faults(tree: Mapping[str, Any]) -> Iterator[str]:
    """Claims about unknown systems and measures."""
    systems, metrics = _section(tree, "systems"), _section(tree, "metrics")
    claims = tree.get("claims")
    for number, claim in enumerate(claims if isinstance(claims, list) else []):
        if not isinstance(claim, dict):
            continue
        where = f"claims.{number}"
        for key, names in (("better", [claim.get("better")]), ("than", claim.get("than"))):
            for name in names if isinstance(names, list) else []:
                if isinstance(name, str) and name not in systems:
                    yield f"{where}.{key}: unknown system {name}{did_you_mean(name, systems)}"
        if isinstance(claim.get("than"), list) and claim.get("better") in claim["than"]:
            yield f"{where}: {claim['better']} is compared with itself"
        for name in claim["by"] if isinstance(claim.get("by"), list) else []:
            if name not in MEASURES:
                yield f"{where}.by: unknown measure {name}{did_you_mean(str(name), MEASURES)}"
            elif MEASURES[name].metric not in metrics:
                yield f"{where}.by: {name} is not measured; add {MEASURES[name].metric} to metrics"


def _section(tree: Mapping[str, Any], key: str) -> dict[Any, Any]:
    part = tree.get(key)
    return part if isinstance(part, dict) else {}


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
        """SHA-256 of a system's resolved recipe as in `recipe.yaml`, with seed 0."""
        return hashlib.sha256(recipe_to_yaml(self.recipes[system]).encode()).hexdigest()

    def command(self, run: StudyRun, data: Path) -> str:
        """The command that makes this run alone."""
        words = ["sri", "train", "--recipe", self.sources[run.system], "--data", str(data)]
        words += ["--run", str(run.run_dir), "--seed", str(run.seed)]
        return shlex.join(words + _overrides(self.protocol, run.system))


def read_study(workspace: Workspace, name_or_file: str) -> Study:
    """Read a shipped study or a file; SriError with every fault of it and of its recipes."""
    path = study_path(name_or_file)
    try:
        tree = read_yaml(path.read_text("utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise SriError(f"study {path} cannot be read: {error}", "name a YAML file") from error
    if not isinstance(tree, dict):
        raise SriError(f"study {path} has no keys", "start from a copy of a shipped one")
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
        raise SriError(f"study {path.stem}: {'; '.join(faults)}", f"correct {path}")
    folder = workspace.runs_root / f"study-{protocol.name}"
    return Study(path, protocol, recipes, sources, folder)


def content_now(content: Mapping[str, Any]) -> dict[str, Any]:
    """The `content` of an older version in the schemas of this one, new keys at their defaults."""
    protocol = Protocol.model_validate(content["protocol"])
    recipes = {name: recipe_from_dict(one) for name, one in content["recipes"].items()}
    return _content(protocol, recipes)


def _content(protocol: Protocol, recipes: Mapping[str, Recipe]) -> dict[str, Any]:
    ignored = {"description"}
    return {
        "protocol": protocol.model_dump(mode="json", exclude=ignored),
        "recipes": {k: one.model_dump(mode="json", exclude=ignored) for k, one in recipes.items()},
    }


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
