"""`sri import` as a user meets it: a run that every verb takes, or two lines that say why not."""

from __future__ import annotations

import argparse
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from click.testing import CliRunner, Result

from sri_cli.cli.main import cli
from tests.official_files import SIZES, official_content, official_tensors, write_official

SMALL = (*SIZES["sri"], "train.batch=4", "train.precision=fp32")
RUN = Path("runs/sri-mog-shapestacks-imported")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def sri(*args: str) -> Result:
    return CliRunner().invoke(cli, list(args))


def refusal(*args: str) -> tuple[str, str]:
    """The two lines of a refused import that left nothing behind."""
    shown = sri("import", *args)
    assert shown.exit_code == 2, shown.output
    assert not Path("runs").exists()
    first, hint = shown.stderr.splitlines()
    assert first.startswith("Error: ")
    return first, hint


def test_every_verb_takes_the_run(place: Path, write_small_data: Callable[..., Path]) -> None:
    write_official(place / "official.pth", "sri")
    data = str(write_small_data(place / "mine.h5"))
    shown = sri("import", "official.pth", *SMALL)
    assert shown.exit_code == 0, shown.output
    assert shown.stdout.splitlines() == [
        f"sri, 338,130 parameters, step 7: {RUN}/checkpoints/step-000000007",
        f"next: sri sample --run {RUN}",
        f"train further: sri train --recipe sri-mog --run {RUN} {' '.join(SMALL)}",
    ]
    assert "sri-mog" in shown.stderr and "144 moments" in shown.stderr

    drawn = sri("sample", "--num", "2", "--slots", "6")
    assert drawn.exit_code == 0, drawn.output
    assert "step 7, shapestacks, imported weights" in drawn.stdout
    for verb in (
        ("order", "--num", "2"),
        ("figure", "reconstructions", "--num", "2", "--data", data),
        ("eval", "--num", "2", "--metrics", "ari,elbo", "--data", data),
    ):
        assert sri(*verb).exit_code == 0, verb


def test_training_goes_on_from_it(place: Path, write_small_data: Callable[..., Path]) -> None:
    write_official(place / "official.pth", "sri")
    data = str(write_small_data(place / "mine.h5"))
    assert sri("import", "official.pth", *SMALL).exit_code == 0
    words = ("train", "--recipe", "sri-mog", "--run", str(RUN), "--data", data, *SMALL)
    trained = sri(*words, "--steps", "9", "--json")
    assert trained.exit_code == 0, trained.output
    result = json.loads(trained.stdout)
    assert (result["resumed_from"], result["step"]) == (7, 9)
    assert result["record"]["skipped"] == 0
    meta = json.loads((RUN / "checkpoints/step-000000009/meta.json").read_text())
    assert meta["extra"]["source"]["caption"] == "mine, simulated, from imported weights"
    assert meta["extra"]["imported"]["file"] == "official.pth"
    # From here on it is a run like any other: its data may not change any more.
    other = str(write_small_data(place / "other.h5", images=20))
    changed = sri(*words[: -len(SMALL)][:-1], other, *SMALL, "--steps", "10")
    assert changed.exit_code == 2 and "data file" in changed.stderr
    assert sri(*words, "--steps", "10").exit_code == 0


def test_recipe_of_the_run(place: Path) -> None:
    write_official(place / "official.pth", "sri")
    words = ("--recipe", "sri-g", "--data", "objects-room", "--run", "here/x")
    shown = sri("import", "official.pth", *words, *SMALL, "--json")
    result = json.loads(shown.stdout)
    assert (result["run"], result["recipe"], result["step"]) == ("here/x", "sri-g", 7)
    recipe = yaml.safe_load(Path("here/x/recipe.yaml").read_text())
    assert recipe["data"] == "objects-room" and recipe["model"]["slot_size"] == 16


class Bomb:
    """Unpickling it would write a file."""

    def __reduce__(self) -> Any:
        return os.system, ("touch marker",)


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (Bomb(), "system"),
        (official_content("sri") | {"args": Bomb()}, "system"),
        (official_content("sri") | {"args": argparse.Namespace(slots=9)}, "argparse.Namespace"),
        (pickle.dumps(Bomb(), 2), ""),
        (pickle.dumps(Bomb(), 4), ""),
    ],
)
def test_code_in_a_file_is_named_and_never_run(place: Path, content: Any, name: str) -> None:
    if isinstance(content, bytes):
        (place / "bomb.pth").write_bytes(content)
    else:
        torch.save(content, place / "bomb.pth")
    first, _ = refusal("bomb.pth", *SMALL)
    assert name in first and "bomb.pth" in first
    assert not Path("marker").exists()


@pytest.mark.parametrize("how", ["cut", "flipped", "empty", "gone"])
def test_damaged_files(place: Path, damage: Callable[[Path, str], None], how: str) -> None:
    file = write_official(place / "official.pth", "sri")
    if how == "flipped":  # the listing at the end of the file
        data = bytearray(file.read_bytes())
        data[-200:] = bytes(200)
        file.write_bytes(data)
    else:
        damage(file, how)
    first, _ = refusal("official.pth", *SMALL)
    assert "official.pth" in first


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "other.pth"),
        ({"weights": 3, "epoch": 4}, "epoch, weights"),
        ({"model": {}}, "model"),
        (torch.zeros(3), "other.pth"),
        ({"conv1.weight": torch.zeros(3)}, "conv1.weight"),
        ({"model": {"encoder.down.0.0.weight": torch.zeros(3).to_sparse()}}, "model"),
    ],
)
def test_files_of_something_else(place: Path, content: Any, message: str) -> None:
    torch.save(content, place / "other.pth")
    assert message in refusal("other.pth")[0]


def test_all_faults_at_once(place: Path) -> None:
    tensors = official_tensors("sri")
    del tensors["prior_lstm.mu.bias"], tensors["decoder.13.weight"]
    tensors["posterior_lstm.sp.bias"] = torch.zeros(17)
    tensors["scene_encoder.mu_s.bias"][3] = torch.nan
    tensors |= {f"genesisv2.extra.{i}.weight": torch.zeros(1) for i in range(12)}
    write_official(place / "official.pth", "sri", model_state_dict=tensors)
    first, _ = refusal("official.pth", *SMALL)
    assert "2 missing: " in first and "prior_lstm.mu.bias" in first
    assert "decoder.13.weight" in first
    assert "1 of another shape: posterior_lstm.sp.bias [17]" in first and "[16]" in first
    assert "1 not finite: scene_encoder.mu_s.bias" in first
    assert "12 unexpected: genesisv2.extra.0.weight" in first and "2 more" in first


def test_unexpected_tensors_can_be_left_out(place: Path) -> None:
    tensors = official_tensors("sri")
    grids = {"decoder.0.g_1": torch.zeros(1, 1, 4, 4), "decoder.0.g_2": torch.zeros(1, 1, 4, 4)}
    stranger = {"genesisv2.prior_lstm.weight_ih_l0": torch.zeros(4, 4)}
    write_official(place / "official.pth", "sri", model_state_dict=tensors | grids | stranger)
    first, hint = refusal("official.pth", *SMALL)
    assert "1 unexpected: genesisv2.prior_lstm.weight_ih_l0" in first
    assert "--ignore-unexpected" in hint
    shown = sri("import", "official.pth", "--ignore-unexpected", *SMALL)
    assert shown.exit_code == 0, shown.output
    assert "genesisv2.prior_lstm.weight_ih_l0" in shown.stderr
    assert "144 moments" in shown.stderr


def test_misshapen_tensors_are_listed(place: Path) -> None:
    write_official(place / "official.pth", "genesis-v2")
    first, hint = refusal("official.pth", "--recipe", "genesis-v2-g")
    assert "65 of another shape: encoder.down.0.0.weight [16, 3, 3, 3]" in first
    assert "55 more" in first and "KEY=VALUE" in hint


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--recipe", "genesis"), "genesis"),
        (("--recipe", "nonsense"), "nonsense"),
        (("--data", "nonsense"), "nonsense"),
        (("--data", "nothing.h5"), "nothing.h5"),
        (("model.slot_sizes=3",), "did you mean model.slot_size"),
        (("--run", "pretrained"), "pretrained"),
    ],
)
def test_bad_words(place: Path, words: tuple[str, ...], message: str) -> None:
    write_official(place / "official.pth", "sri")
    assert message in refusal("official.pth", *words)[0]


def test_a_run_is_never_overwritten(place: Path) -> None:
    write_official(place / "official.pth", "sri")
    assert sri("import", "official.pth", *SMALL).exit_code == 0
    before = sorted(Path("runs").rglob("*"))
    again = sri("import", "official.pth", *SMALL)
    assert again.exit_code == 2 and str(RUN) in again.stderr
    assert sorted(Path("runs").rglob("*")) == before


def test_a_full_disk_leaves_nothing(place: Path, largest_file: Callable[[int], Any]) -> None:
    write_official(place / "official.pth", "sri")
    with largest_file(100_000):
        shown = sri("import", "official.pth", *SMALL)
    assert shown.exit_code == 1 and "could not write" in shown.stderr
    assert list(Path("runs").iterdir()) == []
