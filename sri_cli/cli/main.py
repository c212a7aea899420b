"""The `sri` command: imports a verb only when it is called, and prints every error."""

from __future__ import annotations

import importlib
import os
import shlex
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import click
from click.shell_completion import CompletionItem

from sri_cli import __version__
from sri_cli.atomic import DISK_HINTS, disk_hint
from sri_cli.console import print_line
from sri_cli.errors import Interrupted, SriError, Stopped, did_you_mean
from sri_cli.run import Workspace
from sri_cli.signals import is_ignored, stop_at_once, this_command

# The first line of each verb's help, here so that `sri --help` imports none of their modules.
VERBS = {
    "prepare": "Prepare a data set: simulate it or convert published files.",
    "recipes": "List, show, copy and check recipes.",
    "train": "Train a recipe; the same command again resumes.",
    "import": "Make a run from an official checkpoint file.",
    "sample": "Sample new scenes from a trained model.",
    "order": "Score and draw the order in which a model generates its slots.",
    "walk": "Write videos of walks through the scene latent or one slot.",
    "edit": "Remove, repeat, exchange or reimagine slots of scenes.",
    "segment": "Segment a folder of images: masks, layers and latents.",
    "figure": "Draw a figure from trained runs, as PNG or PDF.",
    "eval": "Measure trained models or folders of generated images.",
    "label-sacc": "Judge by eye whether generated scenes are plausible.",
    "runs": "List, compare and remove runs.",
    "export": "Write a model and its card for the Hugging Face Hub.",
    "study": "Run recipes by seeds, with a verdict on each claim.",
    "report": "Write one HTML page about runs.",
    "bench": "Measure training, sampling and data loading on this machine.",
    "doctor": "Check this machine, its packages, data and runs.",
    "demo": "Prepare data, train and write a report in about ten minutes.",
}

# Verbs that go on where they were stopped.
RESUMED = {"prepare", "train", "eval", "study", "demo", "label-sacc"}


class VerbGroup(click.Group):
    """The group of all verbs; every error becomes one line, a suggestion and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            if ctx.resilient_parsing:  # the shell completes a line with a misspelt verb
                return None
            near = did_you_mean(cmd_name, VERBS)
            raise SriError(f"no command {cmd_name}{near}", "`sri --help` lists the commands")
        module = "import_" if cmd_name == "import" else cmd_name.replace("-", "_")
        return importlib.import_module(f"sri_cli.cli.{module}").command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        verbs = [
            CompletionItem(name, help=summary)
            for name, summary in VERBS.items()
            if name.startswith(incomplete)
        ]
        return verbs + click.Command.shell_complete(self, ctx, incomplete)  # the options

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb; what stops it is a wanted stop or a file that ends too early.

        click would report both as "Aborted!", EOFError as the end of a prompt.
        """
        try:
            return super().invoke(ctx)
        except EOFError as error:
            raise RuntimeError(f"a file ends too early ({error})") from error
        except KeyboardInterrupt as stop:  # by Ctrl-C or a signal, outside of `stop_on_signal`
            print_line()  # the terminal has written ^C
            if ctx.invoked_subcommand in RESUMED:
                raise Interrupted("Stopped.", f"Resume with: {this_command()}") from stop
            raise Stopped(
                "Stopped; no unfinished file is left.", f"Begin again with: {this_command()}"
            ) from stop

    def main(self, args: Sequence[str] | None = None, *_: Any, **extra: Any) -> NoReturn:
        words = [expand_home(word) for word in (sys.argv[1:] if args is None else args)]
        try:
            code = super().main(words, **extra | {"prog_name": "sri", "standalone_mode": False})
        except Exception as error:
            code = print_error(error, words)
        sys.exit(code if isinstance(code, int) else 0)


def expand_home(word: str) -> str:
    """`--out=~/x` with the home folder for the ~, which shells leave there."""
    option, _, value = word.partition("=")
    if option.startswith("--") and value.startswith("~/"):
        return f"{option}={os.path.expanduser(value)}"
    return word


def print_error(error: Exception, words: Sequence[str]) -> int:
    """Print `error`, raised by the command line `words`, on stderr; the exit code.

    A wanted stop is one line without "Error:".
    """
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return error.exit_code
    if isinstance(error, click.exceptions.Abort):  # Ctrl-C or Ctrl-D at a prompt
        print_line()  # ends its line
        error = Stopped("Stopped.")
    if "--debug" in words:
        traceback.print_exception(error)
    message, hint, code = describe(error, words)
    if isinstance(error, SriError) and os.environ.get("LOCAL_RANK", "0") != "0":
        return code  # only the first rank of a machine prints what all ranks raise
    message = " ".join(message.split())
    if isinstance(error, Stopped):
        print_line(" ".join(filter(None, [message, hint])))
    else:
        print_line("\n".join(filter(None, [f"Error: {message}", hint])))
    return code


def describe(error: Exception, words: Sequence[str]) -> tuple[str, str | None, int]:
    """The message of an error, how to fix it, and the exit code."""
    if isinstance(error, SriError):
        return error.message, error.hint, error.exit_code
    of_sri = {name for option in cli.params for name in option.opts}
    if isinstance(error, click.NoSuchOption) and error.option_name in of_sri:
        name = error.option_name
        return f"{name} comes before the command", f"sri {name} ...; see `sri --help`", 2
    if isinstance(error, click.ClickException):
        ctx = getattr(error, "ctx", None)
        return error.format_message(), f"see `{ctx.command_path if ctx else 'sri'} --help`", 2
    of_gpu = getattr(sys.modules.get("torch"), "OutOfMemoryError", MemoryError)
    if isinstance(error, (MemoryError, of_gpu)):
        hint = "use less at once: a smaller train.batch, fewer slots, a smaller --num"
        return "not enough memory", hint, 1
    if isinstance(error, OSError) and error.errno in DISK_HINTS:
        file = f" {error.filename}" if error.filename else ""
        return f"could not write or read{file}: {error.strerror}", disk_hint(error), 1
    debug = f"for the traceback: {shlex.join(['sri', '--debug', *words])}"
    return f"{type(error).__name__}: {error}", None if "--debug" in words else debug, 1


@click.group(
    cls=VerbGroup,
    no_args_is_help=True,
    # Subcommands inherit both.
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True},
)
@click.option(
    "--data-root",
    type=click.Path(path_type=Path),
    default="data",
    envvar="SRI_DATA",
    show_envvar=True,
    metavar="DIR",
    help="Folder of data files.",
)
@click.option(
    "--runs-root",
    type=click.Path(path_type=Path),
    default="runs",
    envvar="SRI_RUNS",
    show_envvar=True,
    metavar="DIR",
    help="Folder of runs.",
)
@click.option("--debug", is_flag=True, help="Print the traceback of an error.")
@click.version_option(__version__, prog_name="sri")
@click.pass_context
def cli(ctx: click.Context, data_root: Path, runs_root: Path, debug: bool) -> None:
    """Autoregressive slot VAEs: prepare data, train, sample, evaluate, plot, label."""
    ctx.obj = Workspace(data_root, runs_root)


def main() -> NoReturn:
    """The console script.

    SIGTERM and a closed terminal act as Ctrl-C, so that unfinished output is removed.
    """
    if sys.stderr is None:  # closed, as by 2>&-
        sys.stderr = open(os.devnull, "w", errors="backslashreplace")  # noqa: SIM115 (open to the end)
    if "--debug" not in sys.argv:  # what fails in a thread is raised where it is waited for, too
        threading.excepthook = lambda _: None
    signal.signal(signal.SIGTERM, stop_at_once)
    if not is_ignored(signal.SIGHUP):
        signal.signal(signal.SIGHUP, stop_at_once)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not one that nohup ignores
        signal.signal(signal.SIGINT, stop_at_once)
    cli.main()
