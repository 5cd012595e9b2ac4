"""The contract, kept by several processes on this machine."""

from __future__ import annotations

from tests.engines.contract import Contract


class TestSeveralProcesses(Contract):
    words = ("engine=local", "engine.workers=2")
    worker = r"sd2eval\.engines\.process"
