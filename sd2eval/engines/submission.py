"""Slurm as the driver sees it, through submitit: jobs are submitted, asked after, cancelled.

What is alive is asked of the scheduler (`squeue`), not of its accounting, which some clusters do not keep.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from sd2eval.config import EngineConfig
from sd2eval.engines.base import last_line
from sd2eval.errors import InputError

COMMANDS = ("sbatch", "srun", "squeue", "scancel", "scontrol")
REQUEUES = 1000
"""Lives of one job: how often a shard is tried is what limits it."""
ASK_SECONDS = {"slurm": 15.0, "local": 0.2}
"""How often the scheduler is asked; `local` are our own processes."""
GRACE_SECONDS = 10.0
"""How long processes of ours may take to end."""
SIGNAL_SECONDS = {"slurm": 90, "local": 30}
"""How long before its end submitit has a job told, unless `signal_delay_s` says otherwise."""
MARGIN_SECONDS = {"slurm": 90, "local": 10}
"""Slurm may tell a job a minute early, and its Python starts before it counts the time."""


def shard_seconds(config: EngineConfig) -> float:
    """Return the time that every job has for a shard, loading included.

    A job that has worked longer when it is told to end, and has made none, has one that is too long for it.

    Raises:
        InputError: there is none.
    """
    delay: Any = SIGNAL_SECONDS[config.cluster]
    if config.cluster == "slurm":
        delay = config.parameters.get("signal_delay_s", delay)
        if isinstance(delay, bool) or not isinstance(delay, int) or delay < 0:
            raise InputError(f"engine.parameters.signal_delay_s={delay}: a whole number of seconds is needed")
    overhead = delay + MARGIN_SECONDS[config.cluster]
    seconds: float = 60 * config.minutes - overhead
    if seconds <= 0:
        raise InputError(
            f"engine.minutes={config.minutes}: leaves no time to make a shard, since a job is told to end "
            f"{delay} seconds before and may need {overhead - delay} more; at least {overhead // 60 + 1}"
        )
    return seconds


def require(config: EngineConfig) -> None:
    """Refuse an engine that cannot work here, before anything begins.

    Raises:
        InputError: says what is missing and what to do.
    """
    if "time" in config.parameters:
        raise InputError("engine.parameters.time: a task's time limit is engine.minutes")
    shard_seconds(config)
    try:
        import submitit  # noqa: F401
    except ImportError:
        raise InputError(
            'engine=slurm: submitit is not installed; run: pip install "sd2eval[slurm]"'
        ) from None
    missing = [command for command in COMMANDS if shutil.which(command) is None]
    if config.cluster == "slurm" and missing:
        raise InputError(
            f"engine=slurm: there is no Slurm on this machine ({missing[0]} is not found); run it where "
            "jobs are submitted, or try it without Slurm: engine.cluster=local"
        )


class NotNow(Exception):  # noqa: N818 - it may work later
    """A job array was refused by a Slurm that took an earlier one."""


class Jobs:
    """The jobs of one driver."""

    def __init__(self, config: EngineConfig, folder: Path) -> None:
        """Log into a folder that all nodes see."""
        self._config = config
        self._executor = _executor(config, folder)
        self._jobs: dict[str, Any] = {}
        self._states: dict[str, str] = {}
        self._asked = float("-inf")

    def submit(self, functions: Sequence[Callable[[], None]]) -> None:
        """Start a job array, one task per function.

        Raises:
            InputError: Slurm refused the first one; with its reason.
            NotNow: it refused a later one: a controller that restarts, or a limit on submissions.
        """
        from submitit.core.utils import FailedJobError, FailedSubmissionError
        from submitit.helpers import clean_env

        try:
            # The driver may be a job itself; submitit prints what sbatch says, which is in the error too.
            with clean_env(), _deaf_children(), contextlib.redirect_stderr(io.StringIO()):
                jobs = self._executor.submit_array(functions)
        except (FailedJobError, FailedSubmissionError) as error:
            line = " ".join(str(error).split())
            raise NotNow(line) if self._jobs else InputError(f"engine=slurm: {line}") from error
        self._jobs |= {job.job_id: job for job in jobs}
        self._states |= {job.job_id: "PENDING" for job in jobs}

    def alive(self) -> dict[str, str]:
        """Return the states of the jobs that have not ended, as of the last time that was asked."""
        if time.monotonic() - self._asked >= ASK_SECONDS[self._config.cluster]:
            self._states = self._ask_processes() if self._config.cluster == "local" else self._ask_slurm()
            self._asked = time.monotonic()
        return self._states

    def why_ended(self, job: str) -> str:
        """Return a job's last state, where accounting knows it, and its log."""
        if job not in self._jobs:
            return "ended"
        state = ""
        if self._config.cluster == "slurm":
            with contextlib.suppress(Exception):  # a courtesy, by way of several programs
                state = f" ({self._jobs[job].get_info(mode='force')['State']})"
        return f"ended{state}, see {self._jobs[job].paths.stdout}"

    def last_log(self) -> str:
        """Return the path of the log of the job submitted last, and the line that it ends with."""
        log: Path = list(self._jobs.values())[-1].paths.stdout
        with contextlib.suppress(OSError):  # it is not there, or not yet as seen from here
            lines = log.read_text(errors="replace").split("\n")
            last = last_line([line for line in lines if not line.startswith("submitit ")])
            return f"{log} ({last})" if last else str(log)
        return str(log)

    def cancel(self) -> None:
        """Stop all jobs; processes of ours have ended then."""
        self._asked = float("-inf")
        if self._config.cluster == "slurm":
            for job in self.alive():
                self._jobs[job].cancel(check=False)
            return
        for job in self._ask_processes():
            os.kill(int(job), signal.SIGTERM)  # submitit would send SIGINT, and print what that interrupts
        end = time.monotonic() + GRACE_SECONDS
        while self._ask_processes() and time.monotonic() < end:
            time.sleep(0.02)

    def _ask_processes(self) -> dict[str, str]:
        return {name: "RUNNING" for name, job in self._jobs.items() if not job.done()}

    def _ask_slurm(self) -> dict[str, str]:
        if not self._jobs:
            return {}
        command = ["squeue", "--me", "--array", "--noheader", "--format=%F %K %T"]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        if answer.returncode:  # the scheduler does not answer now: what was alive is taken for alive
            return self._states
        known = [line.split() for line in answer.stdout.splitlines()]
        states = {job if index == "N/A" else f"{job}_{index}": state for job, index, state in known}
        return {name: states[name] for name in self._jobs if name in states}


@contextlib.contextmanager
def _deaf_children() -> Iterator[None]:
    """Start processes that do not hear Ctrl-C, which a terminal sends to all of them: the driver decides."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _executor(config: EngineConfig, folder: Path) -> Any:
    import submitit

    if config.cluster == "local":
        local = submitit.LocalExecutor(folder, max_num_timeout=REQUEUES, python=config.python)
        local.update_parameters(
            timeout_min=config.minutes, gpus_per_node=config.gpus_per_worker, stderr_to_stdout=True
        )
        return local
    executor = submitit.SlurmExecutor(folder, max_num_timeout=REQUEUES, python=config.python)
    try:
        executor.update_parameters(**_parameters(config, executor._valid_parameters()))
    except (ValueError, TypeError) as error:
        raise InputError(f"engine.parameters: {' '.join(str(error).split())}") from error
    return executor


def _parameters(config: EngineConfig, known: set[str]) -> dict[str, Any]:
    """Return the settings as submitit names them; what it does not know goes to sbatch as it is."""
    own = {
        "job_name": "sd2eval",
        "time": config.minutes,
        "cpus_per_task": config.cpus_per_worker,
        "gpus_per_node": config.gpus_per_worker or None,
        "partition": config.partition,
        "account": config.account,
        "stderr_to_stdout": True,
    }
    given = {key: value for key, value in config.parameters.items() if key in known}
    others = {key: value for key, value in config.parameters.items() if key not in known}
    if config.memory is not None:
        others["mem"] = config.memory
    return {key: value for key, value in (own | given).items() if value is not None} | {
        "additional_parameters": others
    }
