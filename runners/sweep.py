"""`python -m sd2eval sweep`."""

from __future__ import annotations

import sys

import hydra
from omegaconf import DictConfig

from sd2eval.config import CONFIG_MODULE, checkpoint_definitions, readable, register, typed
from sd2eval.errors import exit_codes, resumable

register()


def main() -> None:
    """Run, continue or price a sweep with the settings of the command line."""
    sys.argv[1:] = readable(sys.argv[1:])
    _sweep()


@hydra.main(version_base="1.3", config_path=f"pkg://{CONFIG_MODULE}", config_name="sweep")
def _sweep(composed: DictConfig) -> None:
    with exit_codes():
        config = typed(composed)
        definitions = checkpoint_definitions(config)
        # Torch takes seconds to import: only after the config is known to be good.
        if config.dry_run:
            from sd2eval import price_table

            price_table.show(config, definitions)
            return
        with resumable():
            from sd2eval import report, sweep

            report.show(sweep.sweep(config, definitions))
