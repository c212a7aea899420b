"""Sampling: image i depends on (seed, i) alone; the folder of samples is complete or absent."""

from __future__ import annotations

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from sri_cli import checkpoint as checkpoints
from sri_cli.errors import SriFailure
from sri_cli.generation.sample import (
    checked,
    in_chunks,
    layers_of,
    quantise,
    sample_noise,
    sample_scenes,
)
from sri_cli.generation.trained_run import TrainedRun
from sri_cli.metrics.images import open_folder
from sri_cli.models.base import Scene
from sri_cli.models.build import build_model
from sri_cli.plotting.samples import write_samples
from sri_cli.rng import NoiseSpec, indexed_noise
from sri_cli.run import Workspace
from tests.damage import largest_file
from tests.small_cli import finish, sri, start, wait_until

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    built = build_model("sri", image_size=32, slots=3, slot_size=16, scene_size=16)
    return built.eval()


def images(model, **request) -> np.ndarray:
    scenes = sample_scenes(model, **({"num": 7, "slots": 3, "seed": 5} | request))
    return torch.cat([scene.image for scene in scenes]).numpy()


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("bf16", 2e-2)])
def test_same_image_at_any_chunk_size(model, precision, tolerance) -> None:
    whole = images(model, chunk=7, precision=precision)
    for chunk in (1, 2, 5):
        np.testing.assert_allclose(
            images(model, chunk=chunk, precision=precision), whole, atol=tolerance
        )
    np.testing.assert_allclose(images(model, num=9, precision=precision)[:7], whole, atol=tolerance)
    assert np.abs(whole[0] - whole[1]).max() > 10 * 1e-5  # the images do differ


def test_noise_streams_are_independent() -> None:
    specs = {"a": NoiseSpec((500,)), "b": NoiseSpec((500,)), "u": NoiseSpec((500,), "uniform")}
    noise = indexed_noise(specs, 0, [0, 1], "test")
    rows = torch.cat([noise["a"], noise["b"], noise["u"]])
    correlation = torch.corrcoef(rows) - torch.eye(6)
    assert correlation.abs().max() < 0.2
    assert noise["u"].min() >= 0 and noise["u"].max() < 1
    assert not torch.equal(indexed_noise(specs, 0, [0], "other")["a"], noise["a"][:1])


def test_chunks_shrink_until_they_fit() -> None:
    seen = []

    def compute(start: int, count: int) -> list[int]:
        if count > 3:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        seen.append(count)
        return list(range(start, start + count))

    assert sum(in_chunks(compute, 10, 8, CPU), []) == list(range(10))
    assert max(seen) <= 3


@pytest.mark.parametrize(
    ("error", "raised", "words"),
    [(MemoryError(), SriFailure, "memory"), (RuntimeError("a bug"), RuntimeError, "a bug")],
)
def test_an_error_of_a_single_image_is_not_hidden(error, raised, words) -> None:
    """It comes after larger chunks have failed as well."""
    tried = []

    def compute(start: int, count: int) -> None:
        tried.append(count)
        raise error

    with pytest.raises(raised, match=words):
        list(in_chunks(compute, 4, 4, CPU))
    assert tried == [4, 2, 1]


def test_quantisation_floors() -> None:
    x = torch.tensor([0.0, 0.999 / 255, 1 / 255 + 1e-6, 254.9 / 255, 1.0]).view(1, 1, 5)
    assert quantise(x.expand(3, 1, 5))[0, :, 0].tolist() == [0, 0, 1, 254, 255]


# The folder of `sri sample`


def read(folder: Path, name: str = "images") -> np.ndarray:
    return np.stack([np.asarray(Image.open(p)) for p in sorted((folder / name).glob("*.png"))])


def test_png_folder(trained: TrainedRun, tmp_path: Path) -> None:
    folder = write_samples(trained, tmp_path / "out", num=5, slots=2, masks=True)
    assert read(folder).shape == (5, 32, 32, 3)
    masks = read(folder, "masks").reshape(5, 2, 32, 32).astype(int)
    names = sorted(p.name for p in folder.glob("*/*.png"))
    first = {"000001.png", "000001-slot-01.png"}
    assert first <= {*names} and not any(name.startswith("000000") for name in names)
    assert np.abs(masks.sum(axis=1) - 255).max() <= 1
    assert sorted(p.name for p in folder.glob("*.*")) == [
        "grid-masks.png",
        "grid.png",
        "sample.json",
    ]
    settings = json.loads((folder / "sample.json").read_text())
    assert (settings["slots"], settings["num"], settings["trained_on"]) == (
        2,
        5,
        "demo-towers, simulated",
    )


def blend(layers: np.ndarray) -> np.ndarray:
    """RGBA layers [K,H,W,4] over one another, the first at the bottom."""
    image = Image.new("RGBA", layers.shape[2:0:-1])
    for layer in layers:
        image.alpha_composite(Image.fromarray(layer))
    return np.asarray(image)


def test_all_formats_hold_the_same_scenes(trained: TrainedRun, tmp_path: Path) -> None:
    settings = {"num": 11, "seed": 3, "slots": 4}
    plain = write_samples(trained, tmp_path / "plain", **settings)
    png, npz, h5 = (
        write_samples(
            trained, tmp_path / f, file_format=f, masks=True, layers=True, latents=True, **settings
        )
        for f in ("png", "npz", "h5")
    )
    assert (png / "grid.png").read_bytes() == (plain / "grid.png").read_bytes()
    assert {path.name for path in npz.iterdir()} == {
        *("grid-masks.png", "grid.png", "sample.json", "samples.npz")
    }
    with np.load(npz / "samples.npz") as archive, h5py.File(h5 / "samples.h5") as file:
        arrays, others = dict(archive), {name: file[name][()] for name in file}
    with np.load(png / "latents.npz") as latents:
        files = {"images": read(png), **latents}
    files["masks"] = read(png, "masks").reshape(11, 4, 32, 32)
    files["layers"] = read(png, "layers").reshape(11, 4, 32, 32, 4)
    assert arrays.keys() == others.keys() == files.keys()
    for name, array in arrays.items():
        assert np.array_equal(array, others[name]) and np.array_equal(array, files[name]), name
    assert np.array_equal(read(plain), arrays["images"])
    assert arrays["slots"].shape == (11, 4, trained.model.slot_size)
    blended = np.stack([blend(layers) for layers in arrays["layers"]])
    assert blended[..., 3].min() == 255
    assert np.abs(blended[..., :3].astype(int) - arrays["images"]).max() <= 3
    with torch.no_grad():
        decoded = quantise(trained.model.decode(torch.from_numpy(arrays["slots"])).image)
    assert np.abs(decoded.astype(int) - arrays["images"]).max() <= 6  # bf16 in sampling
    noise = sample_noise(trained.model, 3, 0, 11, 4)
    assert np.array_equal(arrays["scene_latents"], noise["scene"].numpy())


def test_layers_of_hard_masks_hide_those_below() -> None:
    rgb = torch.rand(2, 5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    owner = torch.arange(64).view(8, 8) % 5
    log_masks = torch.nn.functional.one_hot(owner, 5).movedim(-1, 0)[None, :, None] * 1e10 - 1e10
    scene = Scene(rgb, log_masks.float().expand(2, -1, -1, -1, -1))
    layers = layers_of(scene.rgb, scene.masks[:, :, 0])
    blended = np.stack([blend(own) for own in layers])
    assert np.abs(blended[..., :3].astype(int) - quantise(scene.image)).max() <= 1


def test_default_folder_is_the_runs_and_repeats(trained: TrainedRun) -> None:
    folder = trained.run_dir / "samples"
    old = folder / "step-000000010_slots-3_temp-1_seed-0_num-2_png"  # as version 0.1 named it
    old.mkdir(parents=True)
    (old / "sample.json").write_text('{"num": 2, "slots": 3, "temperature": 1.0, "seed": 0}')
    first = write_samples(trained, num=2)
    before = read(first)
    assert first == folder / "001"
    assert write_samples(trained, num=2) == first
    assert np.array_equal(read(first), before)
    other = write_samples(trained, num=3)
    assert other == folder / "002" and (folder / "latest").readlink() == Path("002")
    assert np.abs(read(other)[:2].astype(int) - before).max() <= 6
    assert open_folder(folder / "latest").count == 3
    assert sorted(path.name for path in folder.iterdir()) == ["001", "002", "latest", old.name]


@pytest.mark.parametrize(
    "other",
    [{"slots": 2}, {"temperature": 0.7}, {"seed": 1}, {"masks": True}, {"file_format": "npz"}],
)
def test_other_settings_have_another_folder_with_all_of_them(trained: TrainedRun, other) -> None:
    first, second = write_samples(trained, num=1), write_samples(trained, num=1, **other)
    assert (first.name, second.name) == ("001", "002")
    record = json.loads((second / "sample.json").read_text())
    usual = {"num": 1, "slots": 3, "temperature": 1.0, "seed": 0, "format": "png", "masks": False}
    settings = usual | {k.removeprefix("file_"): v for k, v in other.items()}
    assert record.items() >= settings.items()
    assert record["step"] == 10 and record["sri"] and len(record["model"]) == 64


def test_other_weights_have_another_folder_and_a_moved_run_the_same(
    trained: TrainedRun, tmp_path: Path
) -> None:
    assert write_samples(trained, num=1).name == "001"
    moved = replace(trained, run_dir=trained.run_dir.rename(tmp_path / "moved"))
    assert write_samples(moved, num=1) == tmp_path / "moved" / "samples" / "001"
    with torch.no_grad():
        next(moved.model.parameters()).add_(1)
    assert write_samples(moved, num=1).name == "002"


@pytest.mark.parametrize("file_format", ["png", "npz", "h5"])
def test_full_disk_leaves_nothing(trained: TrainedRun, tmp_path: Path, file_format: str) -> None:
    with largest_file(1000), pytest.raises(SriFailure):
        write_samples(trained, tmp_path / "s" / "out", num=40, file_format=file_format)
    assert list((tmp_path / "s").iterdir()) == []


# The command --------------------------------------------------------------------------------


def test_sample_names_its_folder_and_the_data(workspace: Workspace, here: Path) -> None:
    result = sri("sample", "--slots", "5", "--temp", "0.7", "--num", "3", "--masks", code=0)
    assert "simulated" in result.stdout
    folder = Path(result.stdout.splitlines()[0].split(": ")[1])
    assert len(list((folder / "masks").iterdir())) == 3 * 5


def test_sample_into_the_empty_current_folder(
    workspace: Workspace, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "here").mkdir()
    monkeypatch.chdir(here / "here")
    roots = ["--runs-root", "../runs", "--data-root", "../data"]
    sri(*roots, "sample", "--num", "2", "--out", ".", code=0)
    assert sorted(os.listdir()) == ["grid.png", "images", "sample.json"]
    assert sorted(os.listdir(here)) == ["data", "here", "runs"]


def test_sigterm_while_sampling_leaves_nothing(workspace: Workspace, here: Path) -> None:
    before = sorted(here.rglob("*"))
    sampling = start("sample", "--num", "200000", "--out", "big")
    wait_until(lambda: list(here.glob(".big.*.tmp/images/*")), sampling)
    sampling.send_signal(signal.SIGTERM)
    printed = finish(sampling, 130)[1]
    assert "Error: " not in printed, printed
    assert sorted(here.rglob("*")) == before


# Scenes that are not finite -----------------------------------------------------------------


def test_scenes_that_are_not_finite_are_counted_and_refused(model) -> None:
    def draw(scenes) -> int:
        return sum(len(scene.rgb) for scene in checked(scenes))

    scenes = list(sample_scenes(model, num=7, slots=3, chunk=3))
    assert draw(scenes) == 7
    scenes[0].rgb[1, 2, 0, 5, 5] = torch.inf
    scenes[2].log_masks[0, 0] = torch.nan
    with pytest.raises(SriFailure, match="2 of 7"):
        draw(map(replace, scenes))  # without the images that were blended before


@pytest.mark.parametrize(
    "words",
    [
        "sample --num 3",
        "order --num 3",
        "eval --metrics order --num 4",
        "eval --metrics ari --num 4",
        "eval --metrics elbo --num 4",
        "eval --metrics stack-fd --num 4",
        "figure samples --num 2",
        "figure reconstructions --num 2",
        "walk --num 1 --frames 4 --out walk.gif",
        "edit repeat --slot 1 --num 2",
        "label-sacc --num 2 --no-browser --rater Ann",
    ],
)
def test_verbs_write_and_record_nothing_of_them(
    words: str, workspace: Workspace, here: Path
) -> None:
    saved = checkpoints.newest_good(workspace.runs_root / "tiny")
    weights = {name: value * 1e30 for name, value in saved.weights().items()}
    shutil.rmtree(saved.path)
    checkpoints.save(workspace.runs_root / "tiny", 10, weights, saved.recipe, {}, saved.extra)
    before = files_below(here)
    result = sri(*words.split(), "--run", "tiny", code=1)
    assert "not finite" in result.stderr and result.stdout == ""
    assert files_below(here) == before


def files_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and "fid" not in path.parts)
