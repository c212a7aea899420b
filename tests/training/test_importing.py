"""Official checkpoints as runs: the same numbers again, and the training state where it belongs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sri_cli import checkpoint as checkpoints
from sri_cli.generation.trained_run import TrainedRun, load_run
from sri_cli.models.emorl import Emorl, EmorlSegregation
from sri_cli.models.likelihood import ImageLikelihood
from sri_cli.models.official import TABLES, official_name, our_name
from sri_cli.run import Workspace
from sri_cli.training.importing import Imported, import_run, system_of
from sri_cli.training.trainer import new_step
from tests.golden_numbers import Golden, check
from tests.official_files import (
    RECIPES,
    SIZES,
    adam_state,
    golden,
    official_tensors,
    write_official,
)


def imported(place: Path, system: str, *more: str, **changes: Any) -> Imported:
    place.mkdir(exist_ok=True)
    file = write_official(place / f"{system}.pth", system, **changes)
    workspace = Workspace(place / "data", place / "runs")
    return import_run(workspace, file, RECIPES[system], overrides=[*SIZES[system], *more])


@pytest.fixture(scope="module", params=list(TABLES))
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple:
    """(system, its golden numbers, the imported run loaded)."""
    system = request.param
    run_dir = imported(tmp_path_factory.mktemp(system), system).run_dir
    return system, golden(system), load_run(run_dir)


def noise_of(system: str, numbers: Golden) -> dict[str, torch.Tensor]:
    """The golden draws under our names, batch first."""
    if system == "emorl":
        draws = ("layers", "kl_layers", "refinement")
        rest = {name: numbers[f"noise/{name}"].transpose(0, 1) for name in draws}
        return rest | {"initial_slots": numbers["noise/initial_slots"]}
    if system == "genesis":
        mask = numbers["noise/mask"]
        batch, slots = mask.shape[:2]
        component = numbers["noise/component"].unflatten(0, (slots, batch)).transpose(0, 1)
        return {"mask": mask, "component": component}
    if system == "genesis-v2":
        return {
            "rand_pixel": numbers["noise/rand_pixel"],
            "segregation": numbers["noise/slots"],
        }
    names = {"segregation": "segregate"}
    wanted = ("rand_pixel", "segregation", "scene", "rollout", "posterior")
    return {name: numbers[f"noise/{names.get(name, name)}"] for name in wanted}


def as_golden(system: str, loaded: TrainedRun, numbers: Golden) -> Any:
    """The model as the golden numbers were computed: batch statistics, EMORL of 16 px."""
    if system != "emorl":
        return loaded.model.train()
    model = Emorl(
        EmorlSegregation(
            image_size=16,
            slots=3,
            slot_size=16,
            likelihood=ImageLikelihood("gaussian", 0.1, normalised=False),
            refinements=2,
        )
    )
    model.load_state_dict(loaded.model.state_dict())
    model.segregate.refine.batch = numbers.json("config")["batch_size"]
    return model


def test_losses_are_those_of_the_official_model(run: tuple) -> None:
    system, numbers, loaded = run
    model = as_golden(system, loaded, numbers)
    images = numbers["x01" if system == "emorl" else "x"]
    losses = model(images, noise_of(system, numbers))
    terms = losses.terms
    if system == "emorl":
        check(terms["nll"].mean(), numbers["loss/nll"], "nll")
        check(terms["kl"].mean(), numbers["loss/kl"], "kl")
        return
    check(terms["nll"], numbers["loss/nll"], "nll")
    if system == "sri":
        ours = {"kl_scene": "kl_scene", "kl_slot": "kl_slot", "kl_cross_order": "kl_rollout"}
        for name, official in ours.items():
            check(terms[name], numbers[f"loss/{official}"], name)
        return
    (objective,) = losses.objectives
    check((objective.error + objective.kl).mean(), numbers["loss/total"], "total")


def test_running_statistics_are_imported(tmp_path: Path) -> None:
    model = load_run(imported(tmp_path, "genesis").run_dir).model
    tensors, buffers = official_tensors("genesis"), dict(model.named_buffers())
    named = {official_name("genesis", name): value for name, value in buffers.items()}
    found = named.keys() & tensors.keys()
    assert len(found) == 3 * 20
    assert all(torch.equal(named[name], tensors[name]) for name in found)


def test_the_run_folder_is_as_training_writes_it(run: tuple) -> None:
    system, _, loaded = run
    found = checkpoints.newest_good(loaded.run_dir)
    assert found is not None and found.step == 7
    assert found.path.name == "step-000000007"
    assert found.extra["imported"]["system"] == system
    assert found.extra["source"] == {"caption": "shapestacks, imported weights"}
    assert (loaded.run_dir / "recipe.yaml").is_file()
    assert (loaded.run_dir / "command.txt").read_text() == "sri import\n"
    assert [path.name for path in loaded.run_dir.parent.iterdir()] == [loaded.run_dir.name]


@pytest.mark.parametrize("system", ["sri", "genesis-v2", "genesis"])
def test_every_moment_of_adam_is_in_its_place(tmp_path: Path, system: str) -> None:
    found = checkpoints.newest_good(imported(tmp_path, system).run_dir)
    assert found is not None
    recipe = load_run(found.path.parent.parent).recipe
    step = new_step(recipe, torch.device("cpu"))
    step.load_state(found.state()["step"])
    expected = adam_state(system)["state"]
    ours = dict(step.model.named_parameters())
    for i, (official, _) in enumerate(golden(system).json("parameters")):
        parameter = ours.pop(our_name(system, official))
        state = step.optimiser.state[parameter]
        assert torch.equal(state["exp_avg"], expected[i]["exp_avg"]), official
        assert torch.equal(state["exp_avg_sq"], expected[i]["exp_avg_sq"]), official
        assert state["step"] == 7
        # The fused kernel reads them as they lie.
        assert state["exp_avg"].stride() == parameter.stride(), official
    assert not ours


def test_gecos_of_sri_are_told_apart(tmp_path: Path) -> None:
    state = newest_state(imported(tmp_path, "sri"))["gecos"]
    assert state["segregation.beta"] == 0.25 and state["segregation.err_ema"] == 6000
    assert state["imagination.beta"] == 0.5 and state["imagination.err_ema"] == 7000
    assert state["segregation.seen"] == state["imagination.seen"] == 7


def test_geco_of_emorl_is_among_its_weights(tmp_path: Path) -> None:
    tensors = official_tensors("emorl")
    tensors |= {"geco_beta": torch.tensor(2.0), "geco_C_ema": torch.tensor([-30.0])}
    found = imported(tmp_path, "emorl", model=tensors, step=None)
    state = newest_state(found)["gecos"]
    assert state["emorl.beta"] == 2 and state["emorl.gap_ema"] == -30
    warmup = load_run(found.run_dir).recipe.train.geco_warmup
    assert state["emorl.seen"] == warmup + 1  # its beta has moved, so the warm-up is over
    weight = load_run(found.run_dir).model.segregate.refine.error_weight
    torch.testing.assert_close(weight, torch.nn.functional.softplus(torch.tensor(2.0)))


def newest_state(found: Imported) -> dict[str, Any]:
    good = checkpoints.newest_good(found.run_dir)
    assert good is not None
    return good.state()["step"]


def test_a_bare_state_dict_is_imported_without_training_state(tmp_path: Path) -> None:
    bare = tmp_path / "bare.pth"
    tensors = {f"module.{name}": value for name, value in official_tensors("sri").items()}
    torch.save(tensors, bare)
    workspace = Workspace(tmp_path / "data", tmp_path / "runs")
    found = import_run(workspace, bare, overrides=SIZES["sri"])
    assert found.step == 0 and found.recipe_name == "sri-mog"
    state = newest_state(found)
    assert state["optimiser"]["state"] == {}
    assert state["gecos"]["imagination.beta"] == 1 and state["gecos"]["imagination.seen"] == 0
    assert len(found.notes) == 3 and "sri-mog" in found.notes[0]


@pytest.mark.parametrize("how", ["few", "reshaped", "nan", "foreign"])
def test_moments_that_do_not_fit_are_left_out(tmp_path: Path, how: str) -> None:
    state: Any = adam_state("sri")
    if how == "few":
        state["param_groups"][0]["params"].pop()
    elif how == "reshaped":
        state["state"][5]["exp_avg"] = torch.zeros(3)
    elif how == "nan":
        state["state"][5]["exp_avg"][...] = torch.nan
    else:
        state = {"state": [1, 2], "param_groups": "none"}
    found = imported(tmp_path, "sri", optimiser_state_dict=state)
    assert newest_state(found)["optimiser"]["state"] == {}


def test_emorls_moments_count_its_two_scalars_or_not(tmp_path: Path) -> None:
    whole = adam_state("emorl")
    found = imported(tmp_path / "a", "emorl", optimizer=whole)
    scalars = [name.startswith("geco_") for name, _ in golden("emorl").json("parameters")]
    without = [
        entry for entry, scalar in zip(whole["state"].values(), scalars, strict=True) if not scalar
    ]
    less = {
        "state": dict(enumerate(without)),
        "param_groups": [{"params": list(range(len(without)))}],
    }
    other = imported(tmp_path / "b", "emorl", optimizer=less)
    one, two = (newest_state(each)["optimiser"]["state"] for each in (found, other))
    assert len(one) == len(without) and one.keys() == two.keys()
    assert all(torch.equal(one[i]["exp_avg"], two[i]["exp_avg"]) for i in one)


@pytest.mark.parametrize("system", TABLES)
def test_names_there_and_back(system: str) -> None:
    names = list(official_tensors(system))
    assert system_of(names) == system
    for name in names:
        assert official_name(system, our_name(system, name)) == name
