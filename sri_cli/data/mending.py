"""The command that makes a data file again, as far as the file itself tells how it was made."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sri_cli.run import PREPARED_AS

UNKNOWN = "make it again with the command that made it, and --force"
FLAGS = {
    "train": "--scenes",
    "val": "--val-scenes",
    "test": "--test-scenes",
    "views": "--views",
    "seed": "--seed",
    "crop": "--crop",
    "background": "--background",
}
SPLIT_FLAGS = ("train", "val", "test")
LEFT_OUT = {"seed": 0, "background": 1}  # what counts anyway


def make_again(path: Path, attrs: Mapping[str, Any]) -> str:
    """The hint for a damaged file with these root attributes (none: they cannot be read).

    A file does not tell the paths of others: DIR and FILE stand for them.
    """
    name, size, parameters = (attrs.get(key) for key in ("name", "size", "parameters"))
    if not isinstance(parameters, dict):
        return UNKNOWN
    words = what_words(str(name), str(attrs.get("source")), parameters)
    if words is None:
        return UNKNOWN
    place = [] if path == Path("data") / f"{name}-{size}.h5" else ["--out", shlex.quote(str(path))]
    command = ["sri prepare", words, f"--size {size}", *number_words(parameters), *place]
    whose = f" from {parameters['file']}" if "file" in parameters else ""
    return f"make it again{whose}: {' '.join(command)} --force"


def what_words(name: str, source: str, parameters: Mapping[str, Any]) -> str | None:
    """The data set and where it is from; None when no command makes it."""
    if source == "folder":
        return f"folder DIR --name {shlex.quote(name)}"
    if name not in PREPARED_AS:
        return None
    if "scenarios_sha256" in parameters:
        split = parameters.get("split", "default")
        return f"{name} --from DIR" + ("" if split == "default" else f" --split {split}")
    places = {"simulated": "", "mirror": " --from mirror", "original": " --from FILE"}
    return f"{PREPARED_AS[name]}{places[source]}" if source in places else None


def number_words(parameters: Mapping[str, Any]) -> list[str]:
    """The numbers that were asked for, as flags; those of the published split need none, nor does
    the seed of towers that were written as files: it is in the files."""
    done: tuple[str, ...] = SPLIT_FLAGS if parameters.get("split") == "as published" else ()
    if "scenarios_sha256" in parameters:
        done = ("seed",)
    return [
        f"{flag} {parameters[key]}"
        for key, flag in FLAGS.items()
        if type(parameters.get(key)) is int
        and key not in done
        and parameters[key] != LEFT_OUT.get(key)
    ]
