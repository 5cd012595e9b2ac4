from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler

from sd2eval import noise
from sd2eval.checkpoints import Conditioning, ddim_scheduler
from sd2eval.sampler import Inputs, guide, sample, unet_calls


def definition(variant: str) -> Any:
    x4 = variant == "x4"
    return SimpleNamespace(
        beta_start=0.0001 if x4 else 0.00085,
        beta_end=0.02 if x4 else 0.012,
        prediction_type="v_prediction" if variant in ("v", "x4") else "epsilon",
    )


@dataclass
class ToyUNet:
    """Predicts a smooth function of everything it is given and counts its rows."""

    dtype: torch.dtype = torch.float32
    rows: list[int] = field(default_factory=list)

    def __call__(
        self, x: torch.Tensor, t: torch.Tensor, encoder_hidden_states: torch.Tensor, class_labels: Any
    ) -> Any:
        self.rows.append(len(x))
        text = encoder_hidden_states.mean((1, 2)).view(-1, 1, 1, 1)
        extra = x[:, 4:].mean((1, 2, 3)).view(-1, 1, 1, 1) if x.shape[1] > 4 else 0.0
        label = 0.0 if class_labels is None else class_labels.view(-1, 1, 1, 1) / 100
        return SimpleNamespace(sample=torch.tanh(x[:, :4] + text + extra + label) + t / 1000)


def inputs(captions: list[int], channels: int = 0, labels: bool = False) -> Inputs:
    text = noise.normal(1, captions, "text", (7, 5))
    extra = noise.normal(1, captions, "channels", (channels, 8, 8)) if channels else None
    label = torch.tensor(captions) % 17 if labels else None
    return Inputs(
        noise=noise.normal(0, captions, "latent", (4, 8, 8)),
        cond=text,
        uncond=torch.zeros(1, 7, 5),
        conditioning=Conditioning(extra, label),
        step_noise=lambda step: noise.normal(0, captions, f"eta/{step}", (4, 8, 8)),
    )


def run(
    captions: list[int], scales: list[float], *, batch_size: int = 5, eta: float = 0.0, **kinds: Any
) -> torch.Tensor:
    return sample(
        ToyUNet(),
        ddim_scheduler(definition("base")),
        inputs(captions, **kinds),
        scales,
        steps=10,
        eta=eta,
        batch_size=batch_size,
    )


@pytest.mark.parametrize("kinds", [{}, {"channels": 3, "labels": True}])
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_neither_batch_size_nor_neighbours_nor_scales_change_an_image(
    kinds: dict[str, Any], eta: float
) -> None:
    whole = run([3, 1, 2], [1.5, 3.0, 8.0], batch_size=4, eta=eta, **kinds)
    for size in (1, 2, 64):
        torch.testing.assert_close(run([3, 1, 2], [1.5, 3.0, 8.0], batch_size=size, eta=eta, **kinds), whole)
    torch.testing.assert_close(run([1], [8.0, 3.0], eta=eta, **kinds)[0], whole[1, [2, 1]])


def test_every_call_has_the_same_number_of_rows() -> None:
    unet = ToyUNet()
    sample(unet, ddim_scheduler(definition("base")), inputs([1, 2, 3]), [1.5, 3.0], steps=4, batch_size=4)
    assert set(unet.rows) == {8}


def test_the_counted_unet_calls_are_those_that_run_when_nothing_is_padded() -> None:
    unet = ToyUNet()
    sample(unet, ddim_scheduler(definition("base")), inputs([1, 2, 3, 4]), [1.5, 3.0], steps=6, batch_size=4)
    assert sum(unet.rows) == unet_calls(4, [1.5, 3.0], 6)


def test_all_scales_together_equal_an_unshared_loop_written_out() -> None:
    data, scheduler, unet = inputs([1, 2]), ddim_scheduler(definition("base")), ToyUNet()
    together = sample(unet, scheduler, data, [1.0, 2.0, 7.5], steps=10, batch_size=3)
    for column, scale in enumerate([1.0, 2.0, 7.5]):
        x = data.noise
        scheduler.set_timesteps(10)
        for t in scheduler.timesteps:
            uncond = unet(x, t, data.uncond.expand(2, -1, -1), None).sample
            cond = unet(x, t, data.cond, None).sample
            x = scheduler.step(uncond + scale * (cond - uncond), t, x).prev_sample
        torch.testing.assert_close(together[:, column], x, rtol=1e-5, atol=1e-5)


def test_ddim_reaches_the_closed_form_for_gaussian_data() -> None:
    """For data N(0, I) the best prediction is x sqrt(1 - a_t), so each step scales x by a known factor."""
    scheduler = ddim_scheduler(definition("base"))
    alphas = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear").alphas_cumprod

    def gaussian(x: torch.Tensor, t: torch.Tensor, **_: Any) -> Any:
        return SimpleNamespace(sample=x * (1 - alphas[int(t)]).sqrt())

    gaussian.dtype = torch.float32  # type: ignore[attr-defined]
    data = inputs([1, 2])
    got = sample(gaussian, scheduler, data, [3.0], steps=50, batch_size=2)[:, 0]
    factor = 1.0
    for t in range(981, 0, -20):
        a, b = alphas[t].item(), alphas[max(t - 20, 0)].item()
        factor *= (a * b) ** 0.5 + ((1 - a) * (1 - b)) ** 0.5
    torch.testing.assert_close(got, data.noise * factor, rtol=1e-4, atol=1e-5)


def test_guidance_is_the_papers_formula_per_row_and_exact_at_one() -> None:
    uncond, cond = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    got = guide(uncond, cond, torch.tensor([1.0, 0.0, 7.5]))
    assert torch.equal(got[0], cond[0])
    torch.testing.assert_close(got[1], uncond[1])
    torch.testing.assert_close(got[2], uncond[2] + 7.5 * (cond[2] - uncond[2]))


def test_on_batch_counts_every_trajectory_once_and_on_step_may_stop_within_a_batch() -> None:
    counts: list[int] = []
    arguments: Any = (ToyUNet(), ddim_scheduler(definition("base")), inputs([1, 2, 3]), [1.5, 3.0])
    sample(*arguments, steps=2, batch_size=4, on_batch=counts.append)
    assert counts == [4, 2]
    seen: list[int] = []

    def stop() -> None:
        seen.append(1)
        if len(seen) >= 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        sample(*arguments, steps=50, batch_size=4, on_batch=counts.append, on_step=stop)
    assert counts == [4, 2]
    assert len(seen) < 10


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_number_of_cores_changes_nothing(threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        got = run([3, 1, 2], [1.5, 3.0, 8.0], batch_size=2, eta=1.0, channels=3)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(got, run([3, 1, 2], [1.5, 3.0, 8.0], batch_size=9, eta=1.0, channels=3))
