"""A CUDA device without a GPU: nothing that a model or a training step needs stays on the host.

Fake tensors have a shape, a type and a device but no numbers, and an operation of tensors of two
devices raises. Scalars of the host pass there, so they are caught here: each would be a copy in
every step, and a CUDA graph would keep its first value. What fake tensors lack is replaced: the
backward pass wants a driver (it is run on the device "meta"), and NumPy wants numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sri_cli.data.loader import Batches, Prefetcher
from sri_cli.generation.edit import (
    decode_edits,
    draw_sources,
    exchange,
    infer_scene,
    reimagine,
    remove,
    repeat,
)
from sri_cli.generation.sample import sample_scenes
from sri_cli.generation.traverse import random_walk, walk_scenes
from sri_cli.models.build import build_model
from sri_cli.rng import draw_noise
from sri_cli.training.execution import ExecutionMode
from sri_cli.training.step import TrainStep
from tests.small_models import tiny_recipe

CUDA, BATCH = torch.device("cuda", 0), 2
SIZES = {"image_size": 32, "slot_size": 8}
SYSTEMS: dict[str, dict[str, Any]] = {
    "sri": {"system": "sri", "scene_size": 8},
    "sri-hungarian": {"system": "sri", "scene_size": 8, "order": "hungarian"},
    "sri-ablated": {"system": "sri", "scene": False, "alignment": False},
    "sri-sa": {"system": "sri", "scene_size": 8, "segregation": "slot-attention"},
    "sri-emorl": {"system": "sri", "scene_size": 8, "segregation": "emorl"},
    "genesis-v2": {"system": "genesis-v2"},
    "genesis-v2-scene": {"system": "genesis-v2", "scene": True, "scene_size": 8},
    "genesis": {"system": "genesis", "component_size": 4, "component_channels": 8},
    "emorl": {"system": "emorl", "refinements": 2, "std": 0.1},
    "slot-vae": {"system": "slot-vae", "scene_size": 8},
}
NUMBERS = np.random.default_rng(0)
# Moves between devices, which are meant.
MOVES = {"aten::_to_copy", "aten::copy_"}


def gru_cell(
    x: Tensor, hidden: Tensor, state: Tensor, x_bias: Tensor, hidden_bias: Tensor
) -> tuple[Tensor, Tensor]:
    """aten::_thnn_fused_gru_cell, in parts."""
    gates = (x + x_bias).chunk(3, dim=1), (hidden + hidden_bias).chunk(3, dim=1)
    reset, update = ((a + b).sigmoid() for a, b in zip(gates[0][:2], gates[1][:2], strict=True))
    candidate = (gates[0][2] + reset * gates[1][2]).tanh()
    return candidate + update * (state - candidate), torch.cat([x, hidden], dim=1)


WITHOUT_FAKE_KERNEL: dict[Any, Callable[..., Any]] = {
    torch.ops.aten._thnn_fused_gru_cell.default: gru_cell,
    torch.ops.aten._fused_adam_.tensor_lr: lambda *_, **__: None,
}


class HostTensors(TorchDispatchMode):
    """Raises where an operation mixes devices; `strict`: where it has a host tensor at all."""

    strict = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = WITHOUT_FAKE_KERNEL.get(func, func)(*args, **(kwargs or {}))
        devices = {
            value.device.type
            for value in tree_leaves((args, kwargs, result))
            if isinstance(value, Tensor)
        }
        if "cpu" in devices and (self.strict or len(devices) > 1 and func.name() not in MOVES):
            raise AssertionError(f"{func} has a tensor of the host")
        return result

    @contextmanager
    def strictly(self, strict: bool = True) -> Iterator[None]:
        self.strict = strict
        try:
            yield
        finally:
            self.strict = False


def move(module: nn.Module, *args: Any, memory_format: Any = None) -> nn.Module:
    """nn.Module.to, which cannot swap fake tensors."""
    if memory_format is not None:
        return module
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                moved = nn.Parameter(parameter.detach().to(*args))
                part._parameters[name] = moved.requires_grad_(parameter.requires_grad)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = buffer.to(*args)
    return module


def numbers(tensor: Tensor) -> Any:
    """For Tensor.numpy: any numbers from 0 to 1."""
    assert tensor.device.type == "cpu", "numpy() of a GPU tensor"
    drawn = NUMBERS.random(tuple(tensor.shape))
    return drawn.astype(str(tensor.dtype).removeprefix("torch."))


def zero_gradients(outputs: Any, inputs: Any, *_: Any, **__: Any) -> tuple[Tensor, ...]:
    """For torch.autograd.grad, inside the forward pass of EMORL."""
    return tuple(torch.zeros_like(tensor) for tensor in inputs)


def when_fake(usual: Callable[..., Any], instead: Callable[[Tensor], Any]) -> Callable[..., Any]:
    def choose(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
        if isinstance(tensor, FakeTensor):
            return instead(tensor)
        return usual(tensor, *args, **kwargs)

    return choose


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[HostTensors]:
    """A CUDA device of fake tensors."""
    replaced: dict[str, Any] = {
        "torch.nn.Module.to": move,
        "torch.autograd.grad": zero_gradients,
        "torch.Tensor.numpy": when_fake(Tensor.numpy, numbers),
        "torch.Tensor.tolist": when_fake(
            Tensor.tolist, lambda tensor: numbers(tensor.cpu()).tolist()
        ),
        "torch.Tensor.__bool__": when_fake(Tensor.__bool__, lambda tensor: True),
        "torch.Tensor.__int__": when_fake(Tensor.__int__, lambda tensor: 0),
        "torch.Tensor.pin_memory": lambda tensor: tensor,
        "torch.cuda.amp.common.amp_definitely_not_available": lambda: False,
        "torch.cuda.is_bf16_supported": lambda **_: True,
    }
    for name, value in replaced.items():
        monkeypatch.setattr(name, value)
    with FakeTensorMode(allow_non_fake_inputs=True), HostTensors() as hosts:
        yield hosts


def noise_of(model: Any, device: torch.device = CUDA) -> dict[str, Tensor]:
    noise = draw_noise(model.training_noise(), BATCH, 0, 0)
    return {name: value.to(device) for name, value in noise.items()}


def test_tensors_of_the_host_are_noticed(fake: HostTensors) -> None:
    ours, scalar = torch.ones(2, device=CUDA), torch.tensor(2.0)
    with pytest.raises(AssertionError, match="host"):
        ours * scalar
    assert (ours * scalar.to(CUDA)).device == CUDA  # a move is meant
    with pytest.raises(AssertionError, match="host"), fake.strictly():
        scalar.to(CUDA)  # and not in a step


@pytest.mark.parametrize(
    ("slots", "precision"),
    [
        (3, "bf16"),
        pytest.param(3, "fp32", marks=pytest.mark.slow),  # the same operations, without casts
        # Each slot more is a few hundred operations more, at 0.2 ms each.
        pytest.param(14, "bf16", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("name", SYSTEMS)
def test_models_stay_on_the_device(
    fake: HostTensors, name: str, slots: int, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sri_cli.generation.sample.choose_precision", lambda *_: precision)
    model = build_model(**SIZES, **SYSTEMS[name], slots=slots).to(CUDA)
    noise, images = noise_of(model), torch.zeros(BATCH, 3, 32, 32, device=CUDA)
    autocast = torch.autocast("cuda", torch.bfloat16, enabled=precision == "bf16")
    with fake.strictly(not model.matches_on_host), autocast:
        losses = model(images, noise)
        model.eval()
        seen = model.reconstruct(images, noise)
    made = [o.error for o in losses.objectives] + [o.kl for o in losses.objectives]
    made += [*losses.terms.values(), seen.scene.image, seen.attention]
    scenes = [*sample_scenes(model, 2, slots)]
    for slot in (None, slots - 1):
        scenes += walk_scenes(model, random_walk(model, 0, 1, slots, 2, slot))
    made += [scene.image for scene in scenes]
    assert {value.device for value in made} == {CUDA}
    first, second = draw_sources(model, 0, 2, slots, 0.7)
    own = infer_scene(model, np.zeros((32, 32, 3), np.uint8), "image", 0)
    rows = [*remove([own], [(0,)]), *repeat([own, first], [(1,)])]
    rows += [*exchange([(own, second)], [(0, 1)]), *reimagine(model, [own], [1], 2, 1.0, 0)]
    edited, masks = decode_edits(model, [edit for row in rows for edit in row.after], slots)
    assert edited.shape == (len(masks), 32, 32, 3)


@pytest.mark.parametrize("precision", [pytest.param("fp32", marks=pytest.mark.slow), "bf16"])
@pytest.mark.parametrize("name", ["sri", "sri-emorl", "genesis"])
def test_what_a_step_builds_is_on_the_device(
    fake: HostTensors, name: str, precision: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tiny_recipe(batch=BATCH, clip_grad=1.0).train
    model = build_model(**SIZES, **SYSTEMS[name], slots=3)
    step = TrainStep(model, settings, CUDA, ExecutionMode(precision))
    stored = np.zeros((4, 32, 32, 3), np.uint8)
    batches = Batches(stored, BATCH, 0, CUDA, storage="device")
    feed = Prefetcher(batches.at, model.training_noise(), BATCH, 0, CUDA)
    images, noise = feed._make(0)
    assert {value.device for value in (images, *noise.values())} == {CUDA}

    def backward(loss: Tensor) -> None:
        assert loss.device == CUDA
        for parameter in step.params:
            parameter.grad = torch.zeros_like(parameter)

    monkeypatch.setattr(Tensor, "backward", backward)
    for number in range(2):
        with fake.strictly():
            step(images, noise, number)
    adam = [value for one in step.optimiser.state.values() for value in one.values()]
    assert len(adam) == 3 * len(step.params)
    own = [*model.parameters(), *model.buffers(), *step.gecos.buffers(), *step.changing, step.lr]
    state = [value for value in tree_leaves(step.state()) if isinstance(value, Tensor)]
    assert {value.device for value in (*adam, *own, *state)} == {CUDA}


@pytest.mark.parametrize("name", sorted(SYSTEMS.keys() - {"sri-hungarian"}))
def test_the_backward_pass_stays_on_the_device(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the device "meta", which has a backward pass and no autocast."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    meta = torch.device("meta")
    model = build_model(**SIZES, **SYSTEMS[name], slots=3).to(meta)
    noise, images = noise_of(model, meta), torch.zeros(BATCH, 3, 32, 32, device=meta)
    with HostTensors() as hosts, hosts.strictly():
        losses = model(images, noise)
        sum((o.error + o.kl).mean() for o in losses.objectives).backward()
