"""GENESIS beyond the golden numbers: any number of slots, the scene variable, its cost."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sri_cli.config.load import load_recipe
from sri_cli.models import decoders
from sri_cli.models.distributions import Gaussian
from sri_cli.models.genesis import BroadcastConvolutions, Genesis, Transposed5, stick_breaking
from sri_cli.models.likelihood import ImageLikelihood
from sri_cli.rng import draw_noise
from sri_cli.training.step import TrainStep
from sri_cli.training.step_timing import CallCounter

KLS = {None: ("kl_mask", "kl_component"), 24: ("kl_scene", "kl_mask", "kl_component")}


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(3)


def make(scene_size: int | None = None, image_size: int = 32, slots: int = 4) -> Genesis:
    return Genesis(
        image_size=image_size,
        slots=slots,
        slot_size=16,
        component_size=6,
        component_channels=8,
        likelihood=ImageLikelihood("mog", 0.7, normalised=True),
        scene_size=scene_size,
    )


@pytest.fixture(params=[None, 24], ids=["alone", "scene"])
def model(request: pytest.FixtureRequest) -> Genesis:
    return make(request.param)


def inputs(model: Genesis, batch: int = 3) -> tuple[Tensor, dict[str, Tensor]]:
    size = model.image_size
    return torch.rand(batch, 3, size, size), draw_noise(model.training_noise(), batch, 0, 0)


def assert_sum_to_one(masks: Tensor) -> None:
    torch.testing.assert_close(masks.sum(dim=1), torch.ones_like(masks[:, 0]))


def test_stick_breaking_by_hand_and_at_the_extremes() -> None:
    """Three slots that take a half, a quarter of the rest, and all the rest whatever the logit."""
    logits = torch.tensor([0.0, -torch.log(torch.tensor(3.0)), 99.0]).view(1, 3, 1, 1, 1)
    expected = torch.tensor([0.5, 0.125, 0.375]).view(1, 3, 1, 1, 1)
    torch.testing.assert_close(stick_breaking(logits).exp(), expected)
    extreme = stick_breaking(200 * torch.randn(2, 9, 1, 8, 8))
    assert extreme.isfinite().all()
    assert_sum_to_one(extreme.exp())


def test_losses_are_finite_and_the_bound_is_complete(model: Genesis) -> None:
    losses = model(*inputs(model))
    kls = KLS[model.scene_size]
    assert losses.bound == ("nll", *kls) == tuple(losses.terms)
    assert all(term.isfinite().all() for term in losses.terms.values())
    (objective,) = losses.objectives
    assert objective.name in model.objective_names
    torch.testing.assert_close(objective.error, losses.terms["nll"])
    torch.testing.assert_close(objective.kl, sum(losses.terms[name] for name in kls))


def test_one_sample_kls_agree_with_closed_form_on_average() -> None:
    """Independent posterior and prior of one latent: the mean over many draws is the KL."""
    model = make()
    posterior = Gaussian(torch.full((4000, 4, 16), 0.3), torch.full((4000, 4, 16), 0.5))
    prior = Gaussian(torch.zeros(4000, 4, 16), torch.ones(4000, 4, 16))
    component = Gaussian(torch.zeros(4000, 4, 6), torch.ones(4000, 4, 6))
    found = model.infer(*inputs(model))._replace(
        mask_posterior=posterior,
        mask_latents=posterior.sample(torch.randn(4000, 4, 16)),
        component_posterior=component,
        component_latents=component.sample(torch.randn(4000, 4, 6)),
    )
    masks, _ = model.slot_kls(found, prior)
    exact = 16 * 0.5 * (0.25 + 0.09 - 1 - torch.tensor(0.25).log())
    torch.testing.assert_close(masks.mean(), exact, rtol=0.01, atol=0)


def test_gradient_reaches_every_parameter(model: Genesis) -> None:
    (objective,) = model(*inputs(model)).objectives
    (objective.error + objective.kl).mean().backward()
    # A bias before a BatchNorm has none but rounding.
    norms = {name.split("h_norm")[0] for name, _ in model.named_buffers() if "h_norm" in name}
    assert len(norms) == 10
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert name in {f"{norm}conv.bias" for norm in norms} or parameter.grad.any(), name


def test_reconstruction_is_blended_by_the_attention(model: Genesis) -> None:
    seen = model.reconstruct(*inputs(model))
    assert_sum_to_one(seen.attention)
    torch.testing.assert_close(seen.attention, seen.scene.masks)
    torch.testing.assert_close(seen.scene.image, (seen.attention * seen.scene.rgb).sum(dim=1))
    assert seen.scene.rgb.min() >= 0 and seen.scene.rgb.max() <= 1


@pytest.mark.parametrize("slots", [1, 3, 9, 14])
def test_any_number_of_slots_samples(model: Genesis, slots: int) -> None:
    scene = model.eval().sample(draw_noise(model.sampling_noise(slots), 2, 0, 0), 0.7)
    assert scene.rgb.shape == (2, slots, 3, 32, 32)
    assert_sum_to_one(scene.masks)


def test_temperature_zero_gives_the_means(model: Genesis) -> None:
    """Whatever the noise: the first mask latent at its mean, each later one at its own."""
    model.eval()
    one, other = (draw_noise(model.sampling_noise(5), 1, 0, step) for step in (0, 1))
    torch.testing.assert_close(model.sample(one, 0.0).image, model.sample(other, 0.0).image)
    assert (model.sample(one, 1.0).image - model.sample(other, 1.0).image).abs().max() > 1e-3
    latents = model.sample_masks(one, 0.0)
    if model.scene_size is None:
        assert latents[:, 0].abs().max() == 0  # the mean of N(0, I)
        means = model.prior.teacher_forced(latents).mean
    else:
        means = model.prior.teacher_forced(torch.zeros(1, 24), latents).mean
    torch.testing.assert_close(latents, means)


def test_fewer_slots_are_the_first_of_more(model: Genesis) -> None:
    """The latents agree; of the decoded slots all but the last mask, which takes the rest."""
    model.eval()
    many = draw_noise(model.sampling_noise(9), 2, 0, 0)
    few = {name: value if name == "scene" else value[:, :3] for name, value in many.items()}
    torch.testing.assert_close(model.sample_masks(few), model.sample_masks(many)[:, :3])
    short, long = model.sample(few), model.sample(many)
    torch.testing.assert_close(short.rgb, long.rgb[:, :3], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(short.masks[:, :2], long.masks[:, :2], rtol=1e-4, atol=1e-5)


def test_slots_decoded_in_parts_are_the_same(
    model: Genesis, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = draw_noise(model.eval().sampling_noise(7), 2, 0, 0)
    with torch.no_grad():
        whole = model.sample(noise).image
        monkeypatch.setattr(decoders, "DECODED_AT_ONCE", 3)
        torch.testing.assert_close(model.sample(noise).image, whole, rtol=1e-4, atol=1e-5)


def test_an_image_does_not_depend_on_its_batch_in_evaluation(model: Genesis) -> None:
    images, noise = inputs(model)
    first = {name: value[:1] for name, value in noise.items()}
    trained = model(images, noise).terms["nll"]  # moves the running averages
    model.eval()
    alone, among = model(images[:1], first).terms, model(images, noise).terms
    for name, value in alone.items():
        torch.testing.assert_close(value, among[name][:1], rtol=1e-4, atol=1e-3)
    assert (trained - among["nll"]).abs().max() > 1e-3  # batch statistics in training


def test_running_averages_are_kept_with_the_weights(model: Genesis) -> None:
    images, noise = inputs(model)
    model(images, noise)
    copy = make(model.scene_size)
    copy.load_state_dict(model.state_dict())
    ours, theirs = model.eval()(images, noise).terms, copy.eval()(images, noise).terms
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_scene_posterior_does_not_depend_on_the_order_of_mask_latents() -> None:
    model = make(24)
    for parameter in model.relate.parameters():
        parameter.data.normal_(std=0.3)
    latents = torch.randn(2, 5, 16)
    straight, shuffled = model.relate(latents), model.relate(latents[:, torch.randperm(5)])
    torch.testing.assert_close(straight.mean, shuffled.mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(straight.std, shuffled.std, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("image_size", [32, 64, 96, 128])
def test_every_image_size(image_size: int) -> None:
    model = make(image_size=image_size, slots=2).eval()
    scene = model.reconstruct(*inputs(model, batch=1)).scene
    assert scene.rgb.shape == (1, 2, 3, image_size, image_size)


def test_other_image_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="48 pixels"):
        make(image_size=48)


@pytest.mark.parametrize("stride", [1, 2])
def test_transposed_convolution_is_torchs(stride: int) -> None:
    ours = Transposed5(6, 10, stride)
    theirs = torch.nn.ConvTranspose2d(6, 10, 5, stride, 2, output_padding=stride - 1)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 6, 7, 7)
    assert ours(x).shape[-1] == 7 * stride
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-5)


def test_component_decoder_is_a_convolution_of_latent_and_coordinates() -> None:
    decoder = BroadcastConvolutions(32, 6, 8)
    latents = torch.randn(5, 6)
    grid = decoder.grid.expand(5, -1, -1, -1)
    laid = torch.cat([latents[..., None, None].expand(-1, -1, 40, 40), grid], dim=1)
    expected = decoder.layers(laid).sigmoid()
    torch.testing.assert_close(decoder(latents), expected, rtol=1e-4, atol=1e-5)


def test_latents_and_densities_stay_in_float32_under_bf16(model: Genesis) -> None:
    images, noise = inputs(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = model.infer(images, noise)
        losses = model(images, noise)
    tensors = [*found.mask_posterior, *found.component_posterior, found.scene.log_masks]
    tensors += [found.scene.rgb, *losses.terms.values()]
    assert {tensor.dtype for tensor in tensors} == {torch.float32}
    exact = model(images, noise).terms
    torch.testing.assert_close(losses.terms["nll"], exact["nll"], rtol=0.01, atol=0)


def test_a_training_step_is_few_calls_and_never_waits() -> None:
    """K = 9 in about 100 calls a slot, whatever the batch: convolutions are not looped over."""
    model = make(24, slots=9)
    step = TrainStep(model, load_recipe("sri-mog").train)
    images, noise = inputs(model, batch=2)
    images = (255 * images).to(torch.uint8)
    step(images, noise, 0)
    with CallCounter() as counter:
        step(images, noise, 1)
    assert counter.calls <= 3_500
    assert counter.host_reads == 0


def test_compiles_as_one_graph_and_gives_the_same_losses(model: Genesis) -> None:
    images, noise = inputs(model, batch=2)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    ours, eager = compiled(images, noise), model(images, noise)
    for name, value in eager.terms.items():
        torch.testing.assert_close(ours.terms[name], value, rtol=1e-4, atol=1e-4)
