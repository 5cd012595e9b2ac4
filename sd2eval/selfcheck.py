"""Does this machine compute what the original code computed? Recorded fixtures, sampled again.

Every number runs through the loader and the sampler of the sweep.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from rich.console import Console

from sd2eval.checkpoints import Checkpoint, Conditioning, conditioning
from sd2eval.devices import device_name, resolve_device, set_precision
from sd2eval.fixture import Fixture, Tensors, find_fixtures, load_fixture, read_fixture, weights_of, whole
from sd2eval.sampler import Inputs, sample
from sd2eval.words import one_of

STEPS = 50
DTYPES = ("float32", "bfloat16", "float16")

LIMITS = {
    torch.float32: {"latent": 1e-4, "image": 1e-4, "text": 1e-5},
    torch.float16: {"latent": 7e-3, "image": 7e-3, "text": 4e-3},
    torch.bfloat16: {"latent": 6e-2, "image": 6e-2, "text": 4e-2},
}
EXACT = {"tokens": 0.0, "conditioning": 1e-5}
"""What does not depend on the dtype: token ids, and the conditioning, which is made in float32."""
"""Largest relative L2 that passes; in half precision three times what it cost on a CPU (latents: float16
0.002, bfloat16 0.02). A mistake in the sampler can be smaller than that: only float32 finds it."""

RAW_CONDITIONING = {"depth": "c_concat", "inpainting": "c_concat", "upscaling": "c_concat_20"}
"""Name of the original's extra UNet channels, by `checkpoint.conditioning`."""


@dataclass(frozen=True)
class Check:
    """One comparison with the original's numbers."""

    fixture: str
    what: str
    error: float
    """Relative L2: ||ours - theirs|| / ||theirs||."""
    limit: float

    @property
    def passed(self) -> bool:
        """Whether the error is within the limit; NaN is not."""
        return self.error <= self.limit


def check_fixture(
    fixture: Fixture,
    checkpoint: Checkpoint,
    dtype: torch.dtype,
    on_step: Callable[[], None] = lambda: None,
) -> Iterator[Check]:
    """Compute a fixture's numbers on this machine and compare them with the original's.

    Args:
        fixture: the recorded numbers.
        checkpoint: its weights, loaded.
        dtype: of the UNet; decides the limits.
        on_step: called after every UNet call; may raise to stop.
    """
    check = partial(_check, fixture, LIMITS[dtype] | EXACT)
    hidden = {name: _encode(checkpoint, fixture.given[ids]) for name, ids in TEXTS.items()}
    if fixture.prompts:
        ids = checkpoint.text_encoder.tokenize(fixture.prompts)[0]
        yield check("tokens", "captions' token ids", ids, fixture.given["tokens"][: len(ids)])
    yield check("text", "captions' encodings", hidden["c"], fixture.given["c"])
    yield check("text", "empty prompt's encoding", hidden["uc"], fixture.given["uc"])
    for what, got, want in _conditionings(fixture, checkpoint):
        yield check("conditioning", what, got, want)
    latents = _sample(fixture, checkpoint, hidden, on_step)
    for column, scale in enumerate(fixture.scales):
        yield check(
            "latent", f"latent at guidance {scale:g}", latents[:, column], fixture.expected[f"latent_{scale}"]
        )
    for column, scale in enumerate(fixture.scales):
        name = f"image_{scale}"
        if name in fixture.expected:
            image = checkpoint.decode(latents[:, column])
            yield check("image", f"image at guidance {scale:g}", image, fixture.expected[name])


TEXTS = {"c": "tokens", "uc": "uncond_tokens"}
"""Recorded hidden states, and the ids they were made of."""


def _check(
    fixture: Fixture, limits: dict[str, float], kind: str, what: str, got: torch.Tensor, want: torch.Tensor
) -> Check:
    return Check(fixture.folder.name, what, relative_l2(got, want), limits[kind])


def relative_l2(got: torch.Tensor, want: torch.Tensor) -> float:
    """Return ||got - want|| / ||want||, in float64."""
    if got.shape != want.shape:
        raise ValueError(f"{list(got.shape)} computed, {list(want.shape)} recorded")
    got, want = got.double().cpu(), want.double().cpu()
    return float((got - want).norm() / want.norm())


@torch.inference_mode()
def _encode(checkpoint: Checkpoint, ids: torch.Tensor) -> torch.Tensor:
    model = checkpoint.text_encoder.model
    hidden: torch.Tensor = model(input_ids=ids.to(model.device))[0]
    return hidden


def _conditionings(
    fixture: Fixture, checkpoint: Checkpoint
) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
    """Yield the extra UNet channels made from the recorded raw inputs, beside the original's."""
    given, kind = fixture.given, checkpoint.definition.conditioning
    if kind == "depth":
        depth = conditioning.normalized_depth(given["depth_raw"], given["c_concat"].shape[-1])
        yield "depth channel", depth, given["c_concat"]
    if kind == "inpainting":
        images, mask, draw = given["image"], given["mask"], given["posterior_noise"]
        channels = conditioning.inpainting_channels(checkpoint.vae, images, mask, draw)
        yield "mask and masked latent", channels, given["c_concat"]
    if kind == "upscaling":
        for name in sorted(given):
            if name.startswith("noise_level_"):
                noised = conditioning.noised_low_resolution(
                    given["lowres"], given["lowres_noise"], given[name]
                )
                level = name.removeprefix("noise_level_")
                yield f"low resolution at level {level}", noised, given[f"c_concat_{level}"]


def _sample(
    fixture: Fixture, checkpoint: Checkpoint, hidden: Tensors, on_step: Callable[[], None]
) -> torch.Tensor:
    """Return latents [N, S, C, h, w] from the recorded noise, all scales of a caption in one batch."""
    device, given = checkpoint.unet.device, fixture.given
    channels = given.get(RAW_CONDITIONING.get(checkpoint.definition.conditioning, ""))
    labels = given.get("noise_level_20")
    inputs = Inputs(
        noise=given["x_T"].to(device),
        cond=hidden["c"],
        uncond=hidden["uc"][:1],
        conditioning=Conditioning(
            None if channels is None else channels.to(device), None if labels is None else labels.to(device)
        ),
    )
    return sample(
        checkpoint.unet,
        checkpoint.scheduler,
        inputs,
        fixture.scales,
        steps=STEPS,
        batch_size=len(fixture.scales),
        on_step=on_step,
    )


def run_selfcheck(fixtures: Path | None = None, device: str = "auto", dtype: str = "float32") -> bool:
    """Check this machine against fixtures, print the outcome, and return whether all is within limits.

    Args:
        fixtures: a fixture or a folder of them; None for the shipped ones.
        device: as of the sweep.
        dtype: `float32`, `bfloat16` or `float16`.

    Raises:
        InputError: no such fixture, device or dtype.
    """
    precision = getattr(torch, one_of(dtype, DTYPES, "dtype"))
    found = [read_fixture(folder) for folder in find_fixtures(fixtures)]
    place = resolve_device(device)
    set_precision(dtype)
    console = Console(highlight=False)
    console.print(f"{device_name(place)}, {dtype}, torch {torch.__version__}", style="bold")
    checks: list[Check] = []
    for fixture in found:
        console.print(f"\n{fixture.folder.name}: {STEPS} DDIM steps at {len(fixture.scales)} guidance scales")
        with console.status("loading"):
            checkpoint = load_fixture(fixture, weights_of(fixture), place, precision)
        with console.status("sampling"), whole(fixture):
            checks += [_print(console, check) for check in check_fixture(fixture, checkpoint, precision)]
    failed = [check for check in checks if not check.passed]
    console.print(_verdict(checks, failed, precision), soft_wrap=True)
    return not failed


def _print(console: Console, check: Check) -> Check:
    mark = "pass" if check.passed else "[bold red]FAIL[/]"
    console.print(f"  {check.what:<28} {check.error:8.1e}   limit {check.limit:.0e}   {mark}")
    return check


def _verdict(checks: list[Check], failed: list[Check], dtype: torch.dtype) -> str:
    if failed:
        first = max(failed, key=lambda check: check.error / check.limit)
        return (
            f"\n[bold red]FAIL[/]: {len(failed)} of {len(checks)} numbers are not the original's; worst: "
            f"{first.fixture}, {first.what}: relative L2 {first.error:.1e}, limit {first.limit:.0e}"
        )
    text = f"\nPASS: all {len(checks)} numbers are those of the original code, within the limits"
    if dtype != torch.float32:
        text += "; half precision can hide a mistake that dtype=float32 shows"
    return text
