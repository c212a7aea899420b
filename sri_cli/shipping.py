"""Make of a trained run the model that is shipped in the package, `--run pretrained`.

    python -m sri_cli.shipping RUN DIR

The state of the training and facts about the machine are left out; the weights become float16.
Measure DIR with `sri eval --run DIR`, and put its files into sri_cli/pretrained/.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from sri_cli import checkpoint as checkpoints
from sri_cli.atomic import list_folder, write_atomic
from sri_cli.errors import SriError
from sri_cli.generation.trained_run import load_run
from sri_cli.plotting.report_commands import prepare_words
from sri_cli.run import Workspace
from sri_cli.training.log import LOG_NAME
from sri_cli.training.run_folder import (
    COMMANDS,
    describe_run,
    read_commands,
    trained_on,
    write_commands,
)

LARGEST = 8_000_000  # bytes of weights: the package stays small


def ship(workspace: Workspace, run: str, out: Path) -> Path:
    """Write a run folder `out` with the newest intact checkpoint of `run`, whose data must exist.

    Raises:
        SriError: for a folder that is not empty, weights that are too large for the package or for
            half precision, and data that no command makes.
    """
    if list_folder(out):
        raise SriError(f"{out} is not empty", "name a new or empty folder")
    loaded = load_run(workspace.find_run(run), workspace)
    if "data" not in loaded.extra:
        raise SriError(f"what {loaded.run_dir} was trained on is not known", "name a trained run")
    weights = halved(loaded.model.state_dict())
    size = len(checkpoints.weights_bytes(weights))
    if size > LARGEST:
        raise SriError(f"{size:,} bytes of weights, {LARGEST:,} at most", "name a smaller model")
    data = loaded.open_data()
    prepared_by = prepare_words(workspace, data)
    if prepared_by is None:
        raise SriError(
            f"{data.path} was made by a command that is not known", "train on data that anyone has"
        )
    trained_by, log = read_commands(loaded.run_dir), loaded.run_dir / LOG_NAME
    if not trained_by or not log.is_file():
        missing = LOG_NAME if trained_by else COMMANDS
        raise SriError(f"{loaded.run_dir} has no {missing}", "name a trained run")
    commands = [f"sri {prepared_by}", *trained_by]
    extra = {
        "data": loaded.extra["data"],
        "precision": loaded.extra.get("precision"),
        "source": {"caption": data.caption},
        "commands": commands,
    }
    recipe = loaded.recipe.model_dump(mode="json")
    checkpoints.save(out, loaded.step, weights, recipe, None, extra)
    describe_run(out, loaded.recipe, {"trained_on": trained_on(data)})
    write_commands(out, commands)
    write_atomic(out / LOG_NAME, log.read_bytes())
    return out


def halved(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """float16 for every floating-point tensor; SriError for a value beyond its range."""
    half = {name: t.half() if t.is_floating_point() else t for name, t in weights.items()}
    lost = [name for name, t in half.items() if t.is_floating_point() and not t.isfinite().all()]
    if lost:
        raise SriError(f"beyond half precision: {', '.join(lost)}", "name another run")
    return half


if __name__ == "__main__":
    torch.set_num_threads(1)
    try:
        print(ship(Workspace(Path("data"), Path("runs")), sys.argv[1], Path(sys.argv[2])))
    except SriError as error:
        sys.exit(f"Error: {error.message}\n{error.hint}")
