"""The C++ libraries of other TensorFlow versions, taken out of their wheels into a cache.

TF Serving may be older than the TensorFlow that trained. The libraries depend on no Python, so the wheel of any one
will do.
"""

from __future__ import annotations

import importlib.metadata
import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile

from mmoe_ranker.errors import InputError

# A Python that each TensorFlow from 2.16 on has wheels for.
_PYTHON = "3.11"
_LIBRARY = re.compile(r"tensorflow/libtensorflow_(cc|framework)[^/]*")


def versions_of(text: str) -> list[str]:
    """The versions of `--tensorflow-versions`, in their order; `previous` are the two minors before the installed one.

    Raises:
        InputError: one is not a version.
    """
    if text == "previous":
        major, minor = _installed().split(".")[:2]
        return [f"{major}.{int(minor) - back}" for back in (1, 2)]
    versions = [part.strip() for part in text.split(",")] if text else []
    for version in versions:
        if not re.fullmatch(r"2\.\d+(\.\d+)?", version):
            raise InputError(
                "`--tensorflow-versions` must be `previous`, or name versions such as 2.20 or 2.19.1, with commas. "
                f"Received: {text!r}."
            )
    return versions


def library_of(version: str) -> pathlib.Path:
    """The folder of a version's C++ library; fetched from PyPI the first time.

    Args:
        version: such as 2.20 (its last release) or 2.19.1.

    Raises:
        InputError: pip cannot get the wheel, or the libraries are not in it.
    """
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "mmoe_ranker"
    kept = cache / f"tensorflow-{version}"
    if (kept / "tensorflow").is_dir():
        return kept / "tensorflow"
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".tensorflow-", dir=cache) as beside:
        _unpack(_download(version, pathlib.Path(beside)), version, pathlib.Path(beside) / "done")
        try:
            (pathlib.Path(beside) / "done").rename(kept)
        except OSError:
            if not (kept / "tensorflow").is_dir():  # else another process was here first
                raise
    return kept / "tensorflow"


def _installed() -> str:
    # The distribution may be tensorflow-cpu too; to import the package for its version would take seconds.
    distributions = importlib.metadata.packages_distributions().get("tensorflow")
    if not distributions:
        raise InputError("TensorFlow must be installed to verify an export. Received: no package `tensorflow`.")
    return importlib.metadata.version(distributions[0])


def _download(version: str, folder: pathlib.Path) -> pathlib.Path:
    # The wheel without CUDA is a third of the size, and what it computes with on a processor is the same.
    is_plain_linux = sys.platform == "linux" and platform.machine() == "x86_64"
    package = "tensorflow-cpu" if is_plain_linux else "tensorflow"
    wanted = f"{package}=={version}" + (".*" if version.count(".") == 1 else "")
    options = ["--no-deps", "--only-binary=:all:", "--python-version", _PYTHON, "--quiet", "--no-cache-dir"]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), wanted],
        capture_output=True,
        text=True,
        check=False,
    )
    wheels = list(folder.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()[-1:]
        raise InputError(
            f"TensorFlow {version} must be one that pip can download for Python {_PYTHON} on this kind of machine "
            f"({'; '.join(said)[:300]}). Received: {wanted}."
        )
    return wheels[0]


def _unpack(wheel: pathlib.Path, version: str, folder: pathlib.Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if _LIBRARY.fullmatch(name)]
        if not names:
            raise InputError(f"The wheel of TensorFlow {version} must hold its C++ library. Received: {wheel.name}.")
        for name in names:
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(name) as source, target.open("wb") as file:
                shutil.copyfileobj(source, file)
