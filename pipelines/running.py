"""Beam options from the command line, the local runner that needs no network, and what a failed job means.

Beam's own default runner downloads a binary; unless another runner is named, pipelines run in this process with the
runner for Python that comes with Beam, with `--direct_num_workers` workers of `--direct_running_mode`.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import logging
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, PortableOptions, StandardOptions
from apache_beam.portability.api import beam_provision_api_pb2
from apache_beam.runners.portability.fn_api_runner import fn_runner
from apache_beam.runners.portability.portable_runner import JobServiceHandle
from apache_beam.runners.runner import PipelineRunner, create_runner
from apache_beam.transforms.environments import SubprocessSDKEnvironment

from mmoe_ranker.errors import InputError
from pipelines.lost_workers import LOST, noticing_lost_workers

_LOCAL = ("directrunner", "direct", "fnapirunner")


def parse_options(arguments: Sequence[str]) -> PipelineOptions:
    """Beam options.

    Raises:
      InputError: an option that Beam does not know, or a value that it does not take.
    """
    unknown: list[str] = []

    def refuse(message: str) -> NoReturn:
        raise InputError(f"The Beam options must be valid ({message}). Received: {' '.join(arguments)!r}.")

    def note_unknown(parser: argparse.ArgumentParser) -> None:
        # The parser that knows the options of every runner is only to be had inside Beam's own parsing.
        parser.error = refuse  # type: ignore[method-assign]
        unknown.extend(parser.parse_known_args(list(arguments))[1])

    options = PipelineOptions(list(arguments))
    with _quiet("apache_beam.options.pipeline_options"):
        options.get_all_options(add_extra_args_fn=note_unknown)
    if unknown:
        raise InputError(
            f"Every option must be one of this command's or a Beam pipeline option. Received: {' '.join(unknown)!r}."
        )
    # The logs are listed before there is a pipeline, by file systems that have options of their own.
    FileSystems.set_options(options)
    return options


def runner_for(options: PipelineOptions) -> PipelineRunner:
    """The runner that the options name.

    Raises:
      InputError: there is no such runner here.
    """
    name = options.view_as(StandardOptions).runner
    if name is None or runs_here(options):
        return _local_runner(options)
    try:
        return create_runner(name)
    except (ValueError, ImportError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"The option --runner must name a Beam runner that is installed ({reason}). Received: {name!r}."
        ) from None


def _local_runner(options: PipelineOptions) -> PipelineRunner:
    encoded = JobServiceHandle.encode_pipeline_options(options.get_all_options())
    provision = fn_runner.ExtendedProvisionInfo(beam_provision_api_pb2.ProvisionInfo(pipeline_options=encoded))
    direct = options.view_as(DirectOptions)
    if direct.direct_running_mode != "multi_processing":
        return fn_runner.FnApiRunner(provision_info=provision)
    # Beam's worker processes tell the terminal what they do; ours are the same but quiet. Named as the default
    # environment, because the running mode would put Beam's command in its place.
    direct.direct_running_mode = "in_memory"
    # In the place of the shell that Beam starts it by, which would tell the terminal that it was killed, and whose end
    # a worker would look for: it ends with its parent, which is to be this process.
    command = f"exec {shlex.quote(sys.executable)} -m pipelines.quiet_worker"
    environment = SubprocessSDKEnvironment.from_command_string(command_string=command)
    return fn_runner.FnApiRunner(default_environment=environment, provision_info=provision)


def runs_here(options: PipelineOptions) -> bool:
    """Whether the job runs in this process, and workers that it starts itself."""
    name = options.view_as(StandardOptions).runner
    return name is None or name.lower() in _LOCAL


def shares_disk(options: PipelineOptions) -> bool:
    """Whether all workers surely see this machine's files: they run in this process, or are started by it."""
    return runs_here(options) or options.view_as(PortableOptions).environment_type == "LOOPBACK"


def check_paths(options: PipelineOptions, paths: Sequence[str]) -> None:
    """Checks that workers can reach what the job reads and writes, as far as the runner's name tells.

    Raises:
      InputError: Dataflow is given a path of this machine.
    """
    name = options.view_as(StandardOptions).runner or ""
    here = [path for path in paths if FileSystems.get_scheme(path) is None]
    if here and name.rsplit(".", 1)[-1].lower() in ("dataflowrunner", "dataflow"):
        raise InputError(
            "What a job on Dataflow reads and writes must be of a file system that its workers reach, such as gs://. "
            f"Received: {here[0]!r}."
        )


def make_pipeline(options: PipelineOptions) -> beam.Pipeline:
    """A pipeline on the runner that the options name.

    Raises:
      InputError: there is no such runner here, or it lacks an option.
    """
    runner = runner_for(options)
    try:
        return beam.Pipeline(runner=runner, options=options)
    except ValueError as error:
        raise _not_taken(options.view_as(StandardOptions).runner, error) from None


def _not_taken(runner: str | None, error: Exception) -> InputError:
    return InputError(
        f"The runner must be there and have the options that it needs ({_reason(error)}). Received: --runner {runner}."
    )


def _reason(error: Exception) -> str:
    """What an error says at its end: those of runners may hold a traceback, those of clients several lines."""
    text = str(error).strip()
    if details := re.findall(r'details = "(.+)"', text):
        return details[-1][:400]
    last = text.splitlines()[-1] if "Traceback (most recent call last)" in text else text
    return " ".join(last.split())[:400].rstrip(".") or f"it does not answer: {type(error).__name__}"


class JobFailed(RuntimeError):
    """A job that a runner took, and that failed there; the message is the runner's reason."""


def run_and_wait(pipeline: beam.Pipeline) -> None:
    """Runs to the end.

    Raises:
      InputError: a step found bad input, the step's own sentence; or the runner did not take the job.
      JobFailed: it failed on another runner than the local one.
      OSError: a worker's disk is full (ENOSPC).
      ChildProcessError: a worker process was lost.
      Exception: whatever else the local runner raises.
    """
    with _quiet("apache_beam", "root"), noticing_lost_workers():
        # Looked up first, because a portable runner forgets its name.
        local, name = runs_here(pipeline.options), pipeline.options.view_as(StandardOptions).runner
        taken = False
        try:
            result = pipeline.run()
            taken = True
            result.wait_until_finish()
        except Exception as error:  # each runner wraps a step's error in a type of its own; raised again either way
            _raise_meaning(error)
            if local:
                raise
            if taken:
                raise JobFailed(_reason(error)) from error
            raise _not_taken(name, error) from error


@contextlib.contextmanager
def _quiet(*names: str) -> Iterator[None]:
    """Lets no log record below CRITICAL through: what matters is raised."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _raise_meaning(error: BaseException) -> None:
    """Raises what the user can act on, where the failure of a step says so: workers send errors as text only."""
    for one in _chain(error):
        if isinstance(one, InputError):
            # Beam adds in which step it was.
            raise InputError(re.sub(r" \[while running .*", "", str(one), flags=re.DOTALL)) from None
        if isinstance(one, OSError) and one.errno == errno.ENOSPC:
            raise one from error
    text = "\n".join(str(one) for one in _chain(error))
    if found := re.search(r"InputError: (.+?Received: .+?\.)(?: \[while running|\n|$)", text):
        raise InputError(found.group(1)) from None
    if f"[Errno {errno.ENOSPC}]" in text:
        raise OSError(errno.ENOSPC, "No space left on device") from error
    # Which of a lost worker's streams is missed first is chance.
    if re.search(rf"{LOST}|Channel closed prematurely|^grpc\.RpcError$", text, flags=re.MULTILINE):
        raise ChildProcessError(LOST) from error


def _chain(error: BaseException) -> Iterator[Any]:
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__
