"""`sri report`: one page about one or several runs.

What it shows was recorded before, or is drawn from the newest checkpoints; nothing is measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sri_cli.atomic import write_atomic
from sri_cli.errors import SriError
from sri_cli.plotting.report import Page, Section, render
from sri_cli.plotting.report_commands import repeat_commands
from sri_cli.plotting.report_data import data_section
from sri_cli.plotting.report_parts import (
    curves,
    differences,
    measurements,
    overview,
    recipes,
)
from sri_cli.plotting.report_pictures import order, reconstructions, samples, walks
from sri_cli.plotting.report_runs import Subject, subjects
from sri_cli.run import Workspace

NAME = "report.html"
ENDINGS = (".html", ".htm")
SHOWN_NAMES = 3  # in the title; more are counted


@dataclass(frozen=True)
class About:
    """What a report says beside its runs; left out, it speaks of them alone."""

    title: str = ""
    lead: str = ""
    facts: Sequence[tuple[str, str]] = field(default_factory=list)
    commands: Sequence[str] = field(default_factory=list)


def report_of_runs(workspace: Workspace, runs: Sequence[str], out: Path | None = None) -> Path:
    """Write the page of runs (none named: the latest) to `out`; its path.

    None: report.html in the run's folder, or in the current one for several runs. Raises SriError
    for a run without an intact checkpoint or an `out` that is no page, before anything is drawn.
    """
    check_out(out)
    found = subjects(workspace, runs)
    path = out or (found[0].run_dir if len(found) == 1 else Path()) / NAME
    return write_report(workspace, found, path)


def write_report(
    workspace: Workspace, found: Sequence[Subject], path: Path, about: About | None = None
) -> Path:
    """Write the page of runs that are open to `path`, whole or not at all."""
    write_atomic(path, render(report_page(workspace, found, about or About())))
    return path


def report_page(workspace: Workspace, found: Sequence[Subject], about: About) -> Page:
    """Everything about the runs, in the order of reading."""
    several = len(found) > 1
    sections = [
        overview(found),
        *([differences(found)] if several else []),
        measurements(found),
        samples(found),
        order(found),
        reconstructions(found),
        walks(found),
        curves(found),
        data_section(found),
        recipes(found),
        Section(
            "Do it again",
            "The commands that made what is shown here, from the data on.",
            code="\n".join(about.commands or repeat_commands(workspace, found)),
        ),
    ]
    return Page(about.title or _title(found), about.lead or _lead(found), about.facts, sections)


def check_out(out: Path | None) -> None:
    """SriError unless the page may be written there."""
    if out is None:
        return
    if out.is_dir():
        raise SriError(f"--out {out} is a folder", f"name a file: --out {out / NAME}")
    if out.suffix.lower() not in ENDINGS:
        raise SriError(f"--out {out} is no name of a page", f"--out {out.with_suffix('.html')}")


def _title(found: Sequence[Subject]) -> str:
    names = [one.name for one in found]
    if len(names) > SHOWN_NAMES:
        names = [*names[: SHOWN_NAMES - 1], f"{len(names) - SHOWN_NAMES + 1} others"]
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _lead(found: Sequence[Subject]) -> str:
    captions = list(dict.fromkeys(one.trained.caption for one in found))
    what = f"{len(found)} runs" if len(found) > 1 else "A run"
    return (
        f"{what} trained on {' and on '.join(captions)}. All scenes are drawn from the newest"
        " intact checkpoint."
    )
