"""`python -m sd2eval protocol_matrix RUN`."""

from __future__ import annotations

import sys

from sd2eval.errors import InputError

HELP = """Usage: python -m sd2eval protocol_matrix RUN [KEY=VALUE ...]

How much of a difference is only protocol? One run's distance (FID; fd_mini in the mini world) under every
protocol preset, computed from the PNG images of the run and the real images: the same pixels, only other
crops, resizes, JPEG, networks' inputs and precisions. The answer comes first, in one sentence.

  protocols=[A,B]       these presets instead of all; the run's own protocol is always there
  checkpoints=[A,B]     only these checkpoints of the run
  scales=[3,8]          only these guidance scales
  metric=NAME           another metric of the same network and real images, such as kid, kid_mini or precision
  data.root=DIR         folder of the data set; default: as the run recorded it
  device=auto           auto, cpu, cuda, cuda:N or mps
  json=true             print everything as JSON instead of tables
  out=FILE.csv          write one row per cell and protocol

Settings that hold for all presets compared:
  protocol.distance.source=FILE      a local copy of the network's weights (Inception); else they must be here
                                     already (models fetch inception): this verb downloads nothing
  protocol.distance.pretrained=null  with it, takes other weights than the published ones
  protocol.resolution=256            for a run whose images are smaller than the presets'

Features are kept in the cache: an interrupted call goes on, a second one takes seconds.
Exit codes: 0 computed, 2 bad input or no protocol can be computed, 75 interrupted."""

OVERRIDES = ("protocol.distance.source", "protocol.distance.pretrained", "protocol.resolution")
KEYS = ("protocols", "checkpoints", "scales", "metric", "data.root", "device", "json", "out", *OVERRIDES)


def main() -> None:
    """Compute one run under all protocols and print how far they are apart."""
    arguments = sys.argv[1:]
    if arguments in (["--help"], ["-h"]):
        print(HELP)
        return
    from sd2eval import words

    runs, options = words.parse(arguments, KEYS)
    if len(runs) != 1:
        raise InputError("usage: python -m sd2eval protocol_matrix RUN (a run folder); see --help")
    as_json = words.truth(options, "json", False)
    scales = words.numbers(options, "scales")
    from sd2eval import answers
    from sd2eval.matrix import tables
    from sd2eval.matrix.compute import protocol_matrix

    out = answers.check_csv(options["out"], tables.BEGINNING) if "out" in options else None
    with answers.busy("reading the run") as on_step:
        found = protocol_matrix(
            runs[0],
            protocols=words.items(options, "protocols"),
            checkpoints=words.items(options, "checkpoints"),
            scales=scales,
            metric=options.get("metric", ""),
            data_root=options.get("data.root"),
            overrides=[f"{key}={options[key]}" for key in OVERRIDES if key in options],
            device=options.get("device", "auto"),
            on_step=on_step,
        )
    print(answers.as_json(found.to_json())) if as_json else tables.show(found)
    if out is not None:
        answers.write_csv(found.frame, out)
