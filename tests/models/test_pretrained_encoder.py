"""A frozen timm encoder: features, training on it, checkpoints without its weights, bad input."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from sri_cli.config.load import load_recipe
from sri_cli.errors import SriError, pip_install
from sri_cli.models.pretrained_encoder import FrozenSegregation, weights_to_download
from sri_cli.rng import draw_noise
from sri_cli.training.execution import ExecutionMode
from sri_cli.training.step import TrainStep
from tests.small_cli import sri_json
from tests.small_models import SIDE, SIZES, encoder_weights, images, noise_for, small_sri

timm = pytest.importorskip("timm")

# A transformer, whose features are tokens, and a convolutional network.
NAMES = {"test_vit": (64, 10, 10), "test_resnet": (96, 5, 5)}


@pytest.fixture(scope="module")
def specs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("encoders")
    files = {name: encoder_weights(name, folder / f"{name}.safetensors") for name in NAMES}
    return {name: f"timm/{name}@{file}" for name, file in files.items()}


def frozen(spec: str, size: int | None = None, pretrained: bool = True) -> FrozenSegregation:
    torch.manual_seed(5)
    return FrozenSegregation(**SIZES, encoder=spec, encoder_size=size, pretrained=pretrained)


@pytest.mark.parametrize("name", NAMES)
def test_features_are_those_of_the_model(name: str, specs: dict[str, str]) -> None:
    stage = frozen(specs[name]).train()
    torch.manual_seed(4)
    model = timm.create_model(name, pretrained=False).eval()
    side = model.pretrained_cfg["input_size"][-1]
    inputs = torch.nn.functional.interpolate(
        images(3), (side, side), mode="bilinear", antialias=True
    )
    mean, std = (torch.tensor(model.pretrained_cfg[k]).view(3, 1, 1) for k in ("mean", "std"))
    with torch.no_grad():
        expected = model.forward_features((inputs - mean) / std)
    if expected.ndim == 3:
        expected = expected[:, 1:].transpose(1, 2).unflatten(2, (10, 10))
    features = stage.encoder(images(3))
    assert features.shape[1:] == NAMES[name] and not features.requires_grad
    torch.testing.assert_close(features, expected)


@pytest.mark.parametrize(("name", "grid"), [("test_vit", (64, 7, 7)), ("test_resnet", (96, 4, 4))])
def test_the_encoder_sees_images_of_the_chosen_size(
    name: str, grid: tuple[int, ...], specs: dict[str, str]
) -> None:
    usual, other = frozen(specs[name]).encoder, frozen(specs[name], 112).encoder
    assert other.shape == grid and other(images(2)).shape == (2, *grid)
    # The same network: on an image without detail the features are about the same everywhere.
    flat = torch.full((1, 3, SIDE, SIDE), 0.4)
    means = [encoder(flat).mean(dim=(2, 3)) for encoder in (usual, other)]
    torch.testing.assert_close(*means, rtol=0.1, atol=0.1)
    assert torch.equal(usual.sha256, other.sha256)  # of the weights as they were stored


def test_a_size_of_no_whole_patches_is_refused(specs: dict[str, str]) -> None:
    with pytest.raises(SriError, match=r"\nmodel\.encoder_size=112$"):
        frozen(specs["test_vit"], 113)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the Hugging Face Hub, without a network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def test_weights_come_from_the_cache_of_the_hub(hub: Path) -> None:
    with pytest.raises(SriError, match=r"\n.*model\.encoder=timm/test_vit@FILE"):
        frozen("timm/test_vit")
    assert "test_vit" in (weights_to_download("timm/test_vit") or "")
    folder = hub / f"models--timm--{timm.get_pretrained_cfg('test_vit').hf_hub_id.split('/')[1]}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("abc")
    (folder / "snapshots" / "abc").mkdir(parents=True)
    stored = encoder_weights("test_vit", folder / "snapshots" / "abc" / "model.safetensors")
    assert weights_to_download("timm/test_vit") is None
    cached, local = frozen("timm/test_vit").encoder, frozen(f"timm/test_vit@{stored}").encoder
    assert torch.equal(cached.sha256, local.sha256)
    assert weights_to_download(f"timm/test_vit@{stored}") is None


def test_a_dry_run_downloads_nothing(hub: Path, tmp_path: Path) -> None:
    words = ["model.encoder=timm/test_vit", "size=tiny", "train.batch=2"]
    roots = ["--data-root", str(tmp_path), "--runs-root", str(tmp_path)]
    result = sri_json(*roots, "train", "sri-timm", "--dry-run", *words)
    assert "test_vit" in result["download"] and result["recipe"]["model"]["encoder_size"] == 112
    assert not hub.exists()


def test_without_timm_the_hint_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(SriError) as error:
        frozen("timm/test_vit")
    assert error.value.hint == pip_install("sri-cli[timm]")


def test_channels_come_first_whatever_the_model(tmp_path: Path) -> None:
    file = encoder_weights("test_mambaout", tmp_path / "mamba.safetensors")
    assert frozen(f"timm/test_mambaout@{file}").encoder.shape == (64, 5, 5)


@pytest.mark.parametrize(("name", "precision"), [("test_vit", "bf16"), ("test_resnet", "fp32")])
def test_training_moves_all_but_the_encoder(
    name: str, precision: str, specs: dict[str, str]
) -> None:
    model = small_sri(frozen(specs[name]))
    assert model.objective_names == ("imagination",)
    (encoder,) = model.segregate.encoder.hidden
    initial = {name: value.clone() for name, value in encoder.state_dict().items()}
    before = {name: value.clone() for name, value in model.named_parameters()}
    settings = load_recipe("sri-mog").train.model_copy(update={"lr": 1e-3})
    step = TrainStep(model, settings, mode=ExecutionMode(precision))
    errors = []
    for number in range(5):
        step((images(4) * 255).to(torch.uint8), noise_for(model, 4, number), number)
        errors.append(step.read_metrics()["error/imagination"])
    assert errors[-1] < errors[0]
    for key, value in encoder.state_dict().items():  # running statistics too
        assert torch.equal(value, initial[key]), key
    assert all(not torch.equal(value, before[key]) for key, value in model.named_parameters())


def test_pixels_are_normalised_in_float32_under_bf16(specs: dict[str, str]) -> None:
    stage = frozen(specs["test_vit"])
    seen: list[torch.dtype] = []
    stage.head[0].register_forward_pre_hook(lambda _, given: seen.append(given[0].dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        stage(images(2), draw_noise(stage.noise(), 2, 0, 0))
    assert seen == [torch.float32]


def test_attention_is_where_the_features_are(specs: dict[str, str]) -> None:
    stage = frozen(specs["test_resnet"])
    noise = draw_noise(stage.noise(), 1, 0, 0)
    image = torch.zeros(1, 3, SIDE, SIDE)
    image[..., :8, -8:] = 1
    masks = stage(image, noise).log_masks.exp()[0, :, 0]
    blank = stage(torch.zeros_like(image), noise).log_masks.exp()[0, :, 0]
    change = (masks - blank).abs().sum(dim=0)
    assert change[:8, -8:].mean() > 2 * change[-8:, :8].mean()


def test_it_compiles_as_one_graph(specs: dict[str, str]) -> None:
    model = small_sri(frozen(specs["test_vit"]))
    noise = noise_for(model)
    torch.compiler.reset()  # or graphs of other models count against a limit
    compiled = torch.compile(model, fullgraph=True, backend="eager")(images(), noise)
    for term, value in model(images(), noise).terms.items():
        torch.testing.assert_close(compiled.terms[term], value, rtol=1e-4, atol=1e-4)


def test_a_checkpoint_holds_the_hash_and_not_the_weights(
    specs: dict[str, str], tmp_path: Path
) -> None:
    weights = small_sri(frozen(specs["test_vit"])).state_dict()
    assert [name for name in weights if "encoder" in name] == ["segregate.encoder.sha256"]
    moved = encoder_weights("test_vit", tmp_path / "copy.pt")  # another format, the same weights
    small_sri(frozen(f"timm/test_vit@{moved}")).load_state_dict(weights)
    other = encoder_weights("test_vit", tmp_path / "other.pt", seed=9)
    with pytest.raises(SriError, match="SHA-256"):
        small_sri(frozen(f"timm/test_vit@{other}")).load_state_dict(weights)


def test_the_encoder_follows_its_model(specs: dict[str, str]) -> None:
    stage = frozen(specs["test_vit"]).to(torch.float64)
    (encoder,) = stage.encoder.hidden
    assert {p.dtype for p in encoder.parameters()} == {torch.float64}
    assert stage.encoder.sha256.dtype == torch.uint8
    moved = stage.to("meta")
    assert moved.encoder(images().to("meta", torch.float64)).device.type == "meta"


class NotWeights:
    """What weights_only=True refuses."""


def test_what_is_no_encoder_is_refused(tmp_path: Path) -> None:
    files = {name: tmp_path / name for name in ("object.pt", "text.safetensors", "other.pt")}
    torch.save({"weight": NotWeights()}, files["object.pt"])
    files["text.safetensors"].write_text("no weights")
    torch.save(nn.Linear(2, 2).state_dict(), files["other.pt"])
    small = tmp_path / "small.pt"
    weights = timm.create_model("test_vit", pretrained=False).state_dict()
    torch.save(weights | {"norm.weight": torch.ones(3)}, small)
    bad = ["mine.pt2", "timm/tset_vit", "timm/test_vit@missing.pt"]
    bad += [f"timm/test_vit@{file}" for file in (*files.values(), small)]
    for spec in bad:
        with pytest.raises(SriError) as error:
            frozen(spec)
        assert spec in error.value.message, spec


@pytest.mark.parametrize(("name", "size"), [("cait_xxs24_224", 112), ("crossvit_9_240", 240)])
def test_an_encoder_of_one_size_or_without_a_map_is_refused(name: str, size: int) -> None:
    with pytest.raises(SriError, match=rf"{name}.*\n.*model\.encoder_size=2"):
        frozen(f"timm/{name}", size, pretrained=False)
