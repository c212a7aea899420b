"""Every system with the same verbs: it trains, samples, reconstructs, is measured."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

from sri_cli.config.load import data_sets
from sri_cli.config.registry import recipe_names
from sri_cli.run import prepared_as
from tests import small_cli
from tests.small_data import save_image, write_small_data
from tests.small_models import one_of_each_system, small_encoder

PRODUCT = [(name, data) for name in recipe_names() for data in data_sets(name)]
SMALL = ("size=tiny", "model.slots=3", "train.batch=2", "train.log_every=2", "train.precision=fp32")


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos; `through_every_verb` prepares a file of a data set when it needs it."""
    folder = tmp_path_factory.mktemp("zoo")
    for number in range(2):
        save_image(folder / "photos" / f"{number}.png", np.full((40, 50, 3), 100 * number))
    return folder


def sri(folder: Path, *words: str) -> Result:
    roots = ["--data-root", str(folder / "data"), "--runs-root", str(folder / "runs")]
    return small_cli.sri(*roots, *words, code=0)


def through_every_verb(folder: Path, name: str, data: str) -> None:
    """Six steps, then each verb that uses a run."""
    run = f"{name}-{data}"
    path = folder / "data" / f"{data}-32.h5"
    # Every log record is of all training scenes: scenes differ by more than six steps win.
    if data == "clevrtex":  # nothing simulates it
        write_small_data(path, images=4)
    elif not path.exists():
        numbers = ["--scenes", "2", "--test-scenes", "4", "--size", "32", "--workers", "1"]
        numbers += ["--views", "1"] * (data == "shapestacks")
        sri(folder, "prepare", *prepared_as(data).split(), *numbers)
    words = ["train", "--recipe", name, "--data", data, "--run", run, *SMALL]
    words += small_encoder(name)
    sri(folder, *words, "--steps", "6")
    log = (folder / "runs" / run / "log.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in log]
    errors = [
        sum(value for key, value in record.items() if key.startswith("error/"))
        for record in records
        if "nll" in record
    ]
    assert errors[-1] < errors[0], errors
    assert all(record.get("skipped", 0) == 0 for record in records)
    sri(folder, "sample", "--run", run, "--num", "2", "--slots", "9")
    sri(folder, "figure", "reconstructions", "--run", run, "--num", "2")
    words = ["segment", "--run", run, "--images", str(folder / "photos")]
    sri(folder, *words, "--out", str(folder / "segments" / run))
    measured = sri(folder, "eval", "--run", run, "--metrics", "ari,elbo", "--num", "4", "--json")
    found = json.loads(measured.stdout)
    assert "nan" not in json.dumps(found).lower(), found


@pytest.mark.parametrize("name", one_of_each_system())
def test_every_system_goes_through_every_verb(space: Path, name: str) -> None:
    through_every_verb(space, name, data_sets(name)[0])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "data"), [pair for pair in PRODUCT if pair[1] != data_sets(pair[0])[0]]
)
def test_on_every_data_set(space: Path, name: str, data: str) -> None:
    through_every_verb(space, name, data)
