"""The floor under a run's distances: what its autoencoders alone cost, where a probe measured it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from sd2eval.pareto import roles

PROBE = "autoencoder"


def floors(path: Path, results: pd.DataFrame) -> dict[str, float]:
    """Return each checkpoint's floor, in the unit of the distance of the plot; none without probes.csv.

    Args:
        path: the run folder.
        results: columns of `Score`; the floor of `fid` is `rfid`, of `fd_mini` `rfd_mini`.
    """
    file = path / "probes.csv"
    distance = roles(results).get("distance")
    if distance is None or not file.exists():
        return {}
    rows = pd.read_csv(file, keep_default_na=False, na_values={"value": [""]})
    protocols = set(results["protocol"].str.partition("@")[0])
    own = rows[
        (rows["probe"] == PROBE)
        & (rows["metric"] == f"r{distance.name}")
        & rows["protocol"].str.partition("@")[0].isin(protocols)
    ]
    found = dict(zip(own["checkpoint"], own["value"].astype(float), strict=True))
    return {name: found[name] for name in results["checkpoint"].unique() if name in found}
