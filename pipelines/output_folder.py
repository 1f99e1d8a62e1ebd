"""The output folder: it appears complete, or not at all.

Everything is written into a folder beside it, which takes its place at the end: on a local disk by one rename (an
exchange of the two, where an earlier output stands there), on other file systems by Beam's rename file by file with
`summary.json` last, and a mark in the folder until then. A folder that no run wrote is never replaced.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import glob
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from mmoe_ranker.errors import InputError

SUMMARY = "summary.json"
# Stands at the head of a summary, and tells that a folder is ours to replace.
FORMAT = "mmoe_ranker examples 1"

# Stands in a folder of a file system without renaming of folders, from when the old summary goes until the new one is
# there: what a run left that ended in between is ours to replace, though it has no summary.
_MOVING = ".moving"

_EXCHANGE = 2  # RENAME_EXCHANGE of renameat2(2).
_HERE = -100  # AT_FDCWD


def is_local(path: str) -> bool:
    """Whether a path is of this machine's file system."""
    return FileSystems.get_scheme(path) is None


def check_replaceable(out: str, form: str = FORMAT) -> None:
    """Checks that nothing would be lost.

    Raises:
      InputError: `out` is a file, or holds something that no run which writes `form` wrote.
    """
    if is_local(out):
        path = Path(out)
        if path.exists() and not path.is_dir():
            raise InputError(f"The output must be a folder, new or of an earlier run. Received: the file {out!r}.")
        if not path.exists() or not any(path.iterdir()):
            return
        with contextlib.suppress(OSError, UnicodeDecodeError):
            if form in (path / SUMMARY).read_text(encoding="utf-8")[:200]:
                return
    else:
        try:
            found = FileSystems.match([FileSystems.join(out, "**")])[0].metadata_list
        except Exception as error:  # each file system raises types of its own
            reason = " ".join(str(error).split())
            raise InputError(
                f"The output must be a folder of a file system that is installed and can be listed ({reason}). "
                f"Received: {out!r}."
            ) from None
        if not found:
            return
        for name in (SUMMARY, _MOVING):
            sign = FileSystems.join(out, name)
            if FileSystems.exists(sign) and form.encode() in read_file(sign)[:200]:
                return
    raise InputError(
        f"The output must be a new or empty folder, or one that an earlier run wrote. Received: {out!r}, which holds "
        "something else."
    )


@contextlib.contextmanager
def writing_beside(out: str, form: str = FORMAT) -> Iterator[str]:
    """Gives a folder to write into; it takes the place of `out` when the block ends, and is removed if it raises."""
    check_replaceable(out, form)
    out = out.rstrip("/")
    beside = _beside(out)
    if is_local(out):
        _remove_abandoned(Path(out))
        Path(beside).mkdir(parents=True)
    try:
        yield beside
        _put_in_place(beside, out, form)
    except BaseException:
        remove(beside)
        raise


def write_summary(folder: str, summary: dict[str, Any]) -> None:
    """Writes `summary.json`, whose first key says of what form the folder is."""
    text = json.dumps(summary, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_file(FileSystems.join(folder, SUMMARY), text.encode("utf-8"))


def write_file(path: str, content: bytes) -> None:
    """Writes a file whole; a file that is there already (of an attempt that failed) is replaced."""
    if is_local(path):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        # Attempts of one step may overlap, so each writes a file of its own.
        attempt = f"{path}.{uuid.uuid4().hex}"
        try:
            with open(attempt, "wb") as file:
                file.write(content)
            os.replace(attempt, path)
        finally:
            Path(attempt).unlink(missing_ok=True)
        return
    with FileSystems.create(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        file.write(content)


def read_file(path: str) -> bytes:
    """A whole file."""
    with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        return file.read()


def read_handed(folder: str, name: str) -> bytes:
    """What a worker handed to the process that started the job, as the file `name`, which goes.

    Raises:
      InputError: nothing arrived: the workers write to disks of their own.
    """
    path = FileSystems.join(folder, name)
    if not FileSystems.exists(path):
        raise InputError(
            "The output must be of a file system that the workers share with the process that starts the job. "
            f"Received: {folder!r}, where nothing of theirs arrived."
        )
    content = read_file(path)
    FileSystems.delete([path])
    return content


def remove(folder: str) -> None:
    """Removes a folder and all in it, if it is there."""
    if is_local(folder):
        shutil.rmtree(folder, ignore_errors=True)
    else:
        with contextlib.suppress(Exception):
            FileSystems.delete([FileSystems.join(folder, "*"), FileSystems.join(folder, "**")])


def _beside(out: str) -> str:
    parent, name = FileSystems.split(out)
    # The process is named, so that a later run can tell that nobody writes there any more.
    return FileSystems.join(parent or ".", f".{name}.{os.getpid()}-{uuid.uuid4().hex[:8]}")


def _remove_abandoned(out: Path) -> None:
    """Removes what killed runs left beside `out`."""
    for folder in out.parent.glob(f".{glob.escape(out.name)}.*-????????"):
        process = folder.name[len(out.name) + 2 :].split("-")[0]
        if process.isdigit() and not Path(f"/proc/{process}").exists() and Path("/proc/self").exists():
            shutil.rmtree(folder, ignore_errors=True)


def _put_in_place(beside: str, out: str, form: str) -> None:
    if not is_local(out):
        _move_remote(beside, out, form)
        return
    if not os.path.exists(out):
        os.rename(beside, out)
    elif _exchange(beside, out):
        remove(beside)
    else:
        # Named as what a killed run leaves, which it is if this one is killed here.
        old = _beside(out)
        os.rename(out, old)
        os.rename(beside, out)
        remove(old)


def _exchange(one: str, other: str) -> bool:
    """Swaps two folders in one step; False where the system cannot."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return False
    if rename(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP):
        return False
    raise OSError(number, os.strerror(number), f"{one} <-> {other}")


def _move_remote(beside: str, out: str, form: str) -> None:
    """File by file; the summary, which says that the rest is complete, goes first and comes last."""
    summary, moving = FileSystems.join(out, SUMMARY), FileSystems.join(out, _MOVING)
    stale = {entry.path for entry in FileSystems.match([FileSystems.join(out, "**")])[0].metadata_list}
    write_file(moving, form.encode())
    if summary in stale:
        FileSystems.delete([summary])
    written = [entry.path for entry in FileSystems.match([FileSystems.join(beside, "**")])[0].metadata_list]
    written.sort(key=lambda path: path.endswith(f"/{SUMMARY}"))
    moved = [out + path[len(beside) :] for path in written]
    if leftover := sorted(stale - {*moved, summary, moving}):
        FileSystems.delete(leftover)
    for source, target in zip(written, moved, strict=True):
        if target in stale and target != summary:
            FileSystems.delete([target])
        FileSystems.rename([source], [target])
    FileSystems.delete([moving])
