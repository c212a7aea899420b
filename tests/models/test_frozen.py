"""A frozen encoder from a file: how one is made and used, and what is refused."""

from __future__ import annotations

import io
import json
import shutil
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sri_cli.config.load import load_recipe
from sri_cli.data.dataset import DataFile
from sri_cli.errors import SriError
from sri_cli.generation.sample import sample_noise
from sri_cli.generation.trained_run import load_run
from sri_cli.models.exported import CannotRun, Program
from sri_cli.models.exported_calls import function
from sri_cli.models.pretrained_encoder import FrozenSegregation
from sri_cli.rng import draw_noise
from sri_cli.training.execution import ExecutionMode
from sri_cli.training.step import TrainStep
from sri_cli.training.step_timing import CallCounter
from sri_cli.training.trainer import train
from tests.small_models import SIDE, SIZES, SLOTS, images, noise_for, small_sri

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


class Patches(nn.Module):
    """As pretrained transformers are: colours of their own, patches, attention, a map again."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, stride=4)
        self.place = nn.Parameter(torch.randn(1, 64, 16))
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, activation="gelu")
        self.register_buffer("mean", torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        grid = self.patches((images - self.mean) / torch.tensor(0.25, device=images.device))
        tokens = self.layer(grid.flatten(2).transpose(1, 2) + self.place)
        return tokens.transpose(1, 2).reshape(grid.shape)


def convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 12, 3, stride=2, padding=1),
        nn.GELU(),
    )


def export(module: nn.Module, path: Path, batch: Any = None) -> Path:
    """The way that CONTRIBUTING.md shows."""
    sizes = ({0: batch or torch.export.Dim("batch")},)
    program = torch.export.export(module, (torch.rand(2, 3, SIDE, SIDE),), dynamic_shapes=sizes)
    torch.export.save(program, path)
    return path


@pytest.fixture(scope="module")
def modules() -> dict[str, nn.Module]:
    torch.manual_seed(4)
    return {"convolutions": convolutions().eval(), "patches": Patches().eval()}


@pytest.fixture(scope="module")
def files(modules, tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("encoders")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {name: export(module, folder / f"{name}.pt2") for name, module in modules.items()}


def frozen(file: Path) -> FrozenSegregation:
    torch.manual_seed(5)
    return FrozenSegregation(**SIZES, encoder=file)


@pytest.mark.parametrize("name", ["convolutions", "patches"])
def test_the_file_computes_what_the_module_does(name: str, modules, files) -> None:
    stage = frozen(files[name])
    for count in (1, 5):
        features = stage.encoder(images(count))
        torch.testing.assert_close(features, modules[name](images(count)))
        assert not features.requires_grad


def test_a_run_finds_its_encoder_from_another_folder(
    files,
    tmp_path: Path,
    write_small_data: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = DataFile(write_small_data(tmp_path / "towers-32.h5"))
    words = ["model.segregation=frozen", "size=tiny", "model.slot_size=8", "train.batch=2"]

    def run(encoder: str, steps: int) -> None:
        more = [f"model.encoder={encoder}", f"train.steps={steps}"]
        train(load_recipe("sri-mog", None, [*words, *more]), data, tmp_path / "run")

    shutil.copy(files["convolutions"], tmp_path / "encoder.pt2")
    monkeypatch.chdir(tmp_path)
    run("encoder.pt2", 1)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert load_run(tmp_path / "run").step == 1
    run(str(files["convolutions"]), 2)  # the same file in another place
    assert load_run(tmp_path / "run").step == 2
    kept = (tmp_path / "run" / "recipe.yaml").read_text()
    with pytest.raises(SriError, match="is not the file that this model was trained with"):
        run(str(files["patches"]), 3)
    assert (tmp_path / "run" / "recipe.yaml").read_text() == kept


@pytest.mark.parametrize(
    ("name", "precision"), [("convolutions", "fp32"), ("convolutions", "bf16"), ("patches", "bf16")]
)
def test_sri_trains_on_a_frozen_encoder(name: str, precision: str, files) -> None:
    """The worked example: a few steps, and only what stands behind the encoder has moved."""
    model = small_sri(frozen(files[name]))
    kept = {name: value.clone() for name, value in model.segregate.encoder.program.tensors.items()}
    before = {name: value.clone() for name, value in model.named_parameters()}
    settings = load_recipe("sri-mog").train.model_copy(update={"lr": 1e-3})
    step = TrainStep(model, settings, mode=ExecutionMode(precision))
    errors = []
    for number in range(5):
        step((images(4) * 255).to(torch.uint8), noise_for(model, 4, number), number)
        errors.append(step.read_metrics()["error/imagination"])
    assert errors[-1] < errors[0]
    assert model.objective_names == ("imagination",)
    for name, value in model.segregate.encoder.program.tensors.items():
        assert torch.equal(value, kept[name]) and not value.requires_grad, name
    assert all(not torch.equal(value, before[name]) for name, value in model.named_parameters())


def test_its_slots_are_matched_and_its_masks_fill_the_image(files) -> None:
    model = small_sri(frozen(files["patches"])).eval()
    noise = noise_for(model)
    with CallCounter() as counter:
        seen = model.reconstruct(images(), noise)
    assert counter.host_reads == 0
    assert seen.attention.shape == (2, SLOTS, 1, SIDE, SIDE)
    torch.testing.assert_close(seen.attention.sum(dim=1), torch.ones(2, 1, SIDE, SIDE))
    assert (seen.order.sort(dim=1).values == torch.arange(SLOTS)).all()
    for slots in (3, 9, 14):
        assert model.sample(sample_noise(model, 0, 0, 2, slots)).rgb.shape[1] == slots


def test_attention_lies_where_the_features_are(files) -> None:
    stage = frozen(files["convolutions"])
    noise = draw_noise(stage.noise(), 1, 0, 0)
    picture = torch.zeros(1, 3, SIDE, SIDE)
    picture[..., :8, -8:] = 1
    masks = stage(picture, noise).log_masks.exp()[0, :, 0]
    blank = stage(torch.zeros_like(picture), noise).log_masks.exp()[0, :, 0]
    change = (masks - blank).abs().sum(dim=0)
    assert change[:8, -8:].mean() > 2 * change[-8:, :8].mean()


@pytest.mark.parametrize("name", ["convolutions", "patches"])
def test_it_compiles_as_one_graph(name: str, files) -> None:
    model = small_sri(frozen(files[name]))
    noise = noise_for(model)
    torch.compiler.reset()  # or graphs of other models count against a limit
    compiled = torch.compile(model, fullgraph=True, backend="eager")(images(), noise)
    for term, value in model(images(), noise).terms.items():
        torch.testing.assert_close(compiled.terms[term], value, rtol=1e-4, atol=1e-4)


def test_a_checkpoint_holds_the_hash_and_not_the_weights(files, tmp_path: Path) -> None:
    model = small_sri(frozen(files["convolutions"]))
    weights = model.state_dict()
    assert [name for name in weights if "encoder" in name] == ["segregate.encoder.sha256"]
    small_sri(frozen(files["convolutions"])).load_state_dict(weights)
    other = export(convolutions().eval(), tmp_path / "other.pt2")
    with pytest.raises(SriError, match="not the file that this model was trained with"):
        small_sri(frozen(other)).load_state_dict(weights)


def test_a_view_runs_on_a_device_with_another_memory_layout() -> None:
    turned = torch.arange(6).unflatten(0, (2, 3)).t()
    with pytest.raises(RuntimeError, match="not compatible"):
        turned.view(6)
    assert function("torch.ops.aten.view.default")(turned, [6]).tolist() == [0, 3, 1, 4, 2, 5]


def test_the_program_follows_its_model(files) -> None:
    stage = frozen(files["patches"]).to(torch.float64)
    assert {t.dtype for t in stage.encoder.program.tensors.values() if t.is_floating_point()} == {
        torch.float64
    }
    assert stage.encoder.sha256.dtype == torch.uint8
    assert stage.encoder(images().double()).isfinite().all()
    moved = stage.to("meta")
    assert moved.encoder(images().to("meta", torch.float64)).device.type == "meta"


@pytest.mark.parametrize(
    ("module", "batch", "complaint"),
    [
        (lambda: convolutions().train(), None, "training mode"),
        (lambda: nn.Sequential(convolutions().eval(), nn.Dropout(0.5).train()), None, "training"),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()).eval(), None, "not \\[3,C,h,w\\]"),
        (lambda: FixedBatch(), 2, "another number of images"),
    ],
)
def test_an_encoder_that_cannot_serve_is_refused(
    module: Callable[[], nn.Module], batch: Any, complaint: str, tmp_path: Path
) -> None:
    path = tmp_path / "encoder.pt2"
    example = (torch.rand(2, 3, SIDE, SIDE),)
    sizes = ({0: torch.export.Dim("batch")},) if batch is None else None
    torch.export.save(torch.export.export(module(), example, dynamic_shapes=sizes), path)
    with pytest.raises(SriError, match=complaint):
        frozen(path)


class FixedBatch(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.reshape(2, 12, SIDE // 2, SIDE // 2)


def altered(file: Path, change: Callable[[dict[str, bytes]], None]) -> bytes:
    """The archive with members changed; names below the top folder."""
    with zipfile.ZipFile(file) as archive:
        top = archive.namelist()[0].split("/")[0]
        members = {n.removeprefix(f"{top}/"): archive.read(n) for n in archive.namelist()}
    change(members)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(f"{top}/{name}", data)
    return buffer.getvalue()


def in_json(member: str, change: Callable[[Any], None]) -> Callable[[dict[str, bytes]], None]:
    def apply(members: dict[str, bytes]) -> None:
        content = json.loads(members[member])
        change(content)
        members[member] = json.dumps(content).encode()

    return apply


def nodes(model: Any) -> Any:
    return model["graph_module"]["graph"]["nodes"]


def call(target: str, kind: str, content: Any) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        argument = {"name": "x", "arg": {kind: content}, "kind": 1}
        nodes(model)[0].update(target=target, inputs=[argument])

    return change


HOSTILE = {
    "pickled weight": in_json(
        "data/weights/model_weights_config.json",
        lambda found: found["config"]["0.weight"].update(use_pickle=True),
    ),
    "a shell": in_json("models/model.json", call("torch.os.system", "as_int", 1)),
    "a class": in_json("models/model.json", call("torch.ops.aten.__class__.mro", "as_int", 1)),
    "a file mapped": in_json(
        "models/model.json", call("torch.ops.aten.from_file.default", "as_string", "none")
    ),
    "an operator beyond arithmetic": in_json(
        "models/model.json", call("_operator.methodcaller", "as_string", "none")
    ),
    "a string": in_json(
        "models/model.json", call("torch.ops.aten.gelu.default", "as_string", "/etc/passwd")
    ),
    "another format": in_json(
        "models/model.json", lambda model: model["schema_version"].update(major=9)
    ),
    "a weight beyond its bytes": in_json(
        "data/weights/model_weights_config.json",
        lambda found: found["config"]["0.weight"]["tensor_meta"].update(
            strides=[{"as_int": 10**6}] * 4
        ),
    ),
    "weights missing": lambda members: members.pop("data/weights/weight_0"),
    "a graph of nonsense": in_json(
        "models/model.json", lambda model: model["graph_module"].update(graph=[])
    ),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_file_is_never_trusted(what: str, files, tmp_path: Path) -> None:
    data = altered(files["convolutions"], HOSTILE[what])
    with pytest.raises(CannotRun):
        Program(data)
    path = tmp_path / "encoder.pt2"
    path.write_bytes(data)
    with pytest.raises(SriError, match=r"encoder .*encoder\.pt2"):
        frozen(path)


def test_expressions_and_pickles_that_are_not_needed_are_not_read(files) -> None:
    """Of what torch.export.load would evaluate or unpickle nothing counts here."""

    def poison(members: dict[str, bytes]) -> None:
        members["data/sample_inputs/model.pt"] = b"cos\nsystem\n(S'touch owned'\ntR."
        model = json.loads(members["models/model.json"])
        for value in model["graph_module"]["graph"]["sym_int_values"].values():
            value["as_expr"]["expr_str"] = "__import__('os').system('touch owned')"
        model["guards_code"] = ["__import__('os').system('touch owned')"]
        members["models/model.json"] = json.dumps(model).encode()

    program = Program(altered(files["patches"], poison))
    assert torch.equal(program(images()), Program(files["patches"].read_bytes())(images()))
    assert not Path("owned").exists()


@pytest.mark.parametrize("data", [b"", b"PK", b"\x80\x04K\x01.", None])
def test_what_is_no_program_or_not_there_is_told(data: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "encoder.pt2"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(SriError, match="encoder") as told:
        frozen(path)
    assert "torch.export.save" in told.value.hint
