"""`verify`: the checks started in a process of their own, and the gate that an export has to pass.

The process is another one so that nothing which this one has imported can help the export, and so that a SavedModel
which crashes TensorFlow's C++ library is a finding and no crash.
"""

from __future__ import annotations

import importlib.util
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping

from mmoe_ranker.errors import InputError
from serving.verifying import isolated
from serving.verifying.finding import Finding
from serving.versions import version_folders

# Minutes at most for the largest models; what takes longer waits for something that does not come.
_LIMIT_SECONDS = 1800.0


def verify(
    version: pathlib.Path,
    previous: pathlib.Path | None,
    allow_breaking: bool = False,
    tensorflow: pathlib.Path | None = None,
) -> list[Finding]:
    """Runs all checks on a version.

    Args:
        version: Folder of the SavedModel.
        previous: Folder of the version before, with which the signatures are compared; None where there is none.
        allow_breaking: Reports changes that break callers of the version before without failing.
        tensorflow: Folder of another TensorFlow's C++ library; then only what depends on it is checked.

    Raises:
        InputError: TensorFlow is not installed.
    """
    order = {
        "version": str(version.resolve()),
        "previous": None if previous is None else str(previous.resolve()),
        "allow_breaking": allow_breaking,
        "runs_only": tensorflow is not None,
        "tensorflow": str(tensorflow or _installed_tensorflow()),
        "path": [path for path in sys.path if path],
    }
    # -I and -S: no variable of the environment and no .pth file brings anything in. What the process leaves in its
    # temporary folder goes even when it crashes.
    with (
        tempfile.TemporaryDirectory(prefix="mmoe_ranker_verify_") as scratch,
        subprocess.Popen(
            [sys.executable, "-I", "-S", isolated.__file__, json.dumps(order)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=os.environ | {"TMPDIR": scratch},
        ) as process,
    ):
        try:
            answered, said = process.communicate(timeout=_LIMIT_SECONDS)
            how = _end(process.returncode)
        except subprocess.TimeoutExpired:
            process.kill()
            answered, said = process.communicate()
            how = f"had not ended after {_LIMIT_SECONDS:g} s, and was killed,"
        except BaseException:  # an interrupt: no process is left behind
            process.kill()
            raise
    # A process that was killed may have been writing a line.
    findings = [Finding(**json.loads(line)) for line in answered.splitlines(keepends=True) if line.endswith("\n")]
    if how:
        findings.append(_ended(how, said, findings))
    return findings


def gate(version: pathlib.Path, previous: pathlib.Path | None, allow_breaking: bool = False) -> None:
    """Lets a version pass that may be published.

    Args:
        version: Folder of the SavedModel, not yet published.
        previous: Folder of the version published last; None where there is none.
        allow_breaking: Lets pass what breaks callers of that version.

    Raises:
        InputError: a check failed.
    """
    failed = [finding for finding in verify(version, previous, allow_breaking) if finding.status == "failed"]
    if failed:
        names = ", ".join(f"`{finding.name}`" for finding in failed)
        hint = (
            " (`--allow-breaking` lets it pass)" if {finding.check for finding in failed} == {"compatibility"} else ""
        )
        raise InputError(
            f"An export must pass all checks before it is published, and failed {names}{hint}. "
            f"Received: {failed[0].sentence}"
        )


def versions_to_compare(models: pathlib.Path, number: int | None) -> tuple[pathlib.Path, pathlib.Path | None]:
    """The version to check and the one before it.

    Args:
        models: Folder of versions, or of one version.
        number: of the version; None for the highest.

    Raises:
        InputError: there is no such version.
    """
    if (models / "saved_model.pb").exists():
        if number is not None:
            raise InputError(
                f"`--version` goes with a folder of versions. Received: {str(models)!r}, a version itself."
            )
        here = models.resolve()
        own = int(here.name) if here.name.isdecimal() else 0
        return models, _before(own, version_folders(here.parent))
    versions = version_folders(models) if models.is_dir() else {}
    if not versions:
        raise InputError(
            "MODEL_DIR must be a folder of versions, each named by an integer, or one of them. "
            f"Received: {str(models)!r}."
        )
    number = max(versions) if number is None else number
    if number not in versions:
        there = ", ".join(map(str, sorted(versions)))
        raise InputError(f"`--version` must be one of {there}. Received: {number}.")
    return versions[number], _before(number, versions)


def _before(number: int, versions: Mapping[int, pathlib.Path]) -> pathlib.Path | None:
    lower = [other for other in versions if other < number]
    return versions[max(lower)] if lower else None


def _installed_tensorflow() -> pathlib.Path:
    spec = importlib.util.find_spec("tensorflow")
    if spec is None or spec.origin is None:
        raise InputError("TensorFlow must be installed to verify an export. Received: no package `tensorflow`.")
    return pathlib.Path(spec.origin).parent


def _end(status: int) -> str:
    if status == 0:
        return ""
    return f"ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"


def _ended(how: str, said: str, findings: list[Finding]) -> Finding:
    after = f"after the check `{findings[-1].name}`" if findings else "before the first check"
    last = said.strip().splitlines()[-1:] or ["nothing"]
    return Finding("isolation", "", "failed", f"The process that checks {how} {after}; it said: {last[0][:300]}")
