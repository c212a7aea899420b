"""What the shell completes in arguments and options, by click's own mechanism; README.md has setup.

A completion is a command of its own at every press of the key: nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Iterable

from click import Context, Parameter
from click.shell_completion import CompletionItem

from sri_cli.run import SHIPPED, Workspace, checkpoints_in, runs_in


def runs(ctx: Context, _: Parameter, text: str) -> list[CompletionItem]:
    """Runs with a checkpoint, those of studies too, and the shipped models."""
    root = _workspace(ctx).runs_root
    names = [str(run.relative_to(root)) for run in runs_in(root) if checkpoints_in(run)]
    return _items(dict.fromkeys([*names, *SHIPPED]), text, "dir")


def sources(ctx: Context, option: Parameter, text: str) -> list[CompletionItem]:
    """Runs, or a file: what training starts from."""
    named = [item for item in runs(ctx, option, text) if item.type == "plain"]
    return named or _items((), text, "file")


def run_folders(ctx: Context, _: Parameter, text: str) -> list[CompletionItem]:
    """Everything that `sri runs rm` removes: runs, also without a checkpoint, and studies."""
    root = _workspace(ctx).runs_root
    names = [run.relative_to(root) for run in runs_in(root)]
    studies = {name.parent for name in names if name.parent.name}
    return _items(map(str, [*names, *sorted(studies)]), text, "dir")


def recipes(_: Context, __: Parameter, text: str) -> list[CompletionItem]:
    """Shipped recipes, or a file."""
    from sri_cli.config.registry import recipe_names

    return _items(recipe_names(), text, "file")


def train_words(ctx: Context, option: Parameter, text: str) -> list[CompletionItem]:
    """The recipe, and what may follow it."""
    if ctx.params.get("recipe") or ctx.params.get("arguments"):
        return _items(["size=small", "size=tiny"], text, None)
    return recipes(ctx, option, text)


def studies(_: Context, __: Parameter, text: str) -> list[CompletionItem]:
    """Shipped studies, or a file."""
    from sri_cli.config.registry import study_names

    return _items(study_names(), text, "file")


def data_sets(ctx: Context, _: Parameter, text: str) -> list[CompletionItem]:
    """Prepared data sets, or a file."""
    return _items(_workspace(ctx).data_files(), text, "file")


def metrics(_: Context, __: Parameter, text: str) -> list[CompletionItem]:
    """Metrics of `sri eval`, also after a comma."""
    from sri_cli.metrics.records import ALL

    before, comma, _last = text.rpartition(",")
    chosen = before.split(",")
    return _items([f"{before}{comma}{name}" for name in ALL if name not in chosen], text, None)


def trackers(_: Context, __: Parameter, text: str) -> list[CompletionItem]:
    """What `sri train --tracker` takes."""
    from sri_cli.training.trackers import NONE, TRACKERS

    return _items((*TRACKERS, NONE), text, None)


def _items(names: Iterable[str], text: str, otherwise: str | None) -> list[CompletionItem]:
    """The names that begin with `text`; without any the shell's own files ("file", "dir")."""
    found = [CompletionItem(name) for name in names if name.startswith(text)]
    return found or ([CompletionItem(text, otherwise)] if otherwise else [])


def _workspace(ctx: Context) -> Workspace:
    """The folders that the command line or the environment names."""
    return Workspace(**{key: ctx.find_root().params[key] for key in ("data_root", "runs_root")})
