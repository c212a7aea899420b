"""What a study's file may say, and what is wrong with one: all of it at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, ValidationError

from sri_cli.config.complaints import complaints
from sri_cli.config.schema import Count, Section
from sri_cli.errors import did_you_mean
from sri_cli.metrics.evaluate import ALL, MAX_ORDER_SCENES

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
HELD = ("train.steps", "train.batch", "train.seed", "name", "data")  # the study sets them itself


class Measure(NamedTuple):
    """What a claim may be about: the metric that measures it, its key in metrics.jsonl."""

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
        None, description="in the data folder; left out: NAME-SIZE.h5"
    )
    prepare: str | None = Field(None, description="what follows `sri prepare` to make it")
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = Field(
        None, description="of its images, where the study was first run; another one is told"
    )

    @property
    def prepared_by(self) -> str | None:
        """`prepare`, whole, where data lie in data/."""
        place = "" if self.file is None else f" --out data/{self.file}"
        return None if self.prepare is None else self.prepare + place


class SystemSection(Section):
    """A system: a recipe and what is changed of it."""

    recipe: str | None = Field(None, description="name or file; left out: the system's name")
    overrides: list[str] = Field([], description="KEY=VALUE, after those for all systems")


class ClaimSection(Section):
    """`better` is better than each of `than` by each measure of `by`."""

    better: str
    than: Annotated[list[str], Field(min_length=1)]
    by: Annotated[list[str], Field(min_length=1)]


class Protocol(Section):
    """A study: which systems are trained how, what is measured, what would be shown."""

    name: Annotated[str, Field(pattern=NAME)] = Field(description="runs lie in study-NAME")
    description: str = ""
    data: DataSection
    overrides: list[str] = Field([], description="KEY=VALUE, for all systems")
    steps: Count = Field(description="of every run; the last checkpoint is measured")
    batch: Count = Field(description="of every run, images")
    seeds: Annotated[list[Annotated[int, Field(ge=0, lt=2**63)]], Field(min_length=1)]
    systems: Annotated[
        dict[Annotated[str, Field(pattern=NAME)], SystemSection], Field(min_length=1)
    ]
    split: Literal["val", "test"] = Field("test", description="real images to compare with")
    metrics: Annotated[dict[str, Count], Field(min_length=1)] = Field(
        description="metric -> how many images or new scenes"
    )
    claims: list[ClaimSection] = []

    def measures(self) -> dict[str, Measure]:
        """All that is measured and may be claimed."""
        return {name: one for name, one in MEASURES.items() if one.metric in self.metrics}


def read_protocol(tree: Mapping[str, Any]) -> tuple[Protocol | None, list[str]]:
    """The protocol, or everything that is wrong with the keys of its file."""
    tree = dict(tree)
    if isinstance(tree.get("systems"), dict):
        # `sri-mog:` alone is a system as its recipe says.
        tree["systems"] = {k: {} if v is None else v for k, v in tree["systems"].items()}
    protocol, faults = None, []
    try:
        protocol = Protocol.model_validate(tree)
    except ValidationError as error:
        faults = complaints(error, Protocol)
    # These look at what is there, whatever else is wrong.
    return protocol, [*faults, *_wrong_metrics(tree), *_wrong_overrides(tree), *_wrong_claims(tree)]


def _wrong_metrics(tree: Mapping[str, Any]) -> Iterator[str]:
    metrics = _section(tree, "metrics")
    for name in metrics:
        if name not in ALL:
            yield f"metrics.{name}: unknown metric{did_you_mean(str(name), ALL)}"
    if isinstance(metrics.get("order"), int) and metrics["order"] > MAX_ORDER_SCENES:
        yield f"metrics.order: at most {MAX_ORDER_SCENES} scenes, for every pair is compared"
    seeds = tree.get("seeds")
    if isinstance(seeds, list) and len({str(seed) for seed in seeds}) < len(seeds):
        yield "seeds: each once"
    if isinstance(seeds, list) and len(seeds) == 1 and tree.get("claims"):
        yield "seeds: a claim wants two or more, for one seed has no spread"


def _wrong_overrides(tree: Mapping[str, Any]) -> Iterator[str]:
    """Overrides of what all systems have in common."""
    places = {"overrides": tree.get("overrides")}
    for name, system in _section(tree, "systems").items():
        if isinstance(system, dict):
            places[f"systems.{name}.overrides"] = system.get("overrides")
    for place, words in places.items():
        for word in words if isinstance(words, list) else []:
            key = str(word).partition("=")[0]
            if key in HELD:
                yield f"{place}: {key} is the study's own; it stands at its top"


def _wrong_claims(tree: Mapping[str, Any]) -> Iterator[str]:
    """Claims about systems or measures that there are not."""
    systems, metrics = _section(tree, "systems"), _section(tree, "metrics")
    claims = tree.get("claims")
    for number, claim in enumerate(claims if isinstance(claims, list) else []):
        if not isinstance(claim, dict):
            continue
        place = f"claims.{number}"
        for key, names in (("better", [claim.get("better")]), ("than", claim.get("than"))):
            for name in names if isinstance(names, list) else []:
                if isinstance(name, str) and name not in systems:
                    yield f"{place}.{key}: no system {name}{did_you_mean(name, systems)}"
        if isinstance(claim.get("than"), list) and claim.get("better") in claim["than"]:
            yield f"{place}: {claim['better']} is compared with itself"
        for name in claim["by"] if isinstance(claim.get("by"), list) else []:
            if name not in MEASURES:
                yield f"{place}.by: unknown measure {name}{did_you_mean(str(name), MEASURES)}"
            elif MEASURES[name].metric not in metrics:
                yield f"{place}.by: {name} is not measured; add {MEASURES[name].metric} to metrics"


def _section(tree: Mapping[str, Any], key: str) -> dict[Any, Any]:
    part = tree.get(key)
    return part if isinstance(part, dict) else {}
