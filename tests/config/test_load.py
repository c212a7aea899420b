"""Recipe files: YAML, merging, overrides, size=tiny, version 0.1, and all faults at once."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from sri_cli.config.load import (
    check_recipes,
    data_sets,
    load_recipe,
    recipe_from_dict,
    recipe_to_yaml,
    with_old_keys,
)
from sri_cli.config.schema import DRAW_STEPS
from sri_cli.config.strict_yaml import read_yaml, write_yaml
from sri_cli.errors import SriError
from sri_cli.models.slot_vae import STEPS

GOOD = """
name: mine
data: near
model: {system: sri, std: 0.5}
train: {geco_target: 0.5, lr: 1e-3}
datasets:
  near: {}
  far:
    model: {slots: 5}
    train: {lr: 1e-4}
"""


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD)
    return path


def faults(path: Path, *overrides: str, data: str | None = None) -> str:
    with pytest.raises(SriError) as error:
        load_recipe(str(path), data, overrides)
    assert error.value.exit_code == 2
    assert error.value.hint
    return error.value.message


def changed(path: Path, old: str, new: str) -> Path:
    assert old in GOOD
    path.write_text(GOOD.replace(old, new))
    return path


def test_data_set_block_lies_over_the_sections(recipe_file: Path) -> None:
    near, far = load_recipe(str(recipe_file)), load_recipe(str(recipe_file), "far")
    assert (near.data, near.model.slots, near.train.lr) == ("near", 9, 1e-3)
    assert (far.data, far.model.slots, far.train.lr) == ("far", 5, 1e-4)
    assert far.model.std == 0.5
    assert data_sets(str(recipe_file)) == ["near", "far"]


def test_overrides_lie_over_the_block(recipe_file: Path) -> None:
    words = ["train.lr=2e-5", "model.slots=6", "train.clip_grad=5", "train.clip_grad=null"]
    recipe = load_recipe(str(recipe_file), "far", words)
    assert (recipe.train.lr, recipe.model.slots, recipe.train.clip_grad) == (2e-5, 6, None)
    assert load_recipe(str(recipe_file), "far", ["model.end_to_end=true"]).model.end_to_end


@pytest.mark.parametrize(
    ("word", "parts"),
    [
        ("train.lr", ["train.lr", "KEY=VALUE"]),
        ("train.lrr=1", ["train.lrr", "did you mean train.lr?"]),
        ("lr=1", ["did you mean train.lr?"]),
        ("modle.slots=1", ["did you mean model?"]),
        ("train.steps=many", ["train.steps", "'many'"]),
        ("train.steps=1.5", ["train.steps", "1.5"]),
        ("train.steps=true", ["train.steps", "True"]),
        ("train.steps=0", ["train.steps", "not 0"]),
        ("train.lr='1e-4'", ["train.lr", "'1e-4'"]),
        ("train.lr=", ["train.lr", "None"]),
        ("train.lr=1e999", ["train.lr", "inf"]),
        ("train.lr=-1", ["train.lr", "-1"]),
        ("train.lr.x=1", ["train.lr", "{'x': 1}"]),
        ("train=3", ["train", "not 3"]),
        ("size=tiny train=3", ["train", "not 3"]),
        ("size=tiny model=3", ["model", "not 3"]),
        ("size=tiny model.std=0", ["model.std", "not 0"]),
        ("size=small train.steps=20k", ["train.steps", "'20k'"]),
        ("size=small train.lr_warmup=null", ["train.lr_warmup", "None"]),
        ("size=[small]", ["size", "['small']"]),
        ("model.normalised=no", ["model.normalised", "'no'"]),
        ("model.slots=1", ["model.slots", "not 1"]),
        ("model.slot_size=60", ["model.slot_size", "multiple of 8"]),
        ("model.image_size=65", ["32, 64, 96", "not 65"]),
        ("model.kernel=gausian", ["epanechnikov", "did you mean gaussian?"]),
        ("train.lr_half_life=9 train.lr_decay_steps=9", ["train.lr_half_life", "lr_decay_steps"]),
        ("train.late_refinements=1", ["late_refinements", "late_refinements_from"]),
        (
            "model.segregation=emorl train.late_refinements=4 train.late_refinements_from=9",
            ["late_refinements", "the 3 of"],
        ),
        ("data=far", ["data=far", "--data"]),
        ("train.lr=[1", ["train.lr=[1"]),
        ("train.lr=!!int", ["train.lr=!!int"]),
        pytest.param(f"train.lr={'[' * 1000}{']' * 1000}", ["train.lr=[["], id="deep"),
    ],
)
def test_bad_overrides(recipe_file: Path, word: str, parts: list[str]) -> None:
    message = faults(recipe_file, *word.split())
    assert [part for part in parts if part not in message] == []


def test_the_steps_of_slot_vae_are_those_of_its_model() -> None:
    assert DRAW_STEPS == STEPS


def test_all_faults_at_once(recipe_file: Path) -> None:
    changed(recipe_file, "std: 0.5", "stdd: 0.5, likelihood: mogg")
    message = faults(recipe_file, "train.lrr=1", "train.steps")
    for part in ("did you mean model.std?", "did you mean mog?", "train.lrr", "train.steps:"):
        assert message.count(part) == 1


def test_faults_reach_the_process_that_asked(recipe_file: Path) -> None:
    with pytest.raises(SriError) as caught:
        load_recipe(str(recipe_file), None, ["train.lrr=1", "train.steps"])
    again = pickle.loads(pickle.dumps(caught.value))
    assert vars(again) == vars(caught.value) and len(again.faults) == 2
    assert (str(again), again.exit_code) == (caught.value.message, 2)


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        ("name: mine", "name: mine\nnmae: x", ["did you mean name?"]),
        ("geco_target: 0.5, ", "", ["train.geco_target: missing"]),
        ("system: sri, std: 0.5", "", ["model.system: missing"]),
        ("data: near", "data: [near]", ["data", "['near']"]),
        ("system: sri", "system: genesis-v2, order: hungarian", ["model.order", "genesis-v2"]),
        ("system: sri", "system: emorl, decoder: broadcast", ["model.decoder"]),
        ("system: sri", "system: sri, segregation: frozen", ["model.encoder"]),
        ("system: sri", "system: sri, refinements: 2", ["model.refinements"]),
        ("system: sri", "system: slot-vae, scene_size: 50", ["model.scene_size", "multiple of 4"]),
        ("name: mine", "name: mine\nsize: tiny", ["size=tiny"]),
        ("name: mine", "name: mine\nsize: [tiny]", ["size", "['tiny']"]),
        ("name: mine", "name: mine\nname: you", ["line 3: name"]),
        ("lr: 1e-3", "lr: !!int fast", ["mine.yaml", "fast"]),
        ("lr: 1e-3", "lr: !!bool maybe", ["mine.yaml", "maybe"]),
        ("    model: {slots: 5}", "    modle: {slots: 5}", ["datasets.far.modle"]),
        ("    model: {slots: 5}", "    model: 5", ["datasets.far.model", "not 5"]),
        ("slots: 5", "slotz: 5", ["with data far: model.slotz"]),
        ("near: {}", "near: 3", ["datasets.near", "not 3"]),
        ("near: {}", "near: {tiny: {modle: {}}}", ["datasets.near.tiny.modle"]),
        ("near: {}", "near: {small: {modle: {}}}", ["datasets.near.small.modle"]),
        ("near: {}", "near: {tiny: {model: {slotz: 5}}}", ["with data near: model.slotz"]),
        ("near: {}", "near: {small: {train: {steps: 20k}}}", ["data near: train.steps", "'20k'"]),
        ("near: {}", "near: {small: {train: {lr_warmup: null}}}", ["train.lr_warmup", "None"]),
    ],
)
def test_bad_files(recipe_file: Path, old: str, new: str, parts: list[str]) -> None:
    message = faults(changed(recipe_file, old, new))
    assert [part for part in parts if part not in message] == []


@pytest.mark.parametrize("blocks", ["5", "near", "[near]"])
def test_data_sets_that_are_no_section_are_a_fault(recipe_file: Path, blocks: str) -> None:
    changed(recipe_file, GOOD[GOOD.index("datasets:") :], f"datasets: {blocks}")
    assert data_sets(str(recipe_file)) == ["near"]
    assert "datasets: should be a section" in faults(recipe_file, data="near")


@pytest.mark.parametrize("content", [b"", b"- a\n", b"3\n", b"\xff\xfe\x00", b"a: [\n"])
def test_files_that_are_not_recipes(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.yaml"
    path.write_bytes(content)
    assert "broken.yaml" in faults(path)


@pytest.mark.parametrize(
    ("model", "word"),
    [
        ("system: genesis", "model.scene_size=64"),
        ("system: sri, scene: false", "model.scene_size=64"),
        ("system: sri, segregation: emorl", "model.kernel=laplacian"),
        ("system: sri, segregation: emorl", "model.decoder_channels=8"),
        ("system: sri, segregation: slot-attention", "model.order=hungarian"),
        ("system: sri, segregation: slot-attention", "model.end_to_end=true"),
        ("system: sri, segregation: frozen, encoder: timm/test_vit", "model.end_to_end=true"),
        ("system: sri, alignment: false", "model.cross_order=false"),
        ("system: genesis-v2", "train.late_refinements=0"),
        ("system: emorl", "train.beta_min=1e-3"),
        ("system: sri, segregation: emorl", "train.beta_start=0.1"),
        ("system: sri, likelihood: gaussian", "train.gaussian_warmup_steps=5"),
    ],
)
def test_keys_without_effect_are_refused(recipe_file: Path, model: str, word: str) -> None:
    path = changed(recipe_file, "system: sri", model)
    late = ["train.late_refinements_from=3"] if "late" in word else []
    assert f"{word.partition('=')[0]}: no effect" in faults(path, word, *late)
    assert load_recipe(str(path), None, ["size=tiny"]).size == "tiny"  # which sets no such key


def test_all_keys_without_effect_are_named_at_once(recipe_file: Path) -> None:
    words = ["model.order=hungarian", "model.kernel=laplacian", "train.late_refinements=0"]
    keys = [word.partition("=")[0] for word in words]
    words += ["model.segregation=slot-attention", "train.late_refinements_from=3"]
    message = faults(recipe_file, *words)
    assert [message.count(f"{key}: no effect") for key in keys] == [1, 1, 1]


def test_weights_trained_with_such_a_key_are_still_read(recipe_file: Path) -> None:
    values = load_recipe(str(recipe_file)).model_dump()
    values["model"]["likelihood"], values["train"]["gaussian_warmup_steps"] = "gaussian", 5
    assert recipe_from_dict(values).train.gaussian_warmup_steps == 5


def test_tiny_is_of_the_system_that_the_words_make(recipe_file: Path) -> None:
    words = ["size=tiny", "model.segregation=emorl", "model.likelihood=gaussian", "train.batch=3"]
    recipe = load_recipe(str(recipe_file), None, words)
    paper = load_recipe(str(recipe_file), None, words[1:])
    assert recipe.train.lr == paper.train.lr  # EMORL keeps its own
    assert (recipe.train.beta_min, recipe.train.gaussian_warmup_steps) == (1e-10, 0)
    assert (recipe.train.batch, recipe.model.image_size) == (3, 32)


def test_a_runs_own_recipe_is_not_shrunk_again(recipe_file: Path, tmp_path: Path) -> None:
    recipe = load_recipe(str(recipe_file), None, ["size=tiny", "train.batch=3"])
    own = tmp_path / "recipe.yaml"
    own.write_text(recipe_to_yaml(recipe))
    assert load_recipe(str(own)) == recipe
    assert load_recipe(str(own), None, ["size=tiny"]) == recipe
    assert "size=paper" in faults(own, "size=paper")


def test_an_encoder_is_found_from_any_folder(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside the recipe that names it, or in the folder where the command was given."""
    frozen = ["model.segregation=frozen", "model.encoder=timm/test_vit@mine.pt"]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    recipe = load_recipe(str(recipe_file), None, frozen)
    assert recipe.model.encoder == f"timm/test_vit@{elsewhere / 'mine.pt'}"
    changed(
        recipe_file,
        "system: sri",
        "system: sri, segregation: frozen, encoder: timm/test_vit@mine.pt",
    )
    recipe = load_recipe(str(recipe_file))
    assert recipe.model.encoder == f"timm/test_vit@{tmp_path / 'mine.pt'}"
    block = "near: {tiny: {model: {segregation: frozen, encoder: timm/test_vit@mine.pt}}}"
    changed(recipe_file, "near: {}", block)
    recipe = load_recipe(str(recipe_file), None, ["size=tiny"])
    assert recipe.model.encoder == f"timm/test_vit@{tmp_path / 'mine.pt'}"


def test_a_data_set_without_a_block_has_the_settings_of_the_default_one(recipe_file: Path) -> None:
    changed(recipe_file, "near: {}", "near: {model: {slots: 3}}")
    other = load_recipe(str(recipe_file), "mine")
    assert (other.data, other.model.slots, other.train.lr) == ("mine", 3, 1e-3)


def test_a_resolved_recipe_reads_back_the_same(recipe_file: Path, tmp_path: Path) -> None:
    recipe = load_recipe(str(recipe_file), "far", ["train.geco_lr=1e-6"])
    resolved = tmp_path / "recipe.yaml"
    resolved.write_text(recipe_to_yaml(recipe))
    assert load_recipe(str(resolved)) == recipe
    resolved.write_text(recipe_to_yaml(recipe, {"trained_on": {"name": "far"}}))
    assert load_recipe(str(resolved)) == recipe
    assert recipe_from_dict(recipe.model_dump()) == recipe


def test_check_goes_through_all_and_then_tells(recipe_file: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text(GOOD.replace("slots: 5", "slots: 1"))
    checks = check_recipes([str(bad), str(recipe_file)])
    assert next(checks) == (str(recipe_file), ["near", "far"])
    with pytest.raises(SriError, match=r"recipe \S+/bad.yaml: with data far: model.slots: "):
        next(checks)


def test_a_recipe_of_version_0_1_loads_under_present_keys_and_keeps_its_digests() -> None:
    file = Path(__file__).parents[1] / "version_0_1" / "recipe.yaml"
    recipe = load_recipe(str(file))
    assert (recipe.train.gaussian_warmup_steps, recipe.model.init) == (1500, "xavier_small")
    stored = read_yaml(file.read_text(), file.name)
    assert json.dumps(with_old_keys(recipe)) == json.dumps(stored)  # also in this order


def test_keys_of_version_0_1_are_taken_in_files_blocks_and_overrides(recipe_file: Path) -> None:
    changed(recipe_file, "lr: 1e-3", "blend_warmup: 7")
    assert load_recipe(str(recipe_file)).train.gaussian_warmup_steps == 7
    words = ["train.blend_warmup=9"]
    assert load_recipe(str(recipe_file), overrides=words).train.gaussian_warmup_steps == 9
    recipe = load_recipe("emorl", overrides=["model.small_start=false"])
    assert recipe.model.init == "default"
    stored = recipe.model_dump()
    stored["model"]["small_start"] = stored["model"].pop("init") == "xavier_small"
    assert recipe_from_dict(stored) == recipe


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("1e-4", 1e-4), ("5E3", 5000.0), ("-2.265", -2.265), (".5", 0.5), ("0.7", 0.7)),
        *(("500_000", 500_000), ("-3", -3), ("0", 0), ("true", True), ("null", None), ("", None)),
        *(("010", "010"), ("0x10", "0x10"), ("1:30", "1:30"), ("on", "on"), ("no", "no")),
        *(("'1e-4'", "1e-4"), ("2024-01-01", "2024-01-01")),
    ],
)
def test_scalars(text: str, value: Any) -> None:
    read = read_yaml(text, "here")
    assert read == value
    assert type(read) is type(value)
    assert read_yaml(write_yaml(read), "here") == value


def test_every_duplicate_key_with_its_line() -> None:
    with pytest.raises(SriError) as error:
        read_yaml("a: 1\nb: {c: 1, c: 2}\na: 2\n", "file.yaml")
    for part in ("file.yaml", "line 3: a ", "line 2: c "):
        assert part in error.value.message


@pytest.mark.parametrize(
    "text", ["a: [1", "a: b: c", "\tx: 1", "a: !!python/name:os.system x", "*x"]
)
def test_broken_yaml_names_file_and_line(text: str) -> None:
    with pytest.raises(SriError, match="here .*line 1"):
        read_yaml(text, "here")
