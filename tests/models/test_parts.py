"""Parts of the models against closed forms; the switches of a recipe and initial weights."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sri_cli.config.load import load_recipe
from sri_cli.models import distributions as gaussians
from sri_cli.models.base import Scene
from sri_cli.models.build import build_model
from sri_cli.models.compiled import kernels
from sri_cli.models.decoders import BigDecoder, BroadcastDecoder, IodineDecoder
from sri_cli.models.genesis import Gated
from sri_cli.models.genesis_v2 import InstanceColouring, UNet, initial_log_sigma
from sri_cli.models.kernels import (
    ConvTranspose2d,
    Elu,
    GroupNormRelu,
    broadcast_elu,
    broadcast_sum,
    norm_head,
)
from sri_cli.models.likelihood import ImageLikelihood
from tests.small_models import lively


def test_deviations_are_those_of_the_papers() -> None:
    u = torch.tensor([-3.0, 0.0, 2.0, 200.0])
    expected = [math.sqrt(math.log1p(math.exp(min(x, 80.0))) + 1e-5) for x in u.tolist()]
    torch.testing.assert_close(gaussians.sqrt_softplus(u), torch.tensor(expected))
    assert gaussians.shifted_softplus(torch.tensor(0.0)).item() == pytest.approx(
        math.log1p(math.exp(0.5)), rel=1e-6
    )
    prior = gaussians.squashed_prior(torch.tensor([0.5, 0.0]))
    assert prior.mean.item() == pytest.approx(math.tanh(0.5))
    assert prior.std.item() == pytest.approx(1 / (1 + math.exp(-4)) + 1e-4)


@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("kind", ["mog", "gaussian"])
def test_likelihoods_by_hand(kind: str, normalised: bool) -> None:
    """One pixel pair, two slots: every sum written out."""
    rgb = torch.tensor([0.2, 0.9]).view(1, 2, 1, 1, 1).expand(1, 2, 3, 1, 1)
    masks = torch.tensor([0.25, 0.75]).view(1, 2, 1, 1, 1)
    image, std = 0.4, 0.3
    constant = 0.5 * math.log(2 * math.pi) if normalised else 0.0
    if kind == "gaussian":
        blend = 0.25 * 0.2 + 0.75 * 0.9
        one = math.log(std) + (image - blend) ** 2 / (2 * std**2) + constant
    else:
        parts = zip((0.25, 0.75), (0.2, 0.9), strict=True)
        density = sum(m * math.exp(-((image - c) ** 2) / (2 * std**2)) / std for m, c in parts)
        one = -math.log(density) + constant
    nll = ImageLikelihood(kind, std, normalised).nll(
        torch.full((1, 3, 1, 1), image), Scene(rgb, masks.log())
    )
    assert nll.item() == pytest.approx(3 * one, rel=1e-5)


@pytest.mark.parametrize("kernel", ["gaussian", "laplacian", "epanechnikov"])
def test_every_kernel_gives_masks_that_sum_to_one_and_finite_gradients(kernel: str) -> None:
    colouring = InstanceColouring(features=8, slots=5, image_size=16, kernel=kernel)
    colouring.gate.data.fill_(1.0)
    features = (0.1 * torch.randn(3, 8, 16, 16)).requires_grad_()  # within the kernels' reach
    log_masks, _ = colouring(features, torch.rand(3, 1, 16, 16))
    assert log_masks.shape == (3, 5, 1, 16, 16)
    torch.testing.assert_close(log_masks.exp().sum(dim=1), torch.ones(3, 1, 16, 16))
    log_masks[:, 0].sum().backward()
    assert features.grad.isfinite().all() and features.grad.abs().sum() > 0


@pytest.mark.parametrize(("size", "blocks"), [(32, 4), (64, 5), (96, 5), (128, 6)])
def test_unet_keeps_the_size_at_every_image_size(size: int, blocks: int) -> None:
    net = UNet(size, 8)
    assert len(net.down) == len(net.up) == blocks
    assert net(torch.rand(1, 3, size, size)).shape == (1, 8, size, size)


def test_features_are_laid_out_as_kernels_take_them() -> None:
    """Also with weights that are not, as of a run that is opened."""
    images = torch.rand(2, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    assert UNet(32, 8)(images).is_contiguous(memory_format=torch.channels_last)


def gradients(layer: nn.Module, x: torch.Tensor, grad: torch.Tensor) -> list[torch.Tensor]:
    """The output of a layer, and its gradients of the input and all parameters."""
    x = x.clone().requires_grad_()
    y = layer(x)
    return [y, *torch.autograd.grad(y, [x, *layer.parameters()], grad)]


def test_without_a_home_folder_torch_does_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> Path:  # of a user whom the system does not know
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", unknown)
    assert kernels.__wrapped__() is None


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("compiler", [True, False])
def test_group_norm_and_relu_are_those_of_torch(
    monkeypatch: pytest.MonkeyPatch, compiler: bool, precision: torch.dtype
) -> None:
    compiled = kernels()
    if compiler and compiled is None:
        pytest.skip("no C++ compiler")
    monkeypatch.setattr("sri_cli.models.kernels.kernels", lambda: compiled if compiler else None)
    ours = GroupNormRelu(8, 40)
    ours.weight.data.uniform_(-0.5, 1.5)
    ours.bias.data.normal_()
    native = nn.Sequential(nn.GroupNorm(8, 40), nn.ReLU())
    native[0].load_state_dict(ours.state_dict())
    x = (torch.randn(4, 40, 9, 7) + 0.5).to(precision).contiguous(memory_format=torch.channels_last)
    grad = torch.randn(4, 40, 9, 7).to(precision)
    theirs = gradients(native.double(), x.double(), grad.double())
    results = gradients(ours, x, grad)
    for a, b in zip(results, theirs, strict=True):
        assert (a - b).norm() < (0.005 if precision == torch.bfloat16 else 1e-6) * b.norm()
    assert results[0].dtype == precision
    with torch.no_grad():
        assert torch.equal(ours(x), results[0])
        assert ours(x * torch.nan).isnan().all()  # a step that is not finite must be seen


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_elu_is_that_of_torch(precision: torch.dtype) -> None:
    x = (4 * torch.randn(3, 8, 9, 7)).to(precision).contiguous(memory_format=torch.channels_last)
    x[0] *= 1e-4
    grad = torch.randn_like(x)
    theirs = gradients(nn.ELU(), x.double(), grad.double())
    results = gradients(nn.Sequential(nn.Identity(), Elu()), x, grad)
    tolerance = 0.005 if precision == torch.bfloat16 else 1e-6
    for a, b in zip(results, theirs, strict=True):
        assert (a - b).norm() < tolerance * b.norm()
        assert (a[0] - b[0]).norm() < tolerance * b[0].norm()
    x[:] = torch.tensor([torch.nan, torch.inf, -torch.inf, 0]).repeat(2).view(-1, 1, 1)
    assert Elu()(x)[0, :4, 0, 0].nan_to_num(5, 4).tolist() == [5, 4, -1, 0]


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_fused_ends_of_decoders_are_those_of_torch(
    monkeypatch: pytest.MonkeyPatch, precision: torch.dtype
) -> None:
    class Broadcast(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.positions = nn.Parameter(torch.randn(1, 32, 9, 8).to(precision))

        def forward(self, slots: torch.Tensor) -> torch.Tensor:
            return broadcast_elu(slots, self.positions)

    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.head = GroupNormRelu(8, 32), nn.Conv2d(32, 4, 1)
            self.norm.bias.data.normal_()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return norm_head(x, self.norm, self.head)

    image = torch.randn(5, 32, 9, 8).contiguous(memory_format=torch.channels_last) + 0.5
    compiled = kernels()
    if compiled is None:
        pytest.skip("no C++ compiler")
    for module, x in ((Broadcast(), torch.randn(5, 32)), (Head(), image)):
        x, exact = x.to(precision), copy.deepcopy(module).double()
        monkeypatch.setattr("sri_cli.models.kernels.kernels", lambda: compiled)
        grad = torch.randn_like(module(x))
        results = gradients(module, x, grad)
        monkeypatch.setattr("sri_cli.models.kernels.kernels", lambda: None)
        expected = gradients(exact, x.double(), grad.double())
        for a, b in zip(results, expected, strict=True):
            assert (a - b).norm() < (0.005 if precision == torch.bfloat16 else 1e-6) * b.norm()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_gated_batch_norms_are_those_of_torch(
    monkeypatch: pytest.MonkeyPatch, precision: torch.dtype, training: bool
) -> None:
    ours = Gated(nn.Conv2d(3, 48, 1)).train(training)
    ours.conv = nn.Identity()
    for name, value in ours.named_parameters():
        value.data.uniform_(0.5, 1.5) if name.endswith("weight") else value.data.normal_()
    theirs = copy.deepcopy(ours).double()
    x = torch.randn(6, 48, 9, 7) + torch.linspace(-20, 20, 48).view(-1, 1, 1)
    x = x.to(precision).contiguous(memory_format=torch.channels_last)
    grad = torch.randn(6, 24, 9, 7).to(precision)
    if not training:
        with torch.no_grad():
            results = [ours(x)]
            monkeypatch.setattr("sri_cli.models.kernels.kernels", lambda: None)
            expected = [theirs(x.double())]
    else:
        results = gradients(ours, x, grad)
        monkeypatch.setattr("sri_cli.models.kernels.kernels", lambda: None)
        expected = gradients(theirs, x.double(), grad.double())
    statistics = zip(ours.buffers(), theirs.buffers(), strict=True)
    for a, b in [*zip(results, expected, strict=True), *statistics]:
        apart = (a.double() - b.double()).norm()
        assert apart <= (0.01 if precision == torch.bfloat16 else 1e-5) * b.double().norm()


def test_kernels_are_compiled_once_and_not_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kernels() is None:
        pytest.skip("no C++ compiler")

    def load(cache: str) -> Any:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / cache))
        return kernels.__wrapped__()

    monkeypatch.setattr("sri_cli.models.compiled.FLAGS", ["-O0", "-fopenmp"])  # in no time
    assert load("one").seconds > 0 and load("one").seconds == 0
    (made,) = (tmp_path / "one/sri").iterdir()
    damaged = tmp_path / "two/sri" / made.name
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(b"cut off")
    assert load("two").seconds > 0
    monkeypatch.setenv("CXX", "false")
    assert load("three") is None
    assert list((tmp_path / "three/sri").iterdir()) == []


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_transposed_convolutions_are_those_of_torch(precision: torch.dtype) -> None:
    ours = ConvTranspose2d(6, 8, 5, stride=2, padding=2, output_padding=1)
    native = nn.ConvTranspose2d(6, 8, 5, stride=2, padding=2, output_padding=1)
    native.load_state_dict(ours.state_dict())
    x, grad = torch.randn(3, 6, 5, 4), torch.randn(3, 8, 10, 8)
    theirs = gradients(native.double(), x.double(), grad.double())
    with torch.autocast("cpu", enabled=precision == torch.bfloat16):
        results = gradients(ours, x, grad.to(precision))
    assert results[0].dtype == precision
    for a, b in zip(results, theirs, strict=True):
        assert (a - b).norm() < (0.01 if precision == torch.bfloat16 else 1e-6) * b.norm()


@pytest.mark.parametrize("kind", ["broadcast", "big"])
def test_the_first_layer_of_a_decoder_is_the_convolution_of_the_broadcast_slots(kind: str) -> None:
    decoder: Any = lively(BroadcastDecoder(48, 8, 16) if kind == "broadcast" else BigDecoder(48, 8))
    slots = torch.randn(6, 8)
    broadcast = slots[:, :, None, None].expand(-1, -1, 3, 3)
    if kind == "broadcast":
        plain = decoder.layers(torch.cat([broadcast, decoder.grid.expand(6, -1, -1, -1)], dim=1))
    else:
        plain = decoder.convolutions(broadcast + decoder.positions())
    torch.testing.assert_close(decoder.decode(slots), plain, rtol=1e-4, atol=1e-4)


def test_a_sum_of_slots_and_positions_has_the_gradients_of_torch() -> None:
    parts = [torch.randn(shape, requires_grad=True) for shape in ((5, 6), (1, 6, 4, 3))]
    grad = torch.randn(5, 6, 4, 3)
    ours = torch.autograd.grad(broadcast_sum(*parts), parts, grad)
    theirs = torch.autograd.grad(parts[0][:, :, None, None] + parts[1], parts, grad)
    torch.testing.assert_close(ours, theirs)


def test_the_mixture_has_the_gradient_of_its_formula() -> None:
    parts = torch.rand(2, 3, 4, 4), torch.rand(2, 5, 3, 4, 4), torch.randn(2, 5, 1, 4, 4)

    def nll(images: torch.Tensor, rgb: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        return ImageLikelihood("mog", 0.3, True).nll(images, Scene(rgb, logits.log_softmax(1)))

    assert torch.autograd.gradcheck(nll, [part.double().requires_grad_() for part in parts])


def test_second_derivatives_through_kernels_are_refused() -> None:
    if kernels() is None:
        pytest.skip("no C++ compiler")
    layer = nn.Sequential(nn.Conv2d(3, 16, 1), GroupNormRelu(4, 16))
    x = torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last).requires_grad_()
    (slope,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError):
        slope.square().sum().backward()


KERNELS = ("gaussian", "laplacian", "epanechnikov")


def made(name: str, *words: str) -> Any:
    torch.manual_seed(0)
    return build_model(**load_recipe(name, None, words).model.model_dump())


def test_sri_decodes_as_its_segregation_does() -> None:
    for name, words, kind in [
        ("sri-mog", [], BroadcastDecoder),
        ("sri-sa", [], BroadcastDecoder),
        ("sri-emorl", ["model.decoder=null"], IodineDecoder),
        ("sri-emorl", ["model.decoder=big"], BigDecoder),
    ]:
        model = made(name, *words)
        assert isinstance(model.decoder, kind), name
        own = getattr(model.segregate, "decoder", model.decoder)
        assert isinstance(own, kind) and (own is model.decoder) == (name == "sri-sa")


def small_init(module: nn.Module) -> bool:
    """Whether a layer is Xavier normal with gain 0.02 and without a bias."""
    fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(module.weight)
    expected = 0.02 * math.sqrt(2 / (fan_in + fan_out))
    near = abs(float(module.weight.detach().std()) / expected - 1) < 0.2
    return near and (module.bias is None or not module.bias.any())


def layers(*parts: nn.Module) -> list[nn.Module]:
    kinds = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)
    return [layer for part in parts for layer in part.modules() if isinstance(layer, kinds)]


def test_sri_starts_small_and_what_is_around_it_does_not() -> None:
    model = made("sri-mog")
    for layer in layers(model.relate, model.prior, model.posterior):
        assert small_init(layer), layer
    for layer in layers(model.segregate, model.decoder):
        assert not small_init(layer), layer


@pytest.mark.parametrize("decoder", ["iodine", "big"])
def test_emorl_starts_small_but_for_its_recurrent_cells_and_position_codes(decoder: str) -> None:
    stage = made("emorl", f"model.decoder={decoder}").segregate
    small = [stage.encoder.convolutions, stage.encoder.head, stage.layer, stage.prior]
    small += [stage.refine, stage.decoder]
    assert all(small_init(layer) for layer in layers(*small))
    assert not small_init(stage.encoder.position)
    bound = 64**-0.5
    for cell in (stage.layer.gru, stage.refine.cell):
        for parameter in cell.parameters():
            assert float(parameter.detach().std()) == pytest.approx(bound / math.sqrt(3), rel=0.2)


def test_kernels_are_as_wide_as_equal_segments() -> None:
    """At 1/K of the squared range an affinity of one half; the published starts."""
    for slots in (4, 9):
        widths = {kind: math.exp(initial_log_sigma(kind, slots)) for kind in KERNELS}
        assert math.exp(-1 / slots / widths["gaussian"]) == pytest.approx(0.5)
        assert math.exp(-math.sqrt(1 / slots) / widths["laplacian"]) == pytest.approx(0.5)
        assert 1 - 1 / slots / widths["epanechnikov"] == pytest.approx(0.5)
