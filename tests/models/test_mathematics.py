"""The parts of the models against closed forms and against what the paper says must hold."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Independent, Normal
from torch.distributions import kl_divergence as reference_kl

from sri_cli.models import distributions as gaussians
from sri_cli.models.base import Scene
from sri_cli.models.distributions import Gaussian
from sri_cli.models.genesis_v2 import InstanceColouring, UNet
from sri_cli.models.layers import GroupNorm, Lstm
from sri_cli.models.likelihood import ImageLikelihood
from sri_cli.models.scene_encoder import SceneEncoder


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(3)


def gaussian(*shape: int) -> Gaussian:
    return Gaussian(torch.randn(shape), torch.rand(shape) + 0.2)


def reference(g: Gaussian) -> Independent:
    return Independent(Normal(g.mean, g.std), 1)


def test_densities_and_divergences_agree_with_torch_distributions() -> None:
    q, p, value = gaussian(5, 3, 7), gaussian(5, 3, 7), torch.randn(5, 3, 7)
    standard = gaussians.standard_like(value)
    close = torch.testing.assert_close
    close(q.log_prob(value), reference(q).log_prob(value))
    close(gaussians.log_prob_standard(value), reference(standard).log_prob(value))
    close(gaussians.kl_divergence(q, p), reference_kl(reference(q), reference(p)))
    close(gaussians.kl_to_standard(q), reference_kl(reference(q), reference(standard)))


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
    nll = ImageLikelihood(kind, std, normalised).nll(  # type: ignore[arg-type]
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
    assert features.grad is not None and features.grad.isfinite().all()
    assert features.grad.abs().sum() > 0


def test_first_mask_is_one_at_its_seed_and_clamped_there() -> None:
    colouring = InstanceColouring(features=8, slots=3, image_size=16, kernel="gaussian")
    rand_pixel = torch.rand(2, 1, 16, 16) * 0.5
    rand_pixel[:, 0, 4, 9] = 1.0
    masks = colouring(torch.randn(2, 8, 16, 16), rand_pixel)[0].exp()
    assert torch.allclose(masks[:, 0, 0, 4, 9], torch.tensor(0.99))
    assert (masks[:, 0].flatten(1).argmax(dim=1) == 4 * 16 + 9).all()


@pytest.mark.parametrize(("size", "blocks"), [(32, 4), (64, 5), (96, 5), (128, 6)])
def test_unet_keeps_the_size_at_every_image_size(size: int, blocks: int) -> None:
    net = UNet(size, 8)
    assert len(net.down) == len(net.up) == blocks
    assert net(torch.rand(1, 3, size, size)).shape == (1, 8, size, size)


def test_group_norm_streams_the_same_gradients() -> None:
    ours, native = GroupNorm(8, 32), torch.nn.GroupNorm(8, 32)
    ours.weight.data.uniform_(0.5, 1.5)
    ours.bias.data.normal_()
    native.load_state_dict(ours.state_dict())
    native.double()
    x = (torch.randn(4, 32, 9, 7) + 0.5).bfloat16().contiguous(memory_format=torch.channels_last)
    grad = torch.randn(4, 32, 9, 7).bfloat16()
    found, wanted = x.clone().requires_grad_(), x.double().requires_grad_()
    ours(found).backward(grad)
    native(wanted).backward(grad.double())
    for a, b in [(found, wanted), (ours.weight, native.weight), (ours.bias, native.bias)]:
        assert a.grad is not None and b.grad is not None
        assert (a.grad - b.grad).norm() < 0.005 * b.grad.norm()  # bf16 keeps 8 bits


def test_lstm_is_torchs_lstm_in_one_call_and_step_by_step() -> None:
    ours, theirs = Lstm(6, 10), torch.nn.LSTM(6, 10, batch_first=True)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(3, 5, 6)
    torch.testing.assert_close(ours(x), theirs(x)[0])
    state = ours.start(3, x)
    for t in range(5):
        state = ours.step(x[:, t], state)
    torch.testing.assert_close(state[0], theirs(x)[0][:, -1])


def test_scene_posterior_does_not_depend_on_the_order_of_slots() -> None:
    encoder = SceneEncoder(8, 12)
    for parameter in encoder.parameters():
        parameter.data.normal_(std=0.5)
    slots = torch.randn(4, 6, 8)
    straight, shuffled = encoder(slots), encoder(slots[:, torch.randperm(6)])
    torch.testing.assert_close(straight.mean, shuffled.mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(straight.std, shuffled.std, rtol=1e-4, atol=1e-5)
