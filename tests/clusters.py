"""Processes of one training on the loopback, each a real `mmoe-ranker train` with a TF_CONFIG of its own."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path


class TrainingCluster:
    """Starts, kills and awaits the processes of a cluster; leaving it as a context kills what is left.

    Args:
      folder: for what the processes print.
      jobs: how many processes of each job.
      arguments: of `mmoe-ranker train`.
    """

    def __init__(self, folder: Path, jobs: dict[str, int], arguments: list[str]) -> None:
        self.folder = folder
        self.names = [(job, index) for job, count in jobs.items() for index in range(count)]
        ports = iter(_free_ports(len(self.names)))
        self._addresses = {job: [f"127.0.0.1:{next(ports)}" for _ in range(count)] for job, count in jobs.items()}
        self._command = [sys.executable, "-m", "mmoe_ranker", "train", *arguments]
        self._processes: dict[tuple[str, int], subprocess.Popen] = {}

    def __enter__(self) -> TrainingCluster:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait()

    def start(self, *names: tuple[str, int]) -> None:
        """Starts these processes; all of them if none is named."""
        for job, index in names or self.names:
            described = {"cluster": self._addresses, "task": {"type": job, "index": index}}
            # One thread each, so that many processes share two cores.
            environment = os.environ | {"TF_CONFIG": json.dumps(described), "OMP_NUM_THREADS": "1"}
            with open(self._log(job, index), "wb") as log:
                self._processes[job, index] = subprocess.Popen(
                    self._command, env=environment, stdout=subprocess.DEVNULL, stderr=log
                )

    def kill(self, *names: tuple[str, int]) -> None:
        """Kills these processes, without a warning."""
        for name in names:
            self._processes[name].kill()
        for name in names:
            self._processes[name].wait()

    def wait(self, job: str, index: int, seconds: float) -> tuple[int, str]:
        """The exit status of a process, and what it wrote to standard error, within so many seconds."""
        status = self._processes[job, index].wait(seconds)
        return status, self.errors(job, index)

    def wait_until(self, happened: Callable[[], object], seconds: float) -> None:
        """Waits for something that the processes do; none of them may end before."""
        end = time.monotonic() + seconds
        while not happened():
            for (job, index), process in self._processes.items():
                assert process.poll() is None, f"{job} {index} ended: {self.errors(job, index)}"
            assert time.monotonic() < end, {name: self.errors(*name)[-500:] for name in self.names}
            time.sleep(0.01)

    def errors(self, job: str, index: int) -> str:
        """What a process wrote to standard error."""
        return self._log(job, index).read_text(encoding="utf-8", errors="replace")

    def _log(self, job: str, index: int) -> Path:
        return self.folder / f"{job}-{index}.log"


def _free_ports(count: int) -> Iterator[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        ports = [one.getsockname()[1] for one in sockets]
    return iter(ports)
