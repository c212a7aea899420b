"""`sri label-sacc`: the models' scenes into one blinded session, and a person through it."""

from __future__ import annotations

import getpass
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sri_cli.errors import SriError
from sri_cli.labeling import scenes
from sri_cli.labeling.catch import Look, catch_trials, examples
from sri_cli.labeling.results import results
from sri_cli.labeling.scenes import Asked, Deck, Model, cards_of
from sri_cli.labeling.session import Session, checked_rater, open_session
from sri_cli.labeling.sources import Source, Wanted, open_sources, tell
from sri_cli.labeling.summary import Facts
from sri_cli.metrics.evaluate_runs import open_runs
from sri_cli.metrics.generated import DEMO, TOWERS
from sri_cli.metrics.records import model_digest
from sri_cli.run import Workspace

PORT = 8765


@dataclass(frozen=True)
class Way:
    """How the rater judges; None: the default, so that what was named can be told."""

    rater: str | None = None
    terminal: bool = False
    port: int | None = None
    no_browser: bool = False


def label(
    workspace: Workspace, runs: Sequence[str], folders: Sequence[Path], wanted: Wanted, way: Way
) -> Facts:
    """Let somebody judge, in a new session or what is left of one; the summary of these models
    when nothing is left. Interrupted when pictures are left."""
    check_way(way)
    rater = rater_named(way.rater)
    sources = open_sources(workspace, runs, folders, wanted)
    folder = prepared(workspace.runs_root / scenes.FOLDER, sources, wanted)
    session = open_session(folder, rater)
    tell(f"rater {rater}, session {folder}")
    show(session, way)
    return results(workspace, {source.model.weights: source.model.name for source in sources})


def summary(
    workspace: Workspace, runs: Sequence[str], folders: Sequence[Path], wanted: Wanted, way: Way
) -> Facts:
    """What was judged of these models (none named: of all)."""
    if wanted != Wanted() or way != Way():
        raise SriError(
            "--summary shows all that was judged, by whomever and however",
            "beside it goes nothing but --run, --images and --json",
        )
    if not runs and not folders:
        return results(workspace)
    trained = open_runs(workspace, runs, folders)
    return results(workspace, {model_digest(one): str(one.run_dir) for one in trained}, folders)


def check_way(way: Way) -> None:
    """SriError, before anything is drawn, for a way that leads nowhere."""
    if way.terminal and (way.port is not None or way.no_browser):
        raise SriError("--terminal shows no web page", "leave --port and --no-browser out")
    if way.terminal:
        from sri_cli.labeling.terminal import check_terminal

        check_terminal()


def rater_named(name: str | None) -> str:
    """The name given, or that of the login."""
    if name is None:
        try:
            name = getpass.getuser()
        except (OSError, KeyError) as error:  # a container's user without a name
            raise SriError("who judges?", "--rater NAME") from error
    return checked_rater(name)


def show(session: Session, way: Way) -> None:
    """Until all is judged, or Interrupted."""
    if way.terminal:
        from sri_cli.labeling.terminal import label_in_terminal

        return label_in_terminal(session)
    from sri_cli.labeling.server import serve

    serve(session, PORT if way.port is None else way.port, not way.no_browser, tell)


def prepared(labels: Path, sources: Sequence[Source], wanted: Wanted) -> Path:
    """The folder of the session that this command has begun before, or of a new one."""
    weights = tuple(source.model.weights for source in sources)
    named = next((s.data for s in sources if wanted.data is not None and s.data), None)
    data = None if named is None else str(named.attrs["sha256"])
    asked = Asked(weights, wanted.seed, wanted.num, wanted.catch, data)
    kept = scenes.find(labels, asked)
    return scenes.save(labels, new_deck(sources, asked)) if kept is None else kept.folder


def new_deck(sources: Sequence[Source], asked: Asked) -> Deck:
    """All that is to be judged, drawn."""
    size = sources[0].size
    data = next((s.data for s in sources if s.data is not None and s.data.name in TOWERS), None)
    look: Look = "demo" if data is not None and data.name == DEMO else "original"
    drawn = [source.draw() for source in sources]
    cards = [
        card
        for number, (source, pictures) in enumerate(zip(sources, drawn, strict=True))
        for card in cards_of(pictures, number, source.indices)
    ]
    trials = catch_trials(asked.catch, asked.seed, size, look, data)
    shown = examples(size, look)
    return Deck(
        asked,
        told_apart([source.model for source in sources]),
        (*cards, *trials.cards),
        np.concatenate([*drawn, trials.pictures]),
        tuple(shown.words),
        shown.pictures,
    )


def told_apart(models: Sequence[Model]) -> tuple[Model, ...]:
    """Models of one name get the start of their hash."""
    names = [model.name for model in models]
    return tuple(
        replace(model, name=f"{model.name} ({model.weights[:8]})")
        if names.count(model.name) > 1
        else model
        for model in models
    )
