"""The `sri` command: subcommands imported only when called, errors told in one place."""

from __future__ import annotations

import errno
import importlib
import os
import shlex
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import click

from sri_cli import __version__
from sri_cli.errors import SriError, did_you_mean
from sri_cli.run import Workspace

# verb -> (module that holds its `command`, one-line help). Help is written here so that
# `sri --help` imports none of them.
VERBS: dict[str, tuple[str, str]] = {
    "prepare": ("sri_cli.cli.prepare", "Make a data file: simulate or convert a data set."),
    "recipes": ("sri_cli.cli.recipes", "List, show, copy and check recipes."),
    "train": ("sri_cli.cli.train", "Train a recipe; the same command again resumes."),
    "import": ("sri_cli.cli.import_", "Make a run of an official checkpoint file."),
    "sample": ("sri_cli.cli.sample", "Draw new scenes from a trained model."),
    "order": ("sri_cli.cli.order", "Show and score the order in which slots are drawn."),
    "reconstruct": ("sri_cli.cli.reconstruct", "Show test images as the model sees them."),
    "walk": ("sri_cli.cli.walk", "Film walks through latent space."),
    "edit": ("sri_cli.cli.edit", "Remove, repeat, exchange or re-imagine slots."),
    "figure": ("sri_cli.cli.figure", "Draw a figure of the paper, as PNG or PDF."),
    "eval": ("sri_cli.cli.eval", "Measure a trained model on a split."),
    "label-sacc": ("sri_cli.cli.label_sacc", "Judge by eye whether stacks are plausible."),
    "judge": ("sri_cli.cli.judge", "Make or check what stack-FD and the S-Acc estimate use."),
    "study": ("sri_cli.cli.study", "Run recipes by seeds, and judge a protocol's claims."),
    "report": ("sri_cli.cli.report", "Gather all about runs in one HTML page."),
    "bench": ("sri_cli.cli.bench", "Time training, sampling, data and metrics here."),
    "doctor": ("sri_cli.cli.doctor", "Say what is missing here, and what mends it."),
    "demo": ("sri_cli.cli.demo", "From nothing to a report with new scenes, in minutes."),
}

STOPPED_BY_SIGNAL = 75
REFUSED_BY_MACHINE = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
}


class LazyGroup(click.Group):
    """A group that knows its verbs by name and ends every run with an exit code, never a trace."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        command: click.Command = importlib.import_module(VERBS[cmd_name][0]).command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in VERBS:
            near = did_you_mean(args[0], VERBS)
            raise SriError(f"no command named {args[0]}{near}", "`sri --help` lists the commands")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(verb, text) for verb, (_, text) in VERBS.items()])

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> NoReturn:
        words = list(sys.argv[1:] if args is None else args)
        try:
            code = super().main(words, "sri", complete_var, standalone_mode=False, **extra)
        except Exception as error:
            code = report(error, words)
        sys.exit(code if isinstance(code, int) else 0)


def report(error: Exception, words: Sequence[str]) -> int:
    """Tell `error` on stderr in one line and a hint; the exit code. `words`: the command line."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return error.exit_code
    if "--debug" in words:
        traceback.print_exception(error)
    message, hint, code = explain(error, words)
    if isinstance(error, SriError) and os.environ.get("LOCAL_RANK", "0") != "0":
        return code  # of several processes on a machine one tells it
    click.echo(f"Error: {' '.join(message.split())}", err=True)
    if hint:
        click.echo(hint, err=True)
    return code


def explain(error: Exception, words: Sequence[str]) -> tuple[str, str | None, int]:
    """What is wrong, what mends it, the exit code."""
    if isinstance(error, SriError):
        return error.message, error.hint, error.exit_code
    if isinstance(error, click.exceptions.Abort):
        return "stopped", "run the same command again", STOPPED_BY_SIGNAL
    if isinstance(error, click.ClickException):
        ctx = getattr(error, "ctx", None)
        return error.format_message(), f"`{ctx.command_path if ctx else 'sri'} --help` says more", 2
    if isinstance(error, OSError) and error.errno in REFUSED_BY_MACHINE:
        where = f" {error.filename}" if error.filename else ""
        return f"could not write or read{where}: {error.strerror}", None, 1
    again = f"`{shlex.join(['sri', '--debug', *words])}` shows where"
    return f"{type(error).__name__}: {error}", None if "--debug" in words else again, 1


@click.group(
    cls=LazyGroup,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "--data-root",
    type=click.Path(path_type=Path),
    default="data",
    envvar="SRI_DATA",
    show_default=True,
    show_envvar=True,
    help="Where data files lie.",
)
@click.option(
    "--runs-root",
    type=click.Path(path_type=Path),
    default="runs",
    envvar="SRI_RUNS",
    show_default=True,
    show_envvar=True,
    help="Where runs lie.",
)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(__version__, prog_name="sri")
@click.pass_context
def cli(ctx: click.Context, data_root: Path, runs_root: Path, debug: bool) -> None:
    """Generative models of scenes made of objects: prepare, train, sample, look, measure."""
    ctx.obj = Workspace(data_root=data_root, runs_root=runs_root)


def main() -> NoReturn:
    """The console script. SIGTERM ends it as Ctrl-C does: half-written output is removed."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    cli.main()
