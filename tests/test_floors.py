"""The floor of the plot: of the plot's own distance and protocol, of the run's own checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.colors import to_rgb

from sd2eval.config import digest
from sd2eval.floors import Floors, floors
from sd2eval.plot_curves import styles
from sd2eval.plots import pareto_figure
from sd2eval.records import RunInfo
from sd2eval.seals import seal
from tests.test_plots import FAMILY, main_axes, run

RESULTS = run(FAMILY)
WEIGHTS, CAPTIONS, IMAGES, NETWORK = ("w" * 64, "c" * 64, "i" * 64, "n" * 64)
PROTOCOL = {
    "protocol.name": "mini",
    "protocol.resolution": 64,
    "protocol.resize": "bicubic",
    "protocol.fit": "crop",
    "protocol.quantize": "round",
    "protocol.reference_jpeg": None,
    "protocol.distance.name": "mini_classifier",
    "protocol.distance.dtype": "float32",
    "protocol.score.name": "mini_clip",
}
GEOMETRY = {"resolution": 64, "resize": "bicubic", "fit": "crop", "reference_jpeg": None}
REFERENCE = digest(
    GEOMETRY | {"name": "mini_classifier", "dtype": "float32", "files": IMAGES, "weights": NETWORK}
)
INFO = RunInfo(
    schema_version=1,
    identity="",
    identity_fields=PROTOCOL | {"checkpoints.512-base.resolution": 64, "protocol.metrics": ["fd_mini"]},
    config={},
    digests={
        "weights/512-base": WEIGHTS,
        "data/captions": CAPTIONS,
        "extractor/distance": NETWORK,
        "reference": REFERENCE,
    },
)


def measured(folder: Path, checkpoint: str = "512-base", metric: str = "rfd_mini", **changed: object) -> Path:
    fields = PROTOCOL | {
        "checkpoint.resolution": 64,
        "digests.weights": WEIGHTS,
        "digests.captions": CAPTIONS,
        "digests.images": IMAGES,
    }
    found = {
        "checkpoint": checkpoint,
        "fields": fields | {key: value for key, value in changed.items() if key in fields},
        "digests": {"mini_classifier": changed.get("network", NETWORK)},
        "rows": [{"metric": "psnr", "value": 30.0}, {"metric": metric, "value": 0.5}],
    }
    file = folder / "probes" / "measured" / f"autoencoder_{checkpoint}_g3.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(seal(found))
    return folder


def test_no_probes_have_no_floor(tmp_path: Path) -> None:
    assert floors(tmp_path, RESULTS, INFO) == Floors()


def test_a_floor_is_that_of_the_plots_distance_and_checkpoints(tmp_path: Path) -> None:
    measured(tmp_path)
    measured(tmp_path, "768-v", "rfid")
    measured(tmp_path, "elsewhere")
    (tmp_path / "probes" / "measured" / "autoencoder_512-depth_g3.json").write_text("{")
    assert floors(tmp_path, RESULTS, INFO) == Floors({"512-base": 0.5})


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"protocol.quantize": "truncate"}, "protocol.quantize=truncate, the run's distances with round"),
        ({"protocol.name": "mini_native"}, "protocol.name=mini_native, the run's distances with mini"),
        (
            {"protocol.distance.dtype": "bfloat16"},
            "protocol.distance.dtype=bfloat16, the run's distances with float32",
        ),
        ({"checkpoint.resolution": 32}, "resolution=32, the run's distances with 64"),
        ({"digests.weights": "x" * 64}, "weights xxxxxxxxxxxx..., the run's distances with wwwwwwwwwwww..."),
        (
            {"digests.captions": "x" * 64},
            "captions xxxxxxxxxxxx..., the run's distances with cccccccccccc...",
        ),
        ({"digests.images": "x" * 64}, "other real images than the run's distances"),
        (
            {"network": "x" * 64},
            "the distance network xxxxxxxxxxxx..., the run's distances with nnnnnnnnnnnn...",
        ),
    ],
)
def test_a_floor_that_was_measured_otherwise_is_left_out_and_said(
    tmp_path: Path, changed: dict[str, object], reason: str
) -> None:
    found = floors(measured(tmp_path, **changed), RESULTS, INFO)
    assert found == Floors({}, [f"no floor of 512-base: it was measured with {reason}"])
    figure = pareto_figure(RESULTS, floors=found)
    assert found.left_out[0] in figure._supxlabel.get_text()
    assert not [line for line in main_axes(figure).lines if line.get_linestyle() == ":"]


def test_what_moves_no_distance_moves_no_floor(tmp_path: Path) -> None:
    found = floors(measured(tmp_path, **{"protocol.score.name": "other"}), RESULTS, INFO)
    assert found == Floors({"512-base": 0.5})


def test_a_floor_is_a_line_that_the_panel_reaches_down_to() -> None:
    axes = main_axes(pareto_figure(RESULTS, floors=Floors({"512-base": 0.5})))
    plain = main_axes(pareto_figure(RESULTS))
    (line,) = [line for line in axes.lines if line.get_linestyle() == ":" and set(line.get_ydata()) == {0.5}]
    colour = styles(RESULTS["checkpoint"].unique())["512-base"].colour
    assert to_rgb(line.get_color()) == to_rgb(colour)
    assert axes.get_ylim()[0] < 0.5 < plain.get_ylim()[0]
    assert axes.get_ylim()[1] == plain.get_ylim()[1]
