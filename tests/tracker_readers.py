"""What a tracker holds of a run, read by its own library: (step, loss) and the steps of images."""

from __future__ import annotations

import csv
import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sri_cli.training.trackers import read_state

IMAGE = "previews/samples"
Held = tuple[list[tuple[int, float]], list[int]]


def read_tensorboard(run: Path) -> Held:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"images": 0, "scalars": 0})
    events.Reload()
    images = events.Images(IMAGE) if IMAGE in events.Tags()["images"] else []
    assert all(one.encoded_image_string.startswith(b"\x89PNG") for one in images)
    return [(e.step, e.value) for e in events.Scalars("loss")], [e.step for e in images]


def mlflow_run(run: Path) -> Any:
    from mlflow import MlflowClient

    return MlflowClient().get_run(read_state(run)["mlflow"]["id"])


def read_mlflow(run: Path) -> Held:
    from mlflow import MlflowClient

    client, id_ = MlflowClient(), read_state(run)["mlflow"]["id"]
    (experiment,) = client.search_experiments(filter_string="name = 'sri'")
    assert len(client.search_runs([experiment.experiment_id])) == 1
    paths = [Path(one.path) for one in client.list_artifacts(id_, "images")]
    names = [path.name for path in paths if path.suffix == ".png"]
    # previews~samples+step+2+timestamp+...
    steps = [int(name.split("+")[2]) for name in names if name.startswith("previews~samples+")]
    return [(m.step, m.value) for m in client.get_metric_history(id_, "loss")], sorted(steps)


def wandb_records(run: Path) -> Iterator[Any]:
    """The records of all offline files, oldest first; `wandb sync` sends them in this order.

    The file is a log of LevelDB: blocks of 32 KiB, in them pieces of records with a header of
    checksum, length and kind (1: whole; 2, 3, 4: first, middle, last).
    """
    from wandb.proto.wandb_internal_pb2 import Record

    for path in sorted((run / "wandb").glob("offline-run-*/*.wandb")):
        wait_for_the_end_of(path.parent)
        data, at, piece = path.read_bytes(), 7, b""
        while at + 7 <= len(data):
            if 32768 - at % 32768 < 7:  # the rest of a block is empty
                at += 32768 - at % 32768
                continue
            length, kind = struct.unpack("<HB", data[at + 4 : at + 7])
            piece += data[at + 7 : at + 7 + length]
            at += 7 + length
            if kind in (1, 4):
                yield Record.FromString(piece)
                piece = b""


def wait_for_the_end_of(folder: Path) -> None:
    """Another process writes the file, and ends some milliseconds after a run; or it is killed."""
    log = folder / "logs" / "debug-internal.log"
    for _ in range(100):
        if log.is_file() and "stream: all finished" in log.read_text():
            return
        time.sleep(0.05)


def read_wandb(run: Path) -> Held:
    losses, images = [], []
    for record in wandb_records(run):
        if record.WhichOneof("record_type") == "history":
            items = {
                item.nested_key[0]: json.loads(item.value_json)  # of an image: one of its fields
                for item in record.history.item
            }
            if "loss" in items:
                losses.append((items["_step"], items["loss"]))
            if IMAGE in items:
                images.append(items["_step"])
    return losses, images


def read_csv(run: Path) -> Held:
    with open(run / "log.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return [(int(row["step"]), float(row["loss"])) for row in rows], []


READERS = {
    "tensorboard": read_tensorboard,
    "mlflow": read_mlflow,
    "wandb": read_wandb,
    "csv": read_csv,
}
