"""Jobs on a Ray cluster: sent once, followed to their end, found again by the run's name."""

import asyncio
import logging
import os
import shlex
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from egra_dist.cluster.session import choose_authentication
from egra_dist.cluster.submission import Submission
from egra_dist.errors import UserError

if TYPE_CHECKING:
    from ray.dashboard.modules.job.pydantic_models import JobDetails

_log = logging.getLogger(__name__)

_NAME, _DIGEST = "egra_run", "egra_digest"
_DEFAULT_ADDRESS = "http://127.0.0.1:8265"
_POLL_SECONDS = 1.0
_CHATTY = ("ray", "ray.dashboard.modules.job.sdk", "ray.dashboard.modules.dashboard_sdk")
_STOP_SECONDS = "60"
"""How long a stopped job may take to save what it has, before it is killed."""


class JobServer:
    """The job server of a Ray cluster.

    Args:
        address: ``http(s)://HOST:PORT`` of the dashboard; ``RAY_API_SERVER_ADDRESS``, else this
            machine's, when not given.
        verbosity: From 1 on, Ray's client tells what it does.

    Raises:
        UserError: If no job server answers there.
    """

    def __init__(self, address: str | None = None, verbosity: int = 0) -> None:
        self.address = address or os.environ.get("RAY_API_SERVER_ADDRESS") or _DEFAULT_ADDRESS
        if not self.address.startswith(("http://", "https://")):
            raise UserError(f"--address {self.address!r}: expected http://HOST:PORT")
        choose_authentication(local=False)
        from ray.job_submission import JobSubmissionClient

        if not verbosity:  # Ray sets its own levels when it is imported
            for name in _CHATTY:
                logging.getLogger(name).setLevel(logging.WARNING)
        with self._answering():
            self._client = JobSubmissionClient(self.address)

    def latest(self, name: str) -> "JobDetails | None":
        """The job of a run's last submission."""
        jobs = self._jobs(name)
        return max(jobs, key=lambda job: job.start_time or 0) if jobs else None

    def submit(self, submission: Submission) -> str:
        """Makes sure that the run is submitted: of several equal calls one sends it.

        A live run of this name is left as it is; one that died is sent again, and goes on where it
        stopped; one that has finished is not sent again.

        Returns:
            The id of its job.

        Raises:
            UserError: If a live run of this name has other settings.
        """
        last = self.latest(submission.name)
        if last is None:
            return self._send(submission)
        job_id, is_same = str(last.submission_id), last.metadata[_DIGEST] == submission.digest
        if not last.status.is_terminal():
            if not is_same:
                raise UserError(
                    f"run {submission.name!r} is {last.status.lower()} as {job_id} with other "
                    "settings; give this one another --name, or stop that one: "
                    f"{self.stop_command(job_id)}"
                )
            _log.info("%s: attached to %s", submission.name, job_id)
            return job_id
        if last.status == "SUCCEEDED" and is_same:
            _log.info("%s: finished before, as %s", submission.name, job_id)
            return job_id
        _log.info("%s: %s ended as %s", submission.name, job_id, last.status.lower())
        return self._send(submission)

    def follow(self, job_id: str, write: Callable[[str], object] | None) -> int:
        """Waits for a job's end.

        Args:
            job_id: Its id.
            write: Gets the job's output as it comes; None to wait in silence.

        Returns:
            The exit status of its command; 1 when it was stopped, never ran, or was lost with
            its cluster.
        """
        try:
            job = self._wait(job_id, write)
        except UserError as error:
            _log.error("%s: lost (%s); the same command goes on with the run", job_id, error)
            return 1
        if job.status == "SUCCEEDED":
            return 0
        _log.error("%s: %s: %s", job_id, job.status.lower(), _last_line(job.message))
        return job.driver_exit_code or 1

    def _wait(self, job_id: str, write: Callable[[str], object] | None) -> "JobDetails":
        output = _Output(write or (lambda text: None))
        with self._answering():
            while not (job := self._client.get_job_info(job_id)).status.is_terminal():
                if write and job.status == "RUNNING":
                    self._tail(job_id, output)
                time.sleep(_POLL_SECONDS)
            if write:
                output.take_all(self._client.get_job_logs(job_id))
        return job

    def stop_command(self, job_id: str) -> str:
        """The shell command that ends a job."""
        return f"ray job stop {job_id} --address {self.address}"

    def _jobs(self, name: str) -> "list[JobDetails]":
        with self._answering():
            jobs = self._client.list_jobs()
        return [job for job in jobs if (job.metadata or {}).get(_NAME) == name]

    def _send(self, submission: Submission) -> str:
        job_id = f"{submission.name}-{len(self._jobs(submission.name)) + 1}"
        with tempfile.TemporaryDirectory(prefix="egra-submit-") as folder, self._answering():
            submission.write_package(Path(folder))
            try:
                self._client.submit_job(
                    entrypoint=shlex.join(submission.command()),
                    submission_id=job_id,
                    runtime_env=_runtime_environment(submission, folder),
                    metadata={_NAME: submission.name, _DIGEST: submission.digest},
                )
            except RuntimeError as error:
                if "already exists" not in str(error):
                    raise
                return self.submit(submission)  # the same command, given twice at a time
        _log.info("%s: submitted as %s", submission.name, job_id)
        return job_id

    def _tail(self, job_id: str, output: "_Output") -> None:
        """Passes output on until the connection ends, which may be before the job does."""
        from aiohttp import ClientError

        async def pass_on() -> None:
            position = 0
            async for text in self._client.tail_job_logs(job_id):
                position = output.take(text, position)

        try:
            asyncio.run(pass_on())
        except (ClientError, RuntimeError, OSError) as error:
            _log.debug("%s: %s", job_id, error)

    @contextmanager
    def _answering(self) -> Iterator[None]:
        from requests import RequestException  # what Ray's client lets through

        try:
            yield
        except (ConnectionError, RuntimeError, RequestException) as error:
            raise UserError(
                f"Ray's job server at {self.address}: {_last_line(str(error))}"
            ) from None


class _Output:
    """Passes a log on; of what is read again, from its start, only what is new."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write
        self._count = 0

    def take(self, text: str, position: int) -> int:
        """Takes a piece that begins at a position of the log; returns where it ends."""
        fresh = text[max(0, self._count - position) :]
        if fresh:
            self._write(fresh)
            self._count += len(fresh)
        return position + len(text)

    def take_all(self, log: str) -> None:
        """Takes the whole log."""
        self.take(log, 0)


def _runtime_environment(submission: Submission, folder: str) -> dict[str, Any]:
    variables = {"RAY_JOB_STOP_WAIT_TIME_S": _STOP_SECONDS, **submission.environment()}
    return {"working_dir": folder, "env_vars": variables}


def _last_line(text: str | None) -> str:
    return ((text or "").strip().splitlines() or ["no reason given"])[-1]
