"""The jobs of a study in a queue, SLURM's or that of this machine, through submitit.

Which jobs there are is read from the queue alone: a job is named after its run folder. So no run
has two jobs, whatever happened to the command that submitted the first.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
import os
import re
import shutil
import signal
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sri_cli.config.strict_yaml import read_yaml
from sri_cli.errors import SriError, SriFailure, did_you_mean, pip_install
from sri_cli.studies.job import JOB_FOLDER, LOG, RunJob, error_in
from sri_cli.studies.protocol import StudyRun

MANY = 1_000_000  # time limits of one job that submitit allows: RunJob knows when to give up
# SLURM's states of jobs that have ended; all others, unknown ones included, are in the queue.
ENDED = {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "LAUNCH_FAILED", "NODE_FAIL"}
ENDED |= {"OUT_OF_MEMORY", "PREEMPTED", "RECONFIG_FAIL", "REVOKED", "TIMEOUT"}
USUAL_REASONS = {"None", "Priority", "Resources", "BeginTime"}  # why a job waits
DEFAULT_MINUTES = {"slurm": 4 * 60, "local": 7 * 24 * 60}  # time limit; a run needs several of them
SIGNAL_BEFORE_SEC = 120  # before the limit, in which a run has to save; SLURM may add a minute
LOCAL_PARAMETERS = {"time", "signal_delay_s"}


class Job(NamedTuple):
    """A job of a run; `state` is queued, running or ended, with the scheduler's word for it."""

    id: str
    state: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.state}, job {self.id}" + (f" ({self.detail})" if self.detail else "")


class Queue(ABC):
    """Submits jobs of runs, lists and cancels them."""

    name: str
    poll_sec: float  # between two looks at the queue

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        minutes = parameters.get("time", DEFAULT_MINUTES[self.name])
        before = min(SIGNAL_BEFORE_SEC, round(15 * minutes))
        self.parameters = {"time": minutes, "signal_delay_s": before} | dict(parameters)

    @abstractmethod
    def executor(self, run: StudyRun) -> Any:
        """submitit's executor for the job of a run."""

    def script(self, run: StudyRun) -> str | None:
        """The file that is given to the scheduler, if there is one."""
        return None

    @abstractmethod
    def jobs(self, runs: Sequence[StudyRun]) -> dict[str, Job]:
        """The newest job of each run by name of the run; some that ended are not known any more."""

    @abstractmethod
    def cancel(self, job: Job) -> None:
        """Let the job save and end."""

    def submit(self, run: StudyRun, job: RunJob) -> str:
        """Submit the job of a run; its number.

        Raises:
            SriFailure: the scheduler refused it.
        """
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        said = io.StringIO()
        try:
            with contextlib.redirect_stderr(said):
                return str(self.executor(run).submit(job).job_id)
        except (FailedJobError, FailedSubmissionError, OSError) as error:
            lines = re.findall(r"error: (.+)", said.getvalue()) or str(error).splitlines()
            raise SriFailure(
                f"{self.name} refused the job of {run.title}: {error_in(lines)}",
                "change the parameters of the job: --slurm KEY=VALUE",
            ) from error


class Slurm(Queue):
    """SLURM, through its commands."""

    name = "slurm"
    poll_sec = 10.0

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        super().__init__(parameters)
        self.parameters["time"] = math.ceil(self.parameters["time"])  # it counts in minutes
        if shutil.which("sbatch") is None:
            raise SriError(
                "no SLURM here: there is no command sbatch",
                "use a login node of the cluster, or --executor local",
            )

    def executor(self, run: StudyRun) -> Any:
        from submitit import SlurmExecutor

        executor = SlurmExecutor(job_folder(run), max_num_timeout=MANY)
        own = dict(self.parameters)
        more = {"requeue": True} | own.pop("additional_parameters", {})
        executor.update_parameters(
            job_name=job_name(run), stderr_to_stdout=True, additional_parameters=more, **own
        )
        return executor

    def script(self, run: StudyRun) -> str | None:
        executor = self.executor(run)
        return executor._make_submission_file_text(executor._submitit_command_str, "")

    def jobs(self, runs: Sequence[StudyRun]) -> dict[str, Job]:
        names = {job_name(run): run.name for run in runs}
        listed = ["squeue", "--noheader", "--states=all", f"--user={os.getuid()}"]
        found: dict[str, Job] = {}
        for line in _output([*listed, "--format=%i|%T|%r|%j"]).splitlines():
            number, state, reason, name = line.split("|", 3)
            if name not in names:
                continue
            if state in ENDED:
                job = Job(number, "ended", state)
            elif state == "PENDING":
                job = Job(number, "queued", "" if reason in USUAL_REASONS else reason)
            else:
                job = Job(number, "running")
            both = found.get(names[name], job), job
            found[names[name]] = max(both, key=lambda one: (one.state != "ended", int(one.id)))
        return found

    def cancel(self, job: Job) -> None:
        _output(["scancel", job.id])


class Local(Queue):
    """Processes of this machine, which go on without the command that started them."""

    name = "local"
    poll_sec = 0.5

    def executor(self, run: StudyRun) -> Any:
        from submitit import LocalExecutor

        executor = LocalExecutor(job_folder(run), max_num_timeout=MANY)
        own = dict(self.parameters)
        executor.update_parameters(timeout_min=own.pop("time"), stderr_to_stdout=True, **own)
        return executor

    def submit(self, run: StudyRun, job: RunJob) -> str:
        with _detached():
            return super().submit(run, job)

    def jobs(self, runs: Sequence[StudyRun]) -> dict[str, Job]:
        folders = {str(job_folder(run)): run.name for run in runs}
        found = {}
        for process in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):  # it has ended
                words = process.read_text("utf-8", "replace").split("\0")
                name = folders.get("".join(words[3:4]))
                if name and words[2] == "submitit.local._local":
                    found[name] = Job(process.parent.name, "running")
        return found

    def cancel(self, job: Job) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(job.id), signal.SIGTERM)


def open_queue(name: str, words: Sequence[str]) -> Queue:
    """The queue `slurm` or `local`, with KEY=VALUE parameters of its jobs.

    Raises:
        SriError: for wrong parameters, without submitit, and where there is no such queue.
    """
    try:
        from submitit import SlurmExecutor
    except ImportError as error:
        raise SriError(
            "--executor needs submitit, which is not installed", pip_install("sri-cli[cluster]")
        ) from error
    if name == "local" and not Path("/proc/self/cmdline").exists():
        raise SriError("--executor local needs Linux", "leave out --executor")
    known = LOCAL_PARAMETERS
    if name == "slurm":
        known = SlurmExecutor._valid_parameters() - {"job_name", "stderr_to_stdout"}
    parameters = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or key not in known:
            near = did_you_mean(key, known)
            raise SriError(
                f"--slurm {word}: not KEY=VALUE with a parameter of {name} jobs{near}",
                f"parameters: {', '.join(sorted(known))} (of --slurm and SRI_SLURM)",
            )
        parameters[key] = minutes_of(text) if key == "time" else read_yaml(text, f"--slurm {word}")
        if key == "setup" and isinstance(parameters[key], str):  # submitit adds to a list
            parameters[key] = [parameters[key]]
    return Slurm(parameters) if name == "slurm" else Local(parameters)


def minutes_of(text: str) -> float:
    """A time limit as sbatch has it, in minutes: M, M:S, H:M:S, D-H, D-H:M, D-H:M:S."""
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text)
    if match is None or not any(int(part or 0) for part in match.groups()):
        raise SriError(
            f"--slurm time={text}: not a time limit",
            "use minutes, hours:minutes:seconds or days-hours, such as time=4:00:00",
        )
    days, *parts = (int(part or 0) for part in match.groups())
    if match[1] is not None or match[4] is not None:
        hours, minutes, seconds = parts
    else:
        hours, minutes, seconds = 0, parts[0], parts[1]
    total = (days * 24 + hours) * 60 + minutes + seconds / 60
    return int(total) if total == int(total) else total


def job_folder(run: StudyRun) -> Path:
    """Where submitit keeps the files of a run's jobs; absolute, as it is named by a process."""
    return run.run_dir.absolute() / JOB_FOLDER


def job_name(run: StudyRun) -> str:
    """`sri-NAME-RUN-1a2b3c4d`; the last part tells studies in different folders apart."""
    digest = hashlib.sha256(str(run.run_dir.resolve()).encode()).hexdigest()[:8]
    study = run.run_dir.parent.name.removeprefix("study-")
    return f"sri-{study}-{run.name}-{digest}"


def why_it_ended(run: StudyRun, job: Job) -> str:
    """The scheduler's word, the last error in the job's output, and that file."""
    log = run.run_dir / JOB_FOLDER / LOG.format(id=job.id)
    state = f" ({job.detail})" if job.detail else ""
    if not log.is_file():
        return f"job {job.id} ended without output{state}"
    lines = log.read_text("utf-8", "replace").splitlines()
    own = [line for line in lines if not line.startswith(("srun: ", "submitit "))]
    return f"{error_in(own or lines)}{state}; see {log}"


def last_job(run: StudyRun) -> Job | None:
    """The run's last job that began, by its output; None for none."""
    logs = (run.run_dir / JOB_FOLDER).glob(LOG.format(id="*"))
    log = max(logs, key=lambda path: path.stat().st_mtime, default=None)
    return None if log is None else Job(log.name.partition("_")[0], "ended")


def _output(words: Sequence[str]) -> str:
    """The output of a command of SLURM; SriFailure where it fails."""
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        reason = re.findall(r"error: (.+)", done.stderr) or [done.stderr.strip() or "no output"]
        raise SriFailure(
            f"{words[0]} failed: {reason[-1]}", "the jobs go on; run the same command again later"
        )
    return done.stdout


@contextlib.contextmanager
def _detached() -> Iterator[None]:
    """Processes that start inside ignore Ctrl-C and the end of the terminal, and write nowhere."""
    numbers = (signal.SIGINT, signal.SIGHUP)
    handlers = [signal.signal(number, signal.SIG_IGN) for number in numbers]
    files = [os.dup(number) for number in range(3)]
    nowhere = os.open(os.devnull, os.O_RDWR)
    try:
        for number in range(3):
            os.dup2(nowhere, number)
        yield
    finally:
        for number, file in enumerate(files):
            os.dup2(file, number)
        for file in (*files, nowhere):
            os.close(file)
        for number, handler in zip(numbers, handlers, strict=True):
            signal.signal(number, handler)
