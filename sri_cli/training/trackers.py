"""Trackers: where the records and previews of a run go besides its log.jsonl.

A tracker follows log.jsonl and holds every step once. What MLflow and Weights & Biases have
received cannot be taken back, so steps that are trained again are not sent to them again.
"""

from __future__ import annotations

import csv
import io
import math
import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from sri_cli import __version__
from sri_cli.atomic import list_folder, write_atomic
from sri_cli.config.load import recipe_to_yaml
from sri_cli.config.schema import Recipe, flatten
from sri_cli.errors import SriError, did_you_mean, pip_install
from sri_cli.strict_json import Record, from_json, to_json

CHOSEN_BY = "SRI_TRACKER"  # environment variable: names with spaces or commas between them
NONE = "none"
STATE = "trackers.json"  # in a run folder: what trackers hold, and the runs in MLflow and W&B
PREVIEWS = "previews"  # folder of a run
KEEP_SEC = 60.0  # after which TensorBoard's step is stored again
PROJECT = "sri"  # or what the library's own environment variable names


class Tracker:
    """Writes the records of a run to one library.

    `step` is the last step that it holds, `is_new` whether it holds nothing of the run;
    `is_local`: it writes to the run folder alone, so that its errors are those of the disk.
    `retry_at`: after a failure, the time from which it is tried again.
    """

    name: ClassVar[str]
    library: ClassVar[str | None] = None
    is_local: ClassVar[bool] = True
    hint: ClassVar[str] = "leave it out: --tracker none, or SRI_TRACKER=none"  # if `open` fails
    is_open = False
    retry_at = 0.0

    def __init__(self, run_dir: Path, recipe: Recipe, step: int) -> None:
        """For a run that is at `step`; nothing is written before `open`."""
        self.run_dir, self.recipe, self.step, self.is_new = run_dir, recipe, step, True

    def open(self) -> None:
        """Begin the record of the run, or continue it."""

    def rewind(self, step: int) -> None:
        """Drop what is after `step`, where that is possible."""

    def write(self, record: Record) -> None:
        """Write a record with its `step`, and the previews of that step."""
        raise NotImplementedError

    def close(self, status: str, checkpoint: Path | None) -> None:
        """Note the newest checkpoint, and whether the run is FINISHED or KILLED."""


class TensorBoard(Tracker):
    """Event files in the run folder."""

    name = library = "tensorboard"
    writer: Any
    kept_at: float  # when the step was stored

    def __init__(self, run_dir: Path, recipe: Recipe, step: int) -> None:
        super().__init__(run_dir, recipe, step)
        self.folder = run_dir / self.name
        self.is_new = not list_folder(self.folder)
        known = read_state(run_dir).get(self.name, {}).get("step", step)
        self.step = 0 if self.is_new else min(step, known)

    def open(self) -> None:
        from torch.utils.tensorboard import SummaryWriter
        from torch.utils.tensorboard.summary import hparams

        settings = parameters(self.recipe) | facts(self.recipe)
        # Events of later steps, from before a resume or a roll-back, are ignored.
        self.writer = SummaryWriter(self.folder, purge_step=self.step + 1)
        if self.is_new:
            for part in hparams(settings, {"loss": 0}):
                self.writer.file_writer.add_summary(part)
            self.writer.add_text("recipe", f"```yaml\n{recipe_to_yaml(self.recipe)}```")
            self.is_new = False
        self._keep_step()

    def _keep_step(self) -> None:
        """Store the step: after a kill it is early, and the records since come again.

        Without it nobody would know of records that were made while another tracker was chosen.
        """
        write_state(self.run_dir, self.name, {"step": self.step})
        self.kept_at = time.monotonic()

    def rewind(self, step: int) -> None:
        self.writer.close()
        self.step = min(self.step, step)
        self.open()

    def write(self, record: Record) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary
        from torch.utils.tensorboard.summary import scalar

        self.step, seconds = record["step"], time_of(record).timestamp()
        parts = [scalar(key, value) for key, value in scalars(record).items()]
        for name, path in previews_of(self.run_dir, self.step).items():
            image = Summary.Image(encoded_image_string=path.read_bytes(), colorspace=3)
            parts.append(Summary(value=[Summary.Value(tag=name, image=image)]))
        for part in parts:
            self.writer.file_writer.add_summary(part, self.step, seconds)
        self.writer.flush()  # what is flushed outlives this process
        if time.monotonic() - self.kept_at >= KEEP_SEC:
            self._keep_step()

    def close(self, status: str, checkpoint: Path | None) -> None:
        if checkpoint is not None:
            self.writer.add_text("checkpoint", str(checkpoint), self.step)
        self.writer.close()
        self._keep_step()


class Csv(Tracker):
    """A table in the run folder: a row for each record; empty where a record lacks a column."""

    name = "csv"

    def __init__(self, run_dir: Path, recipe: Recipe, step: int) -> None:
        super().__init__(run_dir, recipe, 0)  # written again from log.jsonl
        self.path = run_dir / "log.csv"
        self.columns: list[str] = []
        self.rows: list[Record] = []

    def rewind(self, step: int) -> None:
        self.rows = [row for row in self.rows if row["step"] <= step]
        self.step = min(self.step, step)
        write_atomic(self.path, self._text(self.rows, header=True))

    def write(self, record: Record) -> None:
        self.step = record["step"]
        self.rows.append(record)
        new = [key for key in record if key not in self.columns]
        self.columns += new
        if new:
            write_atomic(self.path, self._text(self.rows, header=True))
        else:
            with open(self.path, "ab") as file:
                file.write(self._text([record]))

    def _text(self, rows: Sequence[Record], header: bool = False) -> bytes:
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns, lineterminator="\n")
        if header:
            writer.writeheader()
        writer.writerows(rows)
        return text.getvalue().encode()


class RemoteTracker(Tracker):
    """A run in a tracker that many runs share, maybe on a server; `id` is its name there."""

    is_local = False

    def __init__(self, run_dir: Path, recipe: Recipe, step: int) -> None:
        self.known = read_state(run_dir).get(self.name, {})
        if self._is_copy(run_dir):  # which goes on as a run of its own
            self.known = {}
        self.id: Any = self.known.get("id")  # text, or None for a new run
        super().__init__(run_dir, recipe, self.known.get("step", 0))
        self.is_new = self.id is None

    def _is_copy(self, run_dir: Path) -> bool:
        """Whether the run of another folder, which is still there, is recorded under this id."""
        first = Path(self.known.get("run_dir", run_dir))
        if not first.is_dir() or first.resolve() == run_dir.resolve():
            return False
        other = read_state(first).get(self.name, {})
        return bool(other.get("id") == self.known.get("id"))

    def keep(self, step: int, **more: Any) -> None:
        """Store which run this is, and that it holds all steps up to `step`."""
        self.step, self.is_new = step, False
        self.known |= {"id": self.id, "step": step, "run_dir": str(self.run_dir.resolve()), **more}
        write_state(self.run_dir, self.name, self.known)

    def write(self, record: Record) -> None:
        before = self.step
        self.keep(record["step"])  # first: a kill between the two must not double a record
        try:
            self.send(record)
        except BaseException:
            self.keep(before)
            raise

    def send(self, record: Record) -> None:
        """`write`, without `keep`."""
        raise NotImplementedError


class Mlflow(RemoteTracker):
    """A run of MLflow, in the store of MLFLOW_TRACKING_URI."""

    name = library = "mlflow"
    hint = "check MLFLOW_TRACKING_URI (http://HOST:5000, sqlite:///FILE, databricks)"

    def open(self) -> None:
        # A server that is down must not stop the training for minutes. MLflow's own: 7 and 120 s.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
        from mlflow import MlflowClient
        from mlflow.entities import Param, RunTag
        from mlflow.exceptions import MlflowException

        client: Any = MlflowClient()
        self.client = client
        run = None
        if self.id is not None:
            try:
                run = client.get_run(self.id)
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
        if run is None or run.info.lifecycle_stage == "deleted":  # or it is in another store
            run = client.create_run(self._experiment(), run_name=self.run_dir.name)
            self.id = run.info.run_id
            self.keep(0)
        client.update_run(self.id, status="RUNNING")
        values = {key: str(value) for key, value in parameters(self.recipe).items()}
        params = [Param(*pair) for pair in values.items() if pair[0] not in run.data.params]
        tags = facts(self.recipe) | {"run_dir": str(self.run_dir.resolve())}
        for key, value in run.data.params.items():  # which cannot change; train.steps may
            if values.get(key, value) != value:
                tags[f"resumed/{key}"] = values[key]
        client.log_batch(self.id, params=params, tags=[RunTag(*pair) for pair in tags.items()])

    def _experiment(self) -> str:
        from mlflow.exceptions import MlflowException

        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        if "MLFLOW_EXPERIMENT_ID" in os.environ:
            return os.environ["MLFLOW_EXPERIMENT_ID"]
        with suppress(MlflowException):  # it exists
            return str(self.client.create_experiment(name))
        return str(self.client.get_experiment_by_name(name).experiment_id)

    def send(self, record: Record) -> None:
        from mlflow.entities import Metric
        from PIL import Image

        ms, step = int(time_of(record).timestamp() * 1000), record["step"]
        metrics = [Metric(key, float(value), ms, step) for key, value in scalars(record).items()]
        self.client.log_batch(self.id, metrics=metrics)
        for name, path in previews_of(self.run_dir, step).items():
            with Image.open(path) as image:
                self.client.log_image(self.id, image, key=name, step=step, timestamp=ms)

    def close(self, status: str, checkpoint: Path | None) -> None:
        if checkpoint is not None:
            self.client.set_tag(self.id, "checkpoint", str(checkpoint.resolve()))
        self.client.set_terminated(self.id, status)


class Wandb(RemoteTracker):
    """A run of Weights & Biases, online or, with WANDB_MODE=offline, in the run folder."""

    name = library = "wandb"
    hint = "log in with `wandb login`, or record to files with WANDB_MODE=offline"

    def open(self) -> None:
        os.environ.setdefault("WANDB_SILENT", "true")
        os.environ.setdefault("WANDB_CONSOLE", "off")
        # As for MLflow. W&B's own: 90 s to begin; at the end it waits for ever, and raises nothing.
        os.environ.setdefault("WANDB_INIT_TIMEOUT", "30")
        os.environ.setdefault("WANDB_FINISH_TIMEOUT", "300")
        os.environ.setdefault("WANDB_FINISH_TIMEOUT_RAISES", "true")
        import wandb

        tags = filter(None, os.environ.get("WANDB_TAGS", "").split(","))
        # Absolute: W&B's process may be that of another program, in another folder.
        parent = os.environ.get("WANDB_DIR", str(self.run_dir.resolve()))
        self._discard_unfinished(Path(parent, "wandb"))
        self.run = wandb.init(
            id=self.id,
            resume="allow",
            reinit="create_new",
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=os.environ.get("WANDB_NAME", self.run_dir.name),
            dir=parent,
            tags=[*tags, self.recipe.name, self.recipe.data],
        )
        self.id = self.run.id
        if self.run.resumed:  # online, where W&B knows what it received
            self.step = min(self.step, self.run.step - 1)
        folder = Path(self.run.dir).parent.name if self.run.offline else None
        self.keep(self.step, unfinished=folder, began_at=self.step)
        about = facts(self.recipe) | {"run_dir": str(self.run_dir.resolve())}
        values = self.recipe.model_dump(mode="json") | {"sri": about}
        self.run.config.update(values, allow_val_change=True)

    def _discard_unfinished(self, folder: Path) -> None:
        """Delete the files of a killed process, to send again what they should hold.

        W&B writes them 32 KiB at a time, so that nobody knows what is in them.
        """
        name = self.known.get("unfinished") or ""
        if name.startswith("offline-run-") and not [*(folder / name).glob("*.synced")]:
            shutil.rmtree(folder / name, ignore_errors=True)
            self.step = self.known["began_at"]

    def send(self, record: Record) -> None:
        import wandb

        paths = previews_of(self.run_dir, record["step"])
        images = {name: wandb.Image(str(path)) for name, path in paths.items()}
        self.run.log(scalars(record) | images, step=record["step"], commit=True)

    def close(self, status: str, checkpoint: Path | None) -> None:
        if checkpoint is not None:
            self.run.summary["checkpoint"] = str(checkpoint.resolve())
        self.run.finish(exit_code=0 if status == "FINISHED" else 75)
        self.keep(self.step, unfinished=None)


TRACKERS: dict[str, type[Tracker]] = {
    tracker.name: tracker for tracker in (TensorBoard, Mlflow, Wandb, Csv)
}


def choose_trackers(names: Sequence[str] | None = None) -> list[str]:
    """The trackers of these names, by default those in SRI_TRACKER, or installed TensorBoard.

    Raises:
        SriError: for an unknown name, or a library that is not installed.
    """
    chosen = os.environ.get(CHOSEN_BY, "").replace(",", " ").split() if names is None else names
    if names is None and not chosen:
        return [TensorBoard.name] if find_spec("tensorboard") else []
    for name in chosen:
        if name not in (*TRACKERS, NONE):
            known = ", ".join((*TRACKERS, NONE))
            raise SriError(f"no tracker {name}{did_you_mean(name, TRACKERS)}", f"one of {known}")
        library = None if name == NONE else TRACKERS[name].library
        if library is not None and find_spec(library) is None:
            raise SriError(f"tracker {name} is not installed", pip_install(f"sri-cli[{name}]"))
    return [name for name in dict.fromkeys(chosen) if name != NONE]


def scalars(record: Record) -> dict[str, float]:
    """The finite numbers of a record but its step."""
    return {
        key: value
        for key, value in record.items()
        if key != "step" and isinstance(value, int | float) and math.isfinite(value)
    }


def time_of(record: Record) -> datetime:
    """When the record was made."""
    return datetime.fromisoformat(record["time"])


def preview_path(run_dir: Path, name: str, step: int) -> Path:
    """The file of a preview, as previews/samples-000005000.png."""
    return run_dir / PREVIEWS / f"{name}-{step:09d}.png"


def previews_of(run_dir: Path, step: int) -> dict[str, Path]:
    """The previews of a step: previews/samples and previews/order, with their files."""
    paths = sorted((run_dir / PREVIEWS).glob(preview_path(run_dir, "*", step).name))
    return {f"{PREVIEWS}/{path.name.partition('-')[0]}": path for path in paths}


def drop_previews_after(run_dir: Path, step: int) -> None:
    """Delete the previews of later steps."""
    for path in list_folder(run_dir / PREVIEWS):
        number = path.stem.rpartition("-")[2]
        if number.isdecimal() and int(number) > step:
            path.unlink()


def parameters(recipe: Recipe) -> dict[str, Any]:
    """The keys of a recipe as numbers and text."""
    return {
        key: value if isinstance(value, str | int | float) else to_json(value)
        for key, value in flatten(recipe.model_dump(mode="json")).items()
    }


def facts(recipe: Recipe) -> dict[str, str]:
    """The tags of a run: recipe, data and system, and the version and git commit of sri."""
    tags = {"recipe": recipe.name, "data": recipe.data, "system": recipe.model.system}
    root = Path(__file__).parents[2]
    with suppress(OSError, subprocess.SubprocessError):
        if (root / ".git").exists():  # not installed from a wheel
            git = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40"]
            done = subprocess.run(git, capture_output=True, text=True, timeout=5, check=True)
            tags["sri.commit"] = done.stdout.strip()
    return tags | {"sri.version": __version__}


def read_state(run_dir: Path) -> dict[str, Any]:
    """Tracker -> id and last step of the run there; empty for a new run or a damaged file."""
    try:
        state = from_json((run_dir / STATE).read_bytes())
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def write_state(run_dir: Path, name: str, values: dict[str, Any]) -> None:
    """Store what a tracker holds beside what the others do."""
    state = read_state(run_dir) | {name: values}
    write_atomic(run_dir / STATE, f"{to_json(state, indent=2)}\n".encode())
