"""The five programs of Slurm that are used, for one machine: each is this file under its name.

Jobs are processes; `$FAKE_SLURM/jobs` has one file per living job, `NUMBER` or `NUMBER_INDEX`.
While `$FAKE_SLURM/refuses` is there, every array but the first is refused, and a line added to it.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

NAMES = ("sbatch", "srun", "squeue", "scancel", "scontrol")


def install(folder: Path) -> None:
    """Put the programs into a folder."""
    folder.mkdir()
    for name in NAMES:
        program = folder / name
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -S {__file__} {name} "$@"\n')
        program.chmod(0o755)


def sbatch(state: Path, script: str) -> None:
    """Start one supervisor per element of the array."""
    text = Path(script).read_text()
    if "--partition=nowhere" in text:
        sys.exit("sbatch: error: invalid partition specified: nowhere")
    if (state.parent / "refuses").exists() and len(list(state.parent.glob("*.sh"))):
        print("asked", file=(state.parent / "refuses").open("a"))
        sys.exit("sbatch: error: Batch job submission failed: Socket timed out on send/recv operation")
    number = 1000 + len(list(state.parent.glob("*.sh")))
    (state.parent / f"{number}.sh").write_text(text)
    array = re.search(r"--array=0-(\d+)", text)
    for index in range(int(array[1]) + 1) if array else [None]:
        job = state / (str(number) if index is None else f"{number}_{index}")
        job.write_text("0")  # known to squeue from now on
        if os.fork() == 0:
            os.setsid()
            for descriptor in range(3):
                os.dup2(os.open(os.devnull, os.O_RDWR), descriptor)
            supervise(job, script, number, index)
            os._exit(0)
    print(f"Submitted batch job {number}")


def supervise(job: Path, script: str, number: int, index: int | None) -> None:
    """Run a job again as long as it asks for that."""
    names = {"SLURM_JOB_ID": str(number), "SLURM_PROCID": "0"}
    if index is not None:
        names |= {"SLURM_ARRAY_JOB_ID": str(number), "SLURM_ARRAY_TASK_ID": str(index)}
    again = True
    while again:
        process = subprocess.Popen(["bash", script], env=os.environ | names, start_new_session=True)
        job.write_text(str(process.pid))
        process.wait()
        asked = job.parent.parent / f"requeue {job.name}"
        again = asked.exists()
        asked.unlink(missing_ok=True)
    job.unlink()


def srun(state: Path, *words: str) -> None:
    """Become the command, with the output where it is asked for."""
    command = [word for word in words if not word.startswith("--")]
    output = command.pop(0)
    array = "SLURM_ARRAY_JOB_ID" in os.environ
    for pattern, name in {
        "%A": "SLURM_ARRAY_JOB_ID",
        "%a": "SLURM_ARRAY_TASK_ID",
        "%j": "SLURM_JOB_ID",
    }.items():
        if array or name == "SLURM_JOB_ID":
            output = output.replace(pattern, os.environ[name])
    file = os.open(output.replace("%t", "0"), os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.execvp(command[0], command)


def squeue(state: Path, *words: str) -> None:
    """List what lives."""
    assert words[-1] == "--format=%F %K %T", words
    for job in state.iterdir():
        number, _, index = job.name.partition("_")
        print(number, index or "N/A", "RUNNING")


def scancel(state: Path, job: str) -> None:
    """Ask a job to end, as Slurm does before it kills it."""
    for file in [*state.glob(job), *state.glob(f"{job}_*")]:
        if group := int(file.read_text()):
            os.killpg(group, signal.SIGTERM)


def scontrol(state: Path, verb: str, job: str) -> None:
    """Have a job started again when it ends."""
    assert verb == "requeue"
    (state.parent / f"requeue {job}").touch()


if __name__ == "__main__":
    home = Path(os.environ["FAKE_SLURM"]) / "jobs"
    home.mkdir(exist_ok=True)
    globals()[sys.argv[1]](home, *sys.argv[2:])
