"""`python -m sd2eval probe all | NAME... [--prompts]`."""

from __future__ import annotations

import itertools
import sys

import hydra
from omegaconf import DictConfig, OmegaConf

from sd2eval.config import CONFIG_MODULE, probing, readable, register
from sd2eval.errors import exit_codes, resumable
from sd2eval.probes import registry
from sd2eval.words import asks_help

register()
OmegaConf.register_new_resolver("probes", lambda: ", ".join(registry.names()), replace=True)

LISTING = "--prompts"


def main() -> None:
    """Measure the probes that the first words name, or list their prompts."""
    words = [word for word in sys.argv[1:] if word != LISTING]
    names = list(itertools.takewhile(lambda word: "=" not in word and word[:1] not in ("-", "~"), words))
    settings = readable(words[len(names) :])
    only_told = asks_help(settings) or any(word.startswith(("--cfg", "-c")) for word in settings)
    chosen = [] if only_told else registry.chosen(names)
    listing, sys.argv[1:] = LISTING in sys.argv, settings

    @hydra.main(version_base="1.3", config_path=f"pkg://{CONFIG_MODULE}", config_name="probe")
    def run(composed: DictConfig) -> None:
        with exit_codes():
            config = probing.typed(composed)
            definitions = probing.definitions(config)
            # Torch takes seconds to import: only after the config is known to be good.
            if listing:
                from sd2eval.probes import listed

                listed.show(chosen, config)
                return
            with resumable():
                from sd2eval.probes import run, tables

                tables.show(run.measure(chosen, config, definitions))

    run()
