"""Official checkpoints as runs: equal numbers, training state, files that are refused."""

from __future__ import annotations

import argparse
import json
import os
import pickle
import shlex
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from sri_cli import checkpoint as checkpoints
from sri_cli.config.load import load_recipe
from sri_cli.data.dataset import DataFile
from sri_cli.errors import SriError
from sri_cli.generation.trained_run import TrainedRun, open_run
from sri_cli.models.build import build_model
from sri_cli.models.official import TABLES, official_name, our_name
from sri_cli.run import Workspace
from sri_cli.training.importing import Imported, import_run, read_official, system_of
from sri_cli.training.initial_weights import begin_run
from sri_cli.training.trainer import new_step
from tests.damage import damage, largest_file
from tests.golden_numbers import Golden, formula
from tests.small_cli import sri, sri_json
from tests.small_data import write_small_data

FILES = {
    "sri": "sri_mog_tiny.npz",
    "genesis-v2": "genesis_v2_tiny.npz",
    "genesis": "genesis_tiny.npz",
    "emorl": "emorl_tiny.npz",
}
RECIPES = {"sri": "sri-mog", "genesis-v2": "genesis-v2-mog", "genesis": "genesis", "emorl": "emorl"}
RECIPES["slot-vae"] = "slot-vae"
# The sizes of the golden models. Of EMORL's weights none depends on the image size, and its 16 px
# are no size of a recipe.
SIZES: dict[str, tuple[str, ...]] = {
    "sri": ("model.image_size=32", "model.slots=4", "model.slot_size=16", "model.scene_size=32"),
    "genesis-v2": ("model.image_size=32", "model.slots=4", "model.slot_size=16"),
    "genesis": (
        *("model.image_size=32", "model.slots=4", "model.slot_size=16"),
        *("model.component_size=6", "model.component_channels=8"),
    ),
    "emorl": (
        *("model.image_size=32", "model.slots=3", "model.slot_size=16", "model.refinements=2"),
        "train.late_refinements=null",
        "train.late_refinements_from=null",
    ),
    "slot-vae": ("model.image_size=32", "model.slots=3", "model.slot_size=8", "model.scene_size=8"),
}
SMALL = (*SIZES["sri"], "train.batch=4", "train.precision=fp32")
RUN = Path("runs/sri-mog-shapestacks-imported")


def golden(system: str) -> Golden:
    return Golden(FILES[system], system)


def official_tensors(system: str) -> dict[str, torch.Tensor]:
    """The state dict: parameters by the golden formula, BatchNorm's buffers as after many steps."""
    if system == "slot-vae":
        return slot_vae_tensors()
    numbers = golden(system)
    scalars = numbers.json("kept_scalars")
    tensors = {}
    for name, shape in numbers.json("parameters"):
        tensors[name] = torch.tensor(scalars[name]) if name in scalars else formula(name, shape)
        if name.endswith("_norm.bias"):
            norm = name.removesuffix("bias")
            tensors[f"{norm}running_mean"] = formula(f"{norm}running_mean", shape)
            tensors[f"{norm}running_var"] = 1 + formula(f"{norm}running_var", shape).abs()
            tensors[f"{norm}num_batches_tracked"] = torch.tensor(2_000_000)
    return tensors


def slot_vae_tensors() -> dict[str, torch.Tensor]:
    """Of the sizes that a recipe can have; what the prior shares is in the file twice."""
    recipe = load_recipe("slot-vae", None, SIZES["slot-vae"])
    state = build_model(**recipe.model.model_dump()).state_dict()
    named = {official_name("slot-vae", ours): list(tensor.shape) for ours, tensor in state.items()}
    tensors = {name: formula(name, shape) for name, shape in named.items()}
    shared = {n.replace("_x.", "_g."): t for n, t in tensors.items() if n.startswith("p_z_given_x")}
    return tensors | shared | {"global_struct_draw.dec_step_0": torch.zeros(1, 16, 1, 1)}


def adam_state(system: str) -> dict[str, Any]:
    """Moments after 7 steps that show which parameter they belong to: i and i/2 all over."""
    tensors = official_tensors(system)
    shapes = {name: list(tensors[name].shape) for name in trained_names(system)}
    state = {
        i: {
            "step": torch.tensor(7.0),
            "exp_avg": torch.full(shape, float(i)) + formula(name, shape),
            "exp_avg_sq": torch.full(shape, i / 2),
        }
        for i, (name, shape) in enumerate(shapes.items())
    }
    return {"state": state, "param_groups": [{"lr": 1e-4, "params": list(range(len(shapes)))}]}


def trained_names(system: str) -> list[str]:
    """The official names of all parameters, in the official order."""
    if system != "slot-vae":
        return [name for name, _ in golden(system).json("parameters")]
    rest = ("p_z_given_g.", "global_struct_draw.dec_step_0", "p_z_given_x.slot_attention.slots_")
    return [name for name in official_tensors(system) if not name.startswith(rest)]


def official_content(system: str) -> dict[str, Any]:
    """The whole checkpoint; GENESIS' and SRI's keys, EMORL's model under its own."""
    tensors = official_tensors(system)
    if system == "emorl":
        return {"model": tensors, "step": 7}
    if system == "slot-vae":
        return {"state_dict": tensors, "optimizer": adam_state(system), "global_step": 7}
    content = {
        "model_state_dict": tensors,
        "optimiser_state_dict": adam_state(system),
        "beta": torch.tensor(0.25),
        "err_ema": torch.tensor(6000.0),
        "iter_idx": 7,
    }
    sri = {"beta_sri": torch.tensor(0.5), "err_sri_ema": torch.tensor(7000.0)}
    return content | (sri if system == "sri" else {})


def write_official(path: Path, system: str, **changes: Any) -> Path:
    """The checkpoint with some of its entries changed."""
    torch.save(official_content(system) | changes, path)
    return path


def imported(folder: Path, system: str, **changes: Any) -> Imported:
    folder.mkdir(exist_ok=True)
    file = write_official(folder / f"{system}.pth", system, **changes)
    workspace = Workspace(folder / "data", folder / "runs")
    return import_run(workspace, file, RECIPES[system], overrides=SIZES[system])


def opened(result: Imported) -> TrainedRun:
    folder = result.run.parent.parent
    return open_run(Workspace(folder / "data", folder / "runs"), str(result.run), device="cpu")


def state_of(result: Imported) -> dict[str, Any]:
    return checkpoints.newest_good(result.run).state()["step"]


@pytest.fixture(scope="module", params=list(TABLES))
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple:
    """(system, the imported run loaded)."""
    system = request.param
    return system, opened(imported(tmp_path_factory.mktemp(system), system))


def test_every_tensor_is_imported_under_our_name(run: tuple) -> None:
    """Parameters, and BatchNorm's running statistics; test_golden.py has the losses of them."""
    system, loaded = run
    tensors, weights = official_tensors(system), loaded.model.state_dict()
    assert system_of(tensors) == system
    for name in tensors.keys() - {"geco_beta", "geco_C_ema"}:
        if name.startswith(("p_z_given_g.", "global_struct_draw.dec_step_0")):
            continue
        ours = our_name(system, name)
        assert official_name(system, ours) == name
        assert torch.equal(weights.pop(ours), tensors[name]), name
    # What the official files do not hold: the state of EMORL's refinement.
    assert all(name.startswith("segregate.refine.") for name in weights)


def test_the_run_folder_is_as_training_writes_it(run: tuple) -> None:
    system, loaded = run
    saved = checkpoints.newest_good(loaded.run_dir)
    assert saved is not None and saved.step == 7
    assert saved.path.name == "step-000000007"
    assert saved.extra["imported"]["system"] == system
    assert saved.extra["source"] == {"caption": "shapestacks, imported weights"}
    assert (loaded.run_dir / "recipe.yaml").is_file()
    (command,) = (loaded.run_dir / "command.txt").read_text().splitlines()
    assert command.startswith("sri import  # ") and command.endswith(", step 7")
    assert [path.name for path in loaded.run_dir.parent.iterdir()] == [loaded.run_dir.name]


@pytest.mark.parametrize("system", ["sri", "genesis-v2", "genesis", "slot-vae"])
def test_every_moment_of_adam_belongs_to_its_parameter(tmp_path: Path, system: str) -> None:
    result = imported(tmp_path, system)
    saved = checkpoints.newest_good(result.run)
    recipe = opened(result).recipe
    step = new_step(recipe, torch.device("cpu"))
    step.load_state(saved.state()["step"])
    expected = adam_state(system)["state"]
    ours = dict(step.model.named_parameters())
    for i, official in enumerate(trained_names(system)):
        parameter = ours.pop(our_name(system, official))
        state = step.optimiser.state[parameter]
        assert torch.equal(state["exp_avg"], expected[i]["exp_avg"]), official
        assert torch.equal(state["exp_avg_sq"], expected[i]["exp_avg_sq"]), official
        assert state["step"] == 7
        # The fused kernel reads them as they lie.
        assert state["exp_avg"].stride() == parameter.stride(), official
    assert not ours


def test_gecos_of_sri_keep_their_objectives(tmp_path: Path) -> None:
    state = state_of(imported(tmp_path, "sri"))["gecos"]
    assert state["segregation.beta"] == 0.25 and state["segregation.err_ema"] == 6000
    assert state["imagination.beta"] == 0.5 and state["imagination.err_ema"] == 7000
    assert state["segregation.seen"] == state["imagination.seen"] == 7


def test_a_system_without_geco_takes_no_beta(tmp_path: Path) -> None:
    assert state_of(imported(tmp_path, "slot-vae", beta=0.25))["gecos"]["slot-vae.beta"] == 1


def test_geco_of_emorl_is_among_its_weights(tmp_path: Path) -> None:
    tensors = official_tensors("emorl")
    tensors |= {"geco_beta": torch.tensor(2.0), "geco_C_ema": torch.tensor([-30.0])}
    result = imported(tmp_path, "emorl", model=tensors, step=None)
    state = state_of(result)["gecos"]
    assert state["emorl.beta"] == 2 and state["emorl.gap_ema"] == -30
    warmup = opened(result).recipe.train.geco_warmup
    assert state["emorl.seen"] == warmup + 1  # its beta has moved, so the warm-up is over
    weight = opened(result).model.segregate.refine.error_weight
    torch.testing.assert_close(weight, torch.nn.functional.softplus(torch.tensor(2.0)))


def test_a_bare_state_dict_is_imported_without_training_state(tmp_path: Path) -> None:
    bare = tmp_path / "bare.pth"
    tensors = {f"module.{name}": value for name, value in official_tensors("sri").items()}
    torch.save(tensors, bare)
    workspace = Workspace(tmp_path / "data", tmp_path / "runs")
    result = import_run(workspace, bare, overrides=SIZES["sri"])
    assert result.step == 0 and result.recipe == "sri-mog"
    state = state_of(result)
    assert state["optimiser"]["state"] == {}
    assert state["gecos"]["imagination.beta"] == 1 and state["gecos"]["imagination.seen"] == 0
    assert len(result.notes) == 3 and "sri-mog" in result.notes[0]


@pytest.mark.parametrize("wrapper", ["_orig_mod.module.", "module._orig_mod.", "model._orig_mod."])
def test_wrappers_of_a_model_are_taken_off(tmp_path: Path, wrapper: str) -> None:
    tensors = {f"{wrapper}{name}": value for name, value in official_tensors("sri").items()}
    torch.save({"state_dict": tensors, "global_step": 12}, tmp_path / "wrapped.ckpt")
    assert read_official(tmp_path / "wrapped.ckpt").step == 12
    assert list(read_official(tmp_path / "wrapped.ckpt").tensors) == list(official_tensors("sri"))
    del tensors[next(iter(tensors))]
    tensors["other.weight"] = torch.zeros(2)  # not all names carry it
    torch.save({"state_dict": tensors}, tmp_path / "wrapped.ckpt")
    names = read_official(tmp_path / "wrapped.ckpt").tensors
    assert any(name.startswith(wrapper) for name in names)


def test_scalars_of_numpy_and_defaultdicts_are_read(tmp_path: Path) -> None:
    history = defaultdict(list, {"loss": [np.float64(0.5), np.float32(2), np.int64(3)]})
    beta, step = np.float64(0.25), np.int64(9)
    result = imported(tmp_path, "sri", beta_sri=beta, iter_idx=step, history=history)
    assert result.step == 9
    assert state_of(result)["gecos"]["imagination.beta"] == 0.25


@pytest.mark.parametrize("how", ["few", "reshaped", "nan", "negative", "list", "foreign"])
def test_moments_that_do_not_fit_are_left_out(tmp_path: Path, how: str) -> None:
    state: Any = adam_state("sri")
    if how == "few":
        state["param_groups"][0]["params"].pop()
    elif how == "reshaped":
        state["state"][5]["exp_avg"] = torch.zeros(3)
    elif how == "nan":
        state["state"][5]["exp_avg"][...] = torch.nan
    elif how == "negative":
        state["state"][5]["exp_avg_sq"].view(-1)[0] = -1.0
    elif how == "list":
        state = {"state": [5], "param_groups": [{"params": [5]}]}
    else:
        state = {"state": [1, 2], "param_groups": "none"}
    result = imported(tmp_path, "sri", optimiser_state_dict=state)
    assert state_of(result)["optimiser"]["state"] == {}


def test_emorls_moments_count_its_two_scalars_or_not(tmp_path: Path) -> None:
    whole = adam_state("emorl")
    result = imported(tmp_path / "a", "emorl", optimizer=whole)
    scalars = [name.startswith("geco_") for name, _ in golden("emorl").json("parameters")]
    without = [
        entry for entry, scalar in zip(whole["state"].values(), scalars, strict=True) if not scalar
    ]
    less = {
        "state": dict(enumerate(without)),
        "param_groups": [{"params": list(range(len(without)))}],
    }
    other = imported(tmp_path / "b", "emorl", optimizer=less)
    one, two = (state_of(each)["optimiser"]["state"] for each in (result, other))
    assert len(one) == len(without) and one.keys() == two.keys()
    assert all(torch.equal(one[i]["exp_avg"], two[i]["exp_avg"]) for i in one)


# `sri import` -------------------------------------------------------------------------------


def refusal(*args: str) -> tuple[str, str]:
    """The two lines of a refused import that left nothing behind."""
    shown = sri("import", *args, code=2)
    assert not Path("runs").exists()
    first, hint = shown.stderr.splitlines()
    assert first.startswith("Error: ")
    return first, hint


def test_every_verb_takes_the_run(here: Path) -> None:
    write_official(here / "official.pth", "sri")
    data = str(write_small_data(here / "mine.h5"))
    shown = sri("import", "official.pth", *SMALL, code=0)
    assert shown.stdout.splitlines() == [
        f"sri, 338,130 parameters, step 7: {RUN}/checkpoints/step-000000007",
        f"next: sri sample --run {RUN}",
        f"train further: sri train --recipe sri-mog --run {RUN} {' '.join(SMALL)}",
    ]
    assert "sri-mog" in shown.stderr and "144 moments" in shown.stderr

    drawn = sri("sample", "--num", "2", "--slots", "6", code=0)
    assert "step 7, shapestacks, imported weights" in drawn.stdout
    assert sri("eval", "--num", "2", "--metrics", "elbo", "--data", data).exit_code == 0


@pytest.mark.parametrize("system", list(TABLES))
def test_another_run_starts_from_the_weights_alone(tmp_path: Path, system: str) -> None:
    file = write_official(tmp_path / "published.pth", system)
    workspace = Workspace(tmp_path / "data", tmp_path / "runs")
    words = [*SIZES[system], "model.slots=6", "train.lr=1e-5"]
    recipe = load_recipe(RECIPES[system], "mine", words)
    data = DataFile(write_small_data(tmp_path / "mine.h5"))
    assert begin_run(workspace, str(file), recipe, data, tmp_path / "tuned")
    saved = checkpoints.newest_good(tmp_path / "tuned")
    assert saved is not None and saved.step == 0
    state, weights = saved.state()["step"], saved.weights()
    assert state["optimiser"]["state"] == {}
    for name, tensor in official_tensors(system).items():
        ours = our_name(system, name)
        if ours is not None and not ours.startswith("gecos."):
            assert torch.equal(weights[ours], tensor), name
    wrong = load_recipe(RECIPES[system], "mine", [*words, "model.slot_size=24"])
    with pytest.raises(SriError, match="of another shape: "):
        begin_run(workspace, str(file), wrong, data, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_training_goes_on_from_it(here: Path) -> None:
    write_official(here / "official.pth", "sri")
    data = str(write_small_data(here / "mine.h5"))
    assert sri("import", "official.pth", *SMALL).exit_code == 0
    words = ("train", "--recipe", "sri-mog", "--run", str(RUN), "--data", data, *SMALL)
    result = sri_json(*words, "--steps", "9")
    assert (result["resumed_from"], result["step"]) == (7, 9)
    assert result["record"]["skipped"] == 0
    meta = json.loads((RUN / "checkpoints/step-000000009/meta.json").read_text())
    assert meta["extra"]["source"]["caption"] == "mine, simulated, from imported weights"
    assert meta["extra"]["imported"]["file"] == "official.pth"
    # From here on it is a run like any other: its data may not change any more.
    other = str(write_small_data(here / "other.h5", images=20))
    changed = sri(*words[: -len(SMALL)][:-1], other, *SMALL, "--steps", "10")
    assert changed.exit_code == 2 and "data file" in changed.stderr
    assert sri(*words, "--steps", "10").exit_code == 0


def test_recipe_of_the_run(here: Path) -> None:
    write_official(here / "official.pth", "sri")
    words = ("--recipe", "sri-g", "--data", "objects-room", "--run", "here/x")
    result = sri_json("import", "official.pth", *words, *SMALL)
    assert (result["run"], result["recipe"], result["step"]) == ("here/x", "sri-g", 7)
    recipe = yaml.safe_load(Path("here/x/recipe.yaml").read_text())
    assert recipe["data"] == "objects-room" and recipe["model"]["slot_size"] == 16


def test_the_size_is_that_of_the_recipe_whatever_file_is_prepared(here: Path) -> None:
    """EMORL's tensors do not show it."""
    write_small_data(Path("data", "shapestacks-32.h5"))
    size = load_recipe("emorl").model.image_size
    write_official(here / "official.pth", "emorl")
    words = [word for word in SIZES["emorl"] if not word.startswith("model.image_size")]
    shown = sri("import", "official.pth", *words, code=0)
    (recipe,) = Path("runs").glob("*/recipe.yaml")
    assert yaml.safe_load(recipe.read_text())["model"]["image_size"] == size == 64
    assert "model.image_size=64" in shown.stdout.splitlines()[-1]  # the command to train further


def test_the_command_to_train_further_names_the_folder_of_the_run(here: Path) -> None:
    """Without a slash it would be another one, in the runs folder."""
    write_official(here / "official.pth", "sri")
    shown = sri("import", "official.pth", "--run", "./mine", *SMALL, code=0)
    *_, sample, train = (shlex.split(line) for line in shown.stdout.splitlines())
    assert sample[-1] == train[train.index("--run") + 1] == "./mine"


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
def test_code_in_a_file_is_named_and_never_run(here: Path, content: Any, name: str) -> None:
    if isinstance(content, bytes):
        (here / "bomb.pth").write_bytes(content)
    else:
        torch.save(content, here / "bomb.pth")
    first, _ = refusal("bomb.pth", *SMALL)
    assert name in first and "bomb.pth" in first
    assert not Path("marker").exists()


def test_a_flipped_bit_of_a_weight_is_noticed(here: Path) -> None:
    """torch.load reads it without a word."""
    file = write_official(here / "official.pth", "sri")
    name, weight = next(iter(official_tensors("sri").items()))
    data = bytearray(file.read_bytes())
    at = data.index(weight.numpy().tobytes())
    data[at] ^= 1
    file.write_bytes(data)
    content = torch.load(file, weights_only=True)
    assert not torch.equal(content["model_state_dict"][name], weight)
    assert "official.pth is damaged" in refusal("official.pth", *SMALL)[0]


@pytest.mark.parametrize("how", ["cut", "empty", "gone"])
def test_damaged_files(here: Path, how: str) -> None:
    damage(write_official(here / "official.pth", "sri"), how)
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
def test_files_of_something_else(here: Path, content: Any, message: str) -> None:
    torch.save(content, here / "other.pth")
    assert message in refusal("other.pth")[0]


def test_all_faults_at_once(here: Path) -> None:
    tensors = official_tensors("sri")
    del tensors["prior_lstm.mu.bias"], tensors["decoder.13.weight"]
    tensors["posterior_lstm.sp.bias"] = torch.zeros(17)
    tensors["scene_encoder.mu_s.bias"][3] = torch.nan
    tensors["scene_encoder.sp_s.bias"][0] = -1e7
    tensors |= {f"genesisv2.extra.{i}.weight": torch.zeros(1) for i in range(12)}
    write_official(here / "official.pth", "sri", model_state_dict=tensors)
    first, _ = refusal("official.pth", *SMALL)
    assert "2 missing: " in first and "prior_lstm.mu.bias" in first
    assert "decoder.13.weight" in first
    assert "1 of another shape: posterior_lstm.sp.bias [17]" in first and "[16]" in first
    assert "2 not finite or beyond 1e+06: scene_encoder.mu_s.bias, scene_encoder.sp_s.bias" in first
    assert "12 unexpected: genesisv2.extra.0.weight" in first and "2 more" in first


def test_unexpected_tensors_can_be_left_out(here: Path) -> None:
    tensors = official_tensors("sri")
    grids = {"decoder.0.g_1": torch.zeros(1, 1, 4, 4), "decoder.0.g_2": torch.zeros(1, 1, 4, 4)}
    unknown = {"genesisv2.prior_lstm.weight_ih_l0": torch.zeros(4, 4)}
    write_official(here / "official.pth", "sri", model_state_dict=tensors | grids | unknown)
    first, hint = refusal("official.pth", *SMALL)
    assert "1 unexpected: genesisv2.prior_lstm.weight_ih_l0" in first
    assert "--ignore-unexpected" in hint
    shown = sri("import", "official.pth", "--ignore-unexpected", *SMALL, code=0)
    assert "genesisv2.prior_lstm.weight_ih_l0" in shown.stderr
    assert "144 moments" in shown.stderr


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
def test_bad_options(here: Path, words: tuple[str, ...], message: str) -> None:
    write_official(here / "official.pth", "sri")
    assert message in refusal("official.pth", *words)[0]


def test_a_run_is_never_overwritten(here: Path) -> None:
    write_official(here / "official.pth", "sri")
    assert sri("import", "official.pth", *SMALL).exit_code == 0
    before = sorted(Path("runs").rglob("*"))
    assert str(RUN) in sri("import", "official.pth", *SMALL, code=2).stderr
    assert sorted(Path("runs").rglob("*")) == before


def test_a_full_disk_leaves_nothing(here: Path) -> None:
    write_official(here / "official.pth", "sri")
    with largest_file(100_000):
        shown = sri("import", "official.pth", *SMALL)
    assert shown.exit_code == 1 and "could not write" in shown.stderr
    assert list(Path("runs").iterdir()) == []
