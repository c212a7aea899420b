"""Shipped recipes: every one loads and builds, the paper's settings, `sri recipes`."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import yaml

from sri_cli.config.load import all_keys, data_sets, load_recipe
from sri_cli.config.registry import copy_recipe, recipe_names, recipe_path
from sri_cli.config.schema import Recipe, describe_keys
from sri_cli.errors import SriError
from sri_cli.models.base import SlotVAE
from sri_cli.models.build import build_model
from tests import small_cli

EVERY = [(name, data) for name in recipe_names() for data in data_sets(name)]


def test_every_system_and_ablation_of_the_paper_is_there() -> None:
    published = {"genesis", "emorl", "sri-g", "sri-mog", "sri-emorl", "sri-sa"}
    published |= {"genesis-v2-g", "genesis-v2-mog", "genesis-scene", "genesis-v2-scene"}
    published |= {"sri-g-no-scene", "sri-g-no-alignment", "sri-g-no-cross-order"}
    assert set(recipe_names()) == published | {"slot-vae", "sri-2", "sri-timm"}  # later systems


def built(recipe: Recipe) -> SlotVAE:
    """The model, without memory for its weights or with a small encoder."""
    section = recipe.model.model_dump()
    if section["encoder"]:  # its features are computed
        return build_model(**section | {"encoder": "timm/test_vit"}, pretrained=False)
    with torch.device("meta"):
        return build_model(**section)


@pytest.mark.parametrize(("name", "data"), EVERY)
def test_loads_and_builds(name: str, data: str) -> None:
    recipe = load_recipe(name, data)
    assert (recipe.name, recipe.data) == (name, data)
    assert 0 < len(recipe.description) < 60
    model = built(recipe)
    assert (model.num_slots, model.image_size) == (recipe.model.slots, recipe.model.image_size)


# name, data: image size, slots, steps, target, GECO's rate, std, normalised (MODELS, section 6)
PUBLISHED = {
    ("sri-mog", "shapestacks"): (64, 9, 500_000, 0.5655, 1e-6, 0.7, True),
    ("sri-mog", "objects-room"): (64, 7, 500_000, 0.5655, 1e-6, 0.7, True),
    ("sri-mog", "clevr6"): (96, 7, 425_000, -2.265, 1e-6, 0.1, False),
    ("genesis-v2-mog", "shapestacks"): (64, 9, 500_000, 0.5655, 1e-5, 0.7, True),
    ("genesis-v2-mog", "objects-room"): (64, 7, 500_000, 0.5655, 1e-5, 0.7, True),
    ("genesis-v2-mog", "clevr6"): (96, 7, 425_000, -2.265, 1e-5, 0.1, False),
    ("sri-g", "shapestacks"): (64, 9, 500_000, -0.353, 1e-6, 0.7, False),
    ("sri-g", "clevr6"): (96, 7, 425_000, -0.356, 1e-6, 0.7, False),
    ("genesis-v2-g", "objects-room"): (64, 7, 500_000, -0.353, 1e-6, 0.7, False),
    ("genesis-v2-g", "clevr6"): (96, 7, 425_000, -0.356, 1e-6, 0.7, False),
    ("emorl", "shapestacks"): (64, 9, 500_000, -2.206, 1e-6, 0.1, False),
    ("emorl", "clevr6"): (96, 7, 425_000, -2.206, 1e-6, 0.1, False),
    ("sri-emorl", "clevr6"): (96, 7, 225_000, -2.265, 1e-6, 0.1, False),
}


@pytest.mark.parametrize(("name", "data"), PUBLISHED)
def test_the_published_settings(name: str, data: str) -> None:
    recipe = load_recipe(name, data)
    model, train = recipe.model, recipe.train
    sizes = (model.image_size, model.slots, train.steps, train.geco_target, train.geco_lr)
    assert (*sizes, model.std, model.normalised) == PUBLISHED[name, data]
    assert (model.slot_size, train.batch, train.geco_speedup) == (64, 32, 10)
    assert model.likelihood == ("gaussian" if "-g" in name or name == "sri-emorl" else "mog")
    optimiser = (train.lr, train.clip_grad, train.lr_warmup, train.lr_half_life, train.geco_warmup)
    if "emorl" in name:
        assert optimiser == (4e-4, 5.0, 10_000, 100_000, 1000)
        assert (model.decoder, model.refinements) == ("iodine", 2 if "sri" in name else 3)
    else:
        assert optimiser == (1e-4, None, 0, 0, 0)


@pytest.mark.parametrize("name", recipe_names())
def test_tiny_of_any_recipe(name: str) -> None:
    recipe = load_recipe(name, None, ["size=tiny", "train.batch=3"])
    assert (recipe.size, recipe.model.image_size, recipe.model.slot_size) == ("tiny", 32, 32)
    assert recipe.train.batch == 3  # an override beside size=tiny holds
    assert (recipe.train.lr_warmup, recipe.train.geco_warmup) == (0, 0)
    paper = load_recipe(name)
    assert recipe.train.geco_target == paper.train.geco_target
    assert (paper.size, paper.model.system) == ("paper", recipe.model.system)


@pytest.mark.parametrize("name", recipe_names())
def test_small_of_any_recipe(name: str) -> None:
    recipe = load_recipe(name, None, ["size=small", "train.steps=6000"])
    model, train = recipe.model, recipe.train
    assert (recipe.size, model.image_size, model.slot_size) == ("small", 64, 64)
    assert train.lr_warmup + train.lr_decay_steps == train.steps == 6000
    paper = load_recipe(name).train.geco_target
    if "emorl" in name or paper is None:
        assert train.geco_target == paper
    else:  # closer to a perfect reconstruction
        perfect = math.log(model.std) + 0.5 * math.log(2 * math.pi) * model.normalised
        assert train.geco_target is not None and perfect < train.geco_target < paper
        wide = load_recipe(name, None, ["size=small", f"model.std={2 * model.std}"]).train
        assert wide.geco_target is not None
        assert 0 < wide.geco_target - perfect - math.log(2) < train.geco_target - perfect


def test_the_images_of_an_encoder_shrink_with_those_of_the_model(tmp_path: Path) -> None:
    def sizes(data: str, *words: str) -> tuple[int, int | None]:
        model = load_recipe("sri-timm", data, words).model
        return model.image_size, model.encoder_size

    for data in ("shapestacks", "clevr6", "clevrtex"):
        assert sizes(data, "size=tiny") == (32, 112)
        assert sizes(data, "size=tiny", "model.image_size=64") == (64, 224)
    assert sizes("clevr6", "size=tiny", "model.encoder_size=56") == (32, 56)
    copy_recipe("sri-timm", tmp_path / "mine.yaml")
    block = "datasets:\n  mypics: {train: {geco_target: 1}, tiny: {model: {encoder_size: 84}}}"
    text = (tmp_path / "mine.yaml").read_text().replace("datasets:", block)
    (tmp_path / "mine.yaml").write_text(text)
    mine = load_recipe(str(tmp_path / "mine.yaml"), "mypics", ["size=tiny"]).model
    assert (mine.image_size, mine.encoder_size) == (32, 84)


def test_small_has_slots_for_the_data_and_keeps_what_is_set() -> None:
    def small(data: str, *words: str) -> Recipe:
        return load_recipe("sri-g", data, ["size=small", *words])

    names = ("demo-towers", "objects-room", "clevr6")
    assert [small(data).model.slots for data in names] == [5, 7, 8]
    words = ["model.slots=4", "train.geco_target=-0.35", "train.lr_decay_steps=0"]
    own = small("demo-towers", *words)
    assert (own.model.slots, own.train.geco_target, own.train.lr_decay_steps) == (4, -0.35, 0)
    assert small("clevr6", "train.steps=200").train.lr_decay_steps == 0  # ends in the warm-up
    halved = small("clevr6", "train.lr_half_life=500").train
    assert (halved.lr_half_life, halved.lr_decay_steps) == (500, 0)


@pytest.mark.parametrize("own", ["lr_decay_steps: 0", "lr_decay_steps: 5000", "lr_half_life: 500"])
def test_small_keeps_the_schedule_of_the_recipes_own_block(tmp_path: Path, own: str) -> None:
    copy_recipe("sri-g", tmp_path / "mine.yaml")
    text = (tmp_path / "mine.yaml").read_text()
    tree = yaml.safe_load(text)
    block = tree["datasets"]["objects-room"].setdefault("small", {}).setdefault("train", {})
    block |= yaml.safe_load(own)
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(tree))
    train = load_recipe(str(tmp_path / "mine.yaml"), "objects-room", ["size=small"]).train
    schedule = {"lr_decay_steps": train.lr_decay_steps, "lr_half_life": train.lr_half_life}
    assert schedule == {"lr_decay_steps": 0, "lr_half_life": 0} | yaml.safe_load(own)


def test_tiny_of_a_data_set_with_settings_for_it() -> None:
    for name, data in EVERY:
        built(load_recipe(name, data, ["size=tiny"]))

    def slots(data: str, *overrides: str) -> int:
        return load_recipe("sri-g", data, ["size=tiny", *overrides]).model.slots

    assert (slots("shapestacks"), slots("tetrominoes"), slots("multi-dsprites")) == (5, 5, 7)
    assert slots("multi-dsprites", "model.slots=6") == 6
    assert load_recipe("sri-g", "tetrominoes", ["size=tiny"]).train.geco_target == -0.337


def test_unknown_recipe(tmp_path: Path) -> None:
    with pytest.raises(SriError, match=r"no recipe sri-mgo \(did you mean sri-mog\?\)\n.*sri-mog"):
        recipe_path("sri-mgo")
    with pytest.raises(SriError, match=r"nothing\.yaml"):
        recipe_path("nothing.yaml")
    with pytest.raises(SriError, match="folder"):
        recipe_path(str(tmp_path))


def test_copy_keeps_comments_and_takes_the_new_name(tmp_path: Path) -> None:
    copied = copy_recipe("sri-mog", tmp_path / "mine.yaml")
    assert load_recipe(str(copied)).name == "mine"
    assert copied.read_text().startswith("# SRI (segregate")
    assert copy_recipe("sri-mog", tmp_path) == tmp_path / "sri-mog.yaml"


@pytest.mark.parametrize("name", ["2026.yaml", "null.yaml", "1e3.yaml"])
def test_a_copy_of_any_name_loads(tmp_path: Path, name: str) -> None:
    copied = copy_recipe("sri-mog", tmp_path / name)
    assert load_recipe(str(copied)).name == copied.stem


@pytest.mark.parametrize("name", ["my recipe.yaml", "_x.yaml", "a\\1.yaml"])
def test_a_copy_is_not_named_what_no_recipe_may_be(tmp_path: Path, name: str) -> None:
    with pytest.raises(SriError):
        copy_recipe("sri-mog", tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_copy_refuses_to_overwrite(tmp_path: Path) -> None:
    target = copy_recipe("sri-mog", tmp_path / "mine.yaml")
    target.write_text("precious")
    with pytest.raises(SriError, match="mine.yaml"):
        copy_recipe("sri-mog", target)
    assert target.read_text() == "precious"
    with pytest.raises(SriError, match="mine"):
        copy_recipe("sri-mog", tmp_path / "mine")


def test_verbs(tmp_path: Path) -> None:
    def sri(*words: str) -> str:
        shown = small_cli.sri("recipes", *words, code=0)
        return shown.stdout

    lines = sri("ls").splitlines()
    assert lines[0].split() == ["NAME", "SYSTEM", "DATA", "SETS", "STEPS", "DESCRIPTION"]
    assert [line.split()[0] for line in lines[1:]] == recipe_names()
    assert sri("show", "sri-mog") == recipe_path("sri-mog").read_text()
    assert "mine.yaml" in sri("cp", "sri-mog", str(tmp_path / "mine.yaml"))
    assert sri("validate", "--all").count("ok  ") == len(recipe_names())
    assert sri("validate", str(tmp_path / "mine.yaml")).startswith("ok  ")
    (tmp_path / "data.h5").write_bytes(b"\x89HDF")
    for verb, *dest in (["show"], ["cp", str(tmp_path / "copy.yaml")]):
        assert small_cli.sri("recipes", verb, str(tmp_path / "data.h5"), *dest).exit_code == 2


def test_validate_reports_all_faults_and_exits_2(tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("name: bad\ndata: x\nmodel: {system: sri, slotz: 2}\ntrain: {steps: 0}\n")
    shown = small_cli.sri("recipes", "validate", str(bad), code=2)
    first = shown.stderr.splitlines()[0]
    for fault in ("model.slotz", "train.steps", "train.geco_target"):
        assert fault in first


def test_keys_lists_every_key_with_type_default_and_meaning() -> None:
    shown = small_cli.sri("recipes", "keys").stdout.splitlines()
    sections = {"model", "train"}
    assert [line.split()[0] for line in shown[1:]] == [
        key for key in all_keys(Recipe) if key not in sections
    ]
    for key, kind, default, meaning in describe_keys():
        assert kind and meaning.split("; only for")[0] not in ("", "None"), key
        assert default or key == "description", key
    rows = {row[0]: row[1:] for row in describe_keys()}
    assert rows["model.slots"][:2] == ("integer, 2 to 64", "9")
    assert rows["train.clip_grad"][:2] == ("number above 0 or null", "null")
    assert rows["model.order"][:2] == ("greedy|hungarian|sinkhorn", "greedy")
    assert rows["train.geco_target"][1] == "required"
