"""The Python API gives the numbers of the verbs, quietly, for every system."""

from __future__ import annotations

import json
import os
import re
import shlex
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sri_cli
from sri_cli.api import as_images
from sri_cli.device import choose_device
from sri_cli.errors import SriError
from sri_cli.generation.traverse import random_walk
from sri_cli.plotting import edits
from sri_cli.plotting.video import walk_frames
from sri_cli.run import Workspace
from tests import small_cli
from tests.damage import damage
from tests.small_cli import ROOT, finish, start
from tests.small_data import write_run, write_small_data

README = ROOT / "sri_cli" / "README.md"
NOTEBOOK = README.with_name("example.ipynb")
OTHER_CHUNKS = 5  # levels: of bf16, as in generation/test_edit.py
pytestmark = pytest.mark.usefixtures("workspace", "here")
sri = partial(small_cli.sri, code=0)


@pytest.fixture
def model() -> sri_cli.Model:
    return sri_cli.load("tiny")


def test_importing_loads_no_torch() -> None:
    code = "import sys, sri_cli; print(dir(sri_cli)); sys.exit('torch' in sys.modules)"
    assert "load" in finish(start(code=code))[0]
    assert set(sri_cli.__all__) <= set(dir(sri_cli))
    with pytest.raises(AttributeError):
        sri_cli.lode  # noqa: B018


def test_samples_are_those_of_sri_sample(model: sri_cli.Model) -> None:
    words = "--num 5 --slots 4 --temp 0.7 --seed 3 --format npz --masks --latents --out samples"
    sri("sample", *words.split())
    drawn = model.sample(5, slots=4, temperature=0.7, seed=3)
    with np.load("samples/samples.npz") as written:
        np.testing.assert_array_equal(drawn.pixels, written["images"])
        levels = (drawn.masks.numpy() * 255).round()
        np.testing.assert_array_equal(levels, written["masks"])
        np.testing.assert_array_equal(drawn.slots, written["slots"])
    assert drawn.image.dtype == torch.float32
    blend = (drawn.masks[:, :, None] * drawn.rgb).sum(dim=1)
    torch.testing.assert_close(blend, drawn.image)


@pytest.mark.parametrize("action", ["remove", "repeat", "exchange", "reimagine"])
def test_edits_are_those_of_sri_edit(
    model: sri_cli.Model, action: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[np.ndarray] = []
    decode = edits.decode_edits

    def decode_and_keep(*arguments: Any) -> Any:
        result = decode(*arguments)
        drawn.append(result[0])
        return result

    monkeypatch.setattr(edits, "decode_edits", decode_and_keep)
    words = ["--variants", "2"] if action == "reimagine" else []
    sri("edit", action, "--slot", "2", "--num", "2", "--seed", "4", "--temp", "0.8", *words)
    scenes = model.sample(2, temperature=0.8, seed=4)
    edited = model.edit(scenes, action, 1, variants=2, temperature=0.8, seed=4)
    expected = drawn[0][2:].astype(int)  # after the scenes themselves
    if action == "repeat":  # the others have the slot of the first
        others = model.edit(scenes[1], "exchange", [1], other=scenes[0])
        edited_pixels = np.concatenate([edited[0].pixels, others.pixels])
        assert edited.masks.shape[1] == 4
    else:
        edited_pixels = edited.pixels
    assert np.abs(edited_pixels - expected).max() <= OTHER_CHUNKS
    assert np.abs(edited_pixels - expected).mean() < 0.5


@pytest.mark.parametrize("slot", [None, 1])
def test_walks_are_those_of_sri_walk(model: sri_cli.Model, slot: int | None) -> None:
    walk = model.walk(2, frames=3, slot=slot, temperature=0.7, seed=5)
    film = walk_frames(model.run, random_walk(model.module, 5, 2, 3, 3, slot), 0.7, False)[0]
    np.testing.assert_array_equal(walk.pixels, np.reshape(film, walk.pixels.shape))
    first = model.sample(2, temperature=0.7, seed=5)
    assert np.abs(walk[:2].pixels.astype(int) - first.pixels).max() <= OTHER_CHUNKS
    assert len(walk[1::2]) == 3
    path = model.walk(2, frames=4, between=(5, 6), temperature=0.7).latent
    torch.testing.assert_close(path[:2], first.latent)


def test_an_image_becomes_slots_and_an_image_again(model: sri_cli.Model) -> None:
    images = sri_cli.open_data("demo-towers")["test"].images[:3]
    made = model.reconstruct(images, seed=1)
    for same in (torch.from_numpy(np.array(images)).permute(0, 3, 1, 2), images / np.float32(255)):
        encoded = model.encode(torch.as_tensor(same), seed=1)
        assert torch.equal(encoded.slots, made.slots)
    assert made.order.sort(dim=1).values.tolist() == [[0, 1, 2]] * 3
    decoded = model.decode(encoded)
    assert np.abs(decoded.pixels.astype(int) - made.pixels).max() <= OTHER_CHUNKS
    assert torch.equal(decoded.slots, made.slots) and decoded.latent is not None
    alone = model.encode(images[2], seed=1, indices=[2])
    torch.testing.assert_close(alone.slots, made[2].slots, rtol=0.1, atol=0.05)  # bf16


@pytest.mark.parametrize("system", ["genesis-v2", "genesis", "emorl", "slot-vae"])
def test_every_system(system: str, workspace: Workspace) -> None:
    write_run(workspace.runs_root / system, system)
    model = sri_cli.load(system)
    assert not model.learns_order and sri_cli.load("tiny").learns_order
    scenes = model.sample(2, slots=4)
    images = model.reconstruct(scenes.image)
    assert (scenes.latent is None) == (images.latent is None) == (not model.has_scene)
    assert images.order is None and images.attention is not None
    for action, shape in {
        "remove": (2, 3),
        "repeat": (2, 5),
        "exchange": (2, 4),
        "reimagine": (4, 4),
    }.items():
        edited = model.edit(scenes, action, 1, variants=2)
        assert edited.masks.shape[:2] == shape and len(edited.keys) == shape[0]
        assert (edited.masks.sum(dim=1) - 1).abs().max() < 0.01
    assert len(model.walk(1, frames=2)) == 2
    if not model.has_scene:
        with pytest.raises(SriError):
            model.walk(between=(0, 1))


WRONG = [
    lambda m, s: m.sample(0),
    lambda m, s: m.sample(1, temperature=0),
    lambda m, s: m.sample(1, seed=-1),
    lambda m, s: m.encode(torch.rand(1, 3, 64, 64)),
    lambda m, s: m.encode(torch.rand(1, 3, 32, 32) * 255),
    lambda m, s: m.encode(np.ones((1, 32, 32, 3), np.uint16)),
    lambda m, s: m.encode(torch.rand(2, 3, 32, 32), indices=[1]),
    lambda m, s: m.encode(torch.rand(1, 3, 32, 32), indices=[-1]),
    lambda m, s: m.encode(torch.rand(1, 3, 32, 32), seed=-1),
    lambda m, s: m.reconstruct(torch.rand(1, 3, 32, 32), seed=-1),
    lambda m, s: m.decode(torch.zeros(2, 3, 5)),
    lambda m, s: m.edit(s, "remove", 3),
    lambda m, s: m.edit(s[[]], "remove", 0),
    lambda m, s: m.edit(s, "remove", [0, 1, 2]),
    lambda m, s: m.edit(s, "erase", 1),
    lambda m, s: m.edit(s, "exchange", 1),
    lambda m, s: m.edit(s, "exchange", 1, other=s[:2]),
    lambda m, s: m.edit(s, "reimagine", [0, 1]),
    lambda m, s: s[[]].show(),
    lambda m, s: m.walk(slot=3),
    lambda m, s: m.walk(slot=1, between=(0, 1)),
    lambda m, s: m.walk(between=(2, 2)),
    lambda m, s: m.walk(between=(-1, 0)),
    lambda m, s: m.walk(frames=1),
    lambda m, s: sri_cli.load("tinny"),
    lambda m, s: sri_cli.load("nowhere/run"),
    lambda m, s: sri_cli.load("tiny", device="gpu"),
    lambda m, s: sri_cli.open_data("towers"),
    lambda m, s: sri_cli.open_data("demo-towers")["tests"],
    lambda m, s: sri_cli.evaluate(m, ["fidd"]),
    lambda m, s: sri_cli.evaluate(m, ["elbo"], num=0),
    lambda m, s: sri_cli.evaluate(m, ["fid"], num=-1),
    lambda m, s: sri_cli.evaluate(m, ["elbo"], seed=-1),
    lambda m, s: sri_cli.train("sri-mogg"),
    lambda m, s: sri_cli.train("sri-g", {"size": "tiny", "train.rate": 1}, data="demo-towers"),
]


def test_wrong_input_is_an_error_with_a_fix(model: sri_cli.Model) -> None:
    scenes = model.sample(3)
    for number, call in enumerate(WRONG):
        with pytest.raises(SriError) as caught:
            call(model, scenes)
            pytest.fail(f"WRONG[{number}] is no error")
        assert caught.value.hint in caught.value.__notes__  # in tracebacks, too


def test_scenes_show_themselves(model: sri_cli.Model) -> None:
    scenes = model.sample(11)
    assert scenes._repr_png_().startswith(b"\x89PNG") and scenes[[]]._repr_png_() is None
    wide, high = scenes.overview().size
    assert wide > high > wide / 3  # two rows of eight, each above its masks
    layers = scenes.overview(layers=True).size
    assert layers[0] < layers[1]  # 8 rows of an image, its masks and 3 slots
    assert scenes[[2, 5]].keys == ("scene 2", "scene 5")
    assert torch.equal(scenes[-1].slots[0], scenes.slots[10])
    scores = torch.arange(11)
    for index, rows in [
        (scores.topk(2).indices, [10, 9]),
        (scores > 8, [9, 10]),
        (scores.argmax(), [10]),
        (np.int64(3), [3]),
        (np.array([3, 1]), [3, 1]),
        ([n == 4 for n in range(11)], [4]),
        ([], []),
        (slice(4, None, 3), [4, 7, 10]),
    ]:
        some = scenes[index]
        assert some.keys == tuple(f"scene {row}" for row in rows)
        assert torch.equal(some.image, scenes.image[rows])
    with pytest.raises(IndexError):
        scenes[11]
    assert len(list(scenes)) == 11  # iteration ends with an IndexError


def test_latents_of_dynamic_slots_are_refused(workspace: Workspace) -> None:
    model = sri_cli.load("tiny", dynamic_slots=True)
    scenes = model.sample(2)
    seen = model.reconstruct(scenes.image)
    for refused in (
        lambda: model.encode(scenes.image),
        lambda: model.edit(seen, "remove", 0),
        lambda: model.edit(scenes, "exchange", 0, other=seen),
        lambda: model.decode(seen),
    ):
        with pytest.raises(SriError, match="empty"):
            refused()
    assert model.edit(scenes, "remove", 0).slots.shape[1] == scenes.slots.shape[1] - 1


def test_scenes_without_a_scene_latent_are_not_reimagined(model: sri_cli.Model) -> None:
    scenes = model.decode(model.sample(2).slots)
    assert model.edit(scenes, "remove", np.int64(1)).slots.shape[1] == 2
    with pytest.raises(SriError, match="no scene latent"):
        model.edit(scenes, "reimagine", 1)


def test_images_may_leave_their_range_by_rounding() -> None:
    beyond = torch.full((1, 3, 32, 32), 1 + 1e-6)
    assert as_images(beyond, 32).max() == 1 and as_images(1 - beyond, 32).min() == 0


def test_a_device_is_a_name_or_one_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sri_cli.load("tiny", device=torch.device("cpu")).device.type == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for device in ("cuda:2", torch.device("cuda", 2)):
        with pytest.raises(SriError):
            sri_cli.load("tiny", device=device)
    assert choose_device("cuda:1") == torch.device("cuda", 1)


def test_evaluate_finds_what_is_missing_before_it_measures(model: sri_cli.Model) -> None:
    with pytest.raises(SriError):
        sri_cli.evaluate(model, ["elbo", "fid"], num=2, inception_weights="none.pth")
    assert not (model.run.run_dir / "metrics.jsonl").exists()
    assert "negative_elbo" in sri_cli.evaluate(model, "elbo", num=2)


def test_evaluate_returns_what_it_records(model: sri_cli.Model, capfd: Any) -> None:
    scores = sri_cli.evaluate(model, ["ari", "order"], num=4)
    lines = (model.run.run_dir / "metrics.jsonl").read_text().splitlines()
    assert list(scores.values()) == [json.loads(line) for line in lines]
    assert scores["ari_fg"]["low"] <= scores["ari_fg"]["value"] <= scores["ari_fg"]["high"]
    assert capfd.readouterr() == ("", "")
    sri_cli.evaluate("tiny", ["ari"], num=4, progress=True)
    assert capfd.readouterr().err != ""


def test_train_is_sri_train_in_this_process(capfd: Any) -> None:
    records: list[dict[str, Any]] = []
    overrides = {"size": "tiny", "train.batch": 4, "model.slots": np.int64(2), "train.log_every": 1}
    overrides |= {"train": {"steps": 2, "lr": 1e-5}, "train.preview_every": 2}
    with pytest.warns(UserWarning, match="model.std"):  # settings of another data set
        model = sri_cli.train(
            "sri-g", overrides, data="demo-towers", run="mine", on_record=records.append
        )
    assert (model.step, model.num_slots, model.recipe.train.lr) == (2, 2, 1e-5)
    assert model.recipe.train.checkpoint_every == 1000  # of size=tiny
    assert [record["step"] for record in records] == [1, 2]
    assert "val/negative_elbo" in records[-1] and any(Path("runs/mine/previews").iterdir())
    assert capfd.readouterr() == ("", "")
    command = Path("runs/mine/command.txt").read_text().partition("  #")[0]
    assert "step 2: " in small_cli.sri(*shlex.split(command)[1:], code=0).stdout
    with open("runs/mine/log.jsonl", "a") as log:
        log.write('{"torn')
    capfd.readouterr()
    with pytest.warns(UserWarning, match="log.jsonl"):
        sri_cli.train("sri-g", overrides, data="demo-towers", run="mine")
    assert capfd.readouterr() == ("", "")


def test_a_broken_checkpoint_is_a_warning(model: sri_cli.Model) -> None:
    write_run(model.run.run_dir, step=20)
    damage(model.run.run_dir / "checkpoints" / "step-000000020" / "model.safetensors", "cut")
    with pytest.warns(UserWarning):
        assert sri_cli.load("tiny").step == 10


def test_roots_follow_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    monkeypatch.setenv("SRI_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("SRI_DATA", str(tmp_path / "data"))
    assert sri_cli.load("tiny").run.open_data().name == "demo-towers"
    monkeypatch.setenv("SRI_RUNS", "nowhere")
    assert len(sri_cli.open_data("demo-towers")["train"]) == 24
    assert sri_cli.load("tiny", runs_root=tmp_path / "runs").step == 10
    with pytest.raises(SriError):
        sri_cli.load("tiny")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SRI_DATA", "~/data")
    assert sri_cli.load("tiny", runs_root="~/runs").run.open_data().name == "demo-towers"


@pytest.mark.filterwarnings("ignore:sri-g has no settings")
def test_the_examples_of_the_readme_run(workspace: Workspace) -> None:
    write_small_data(workspace.data_path("demo-towers", 64), size=64)
    workspace.data_path("demo-towers", 32).unlink()
    # The run of the same recipe and data, as the README at the top trains it.
    smaller = {"size": "small", "train.batch": 4, "train.steps": 1}
    sri_cli.train("sri-g", smaller, data="demo-towers")
    blocks = re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    assert blocks
    namespace: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, str(README), "exec"), namespace)
    assert (workspace.runs_root / "four-steps").is_dir()


@pytest.mark.slow
def test_the_notebook_runs_as_it_is_stored() -> None:
    import nbformat
    from nbclient import NotebookClient

    stored = nbformat.read(NOTEBOOK, as_version=4)
    again = nbformat.read(NOTEBOOK, as_version=4)
    # Where the machine is busy, what a cell prints comes in several pieces.
    client = NotebookClient(again, timeout=300, kernel_name="python3", coalesce_streams=True)
    client.execute(env={**os.environ, "PYTHONPATH": str(ROOT)})
    for before, after in zip(stored.cells, again.cells, strict=True):
        shown = [
            [sorted(output.get("data", [output.output_type])) for output in cell.get("outputs", [])]
            for cell in (before, after)
        ]
        assert shown[0] == shown[1], before.source
        assert before.cell_type == "markdown" or shown[0]
