"""What the command line says when the machine lacks or refuses something: an exit status and a sentence."""

from __future__ import annotations

import errno
from collections.abc import Iterator

from mmoe_ranker.errors import InputError

# What is installed with the command itself; anything else that is missing belongs to an extra.
_PARTS = ("mmoe_ranker", "pipelines", "serving")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def sentence_for(error: BaseException) -> tuple[str, int] | None:
    """A sentence and a status for what the machine lacks or refuses, however deep a library has wrapped it."""
    for cause in _causes(error):
        if isinstance(cause, InputError):
            return str(cause), 2
        if isinstance(cause, ModuleNotFoundError) and str(cause.name).split(".")[0] not in _PARTS:
            sentence = "This command needs an extra of the package: `pip install 'mmoe_ranker[all]'` brings them all."
            return f"{sentence} Received: {cause}.", 2
        no_space = isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT)
        # TensorFlow's file system says it in words.
        if no_space or "No space left on device" in str(cause):
            return f"The disk is full; nothing was published. Received: {cause}.", 1
        # By name, because TensorFlow is not imported here.
        if type(cause).__name__ == "DataLossError":
            return f"A file is damaged; make it again. Received: {' '.join(str(cause).split())[:300]}.", 2
        if type(cause).__name__ in ("UnavailableError", "AbortedError"):
            sentence = "Another process of the training was lost: start all of them again, to go on from the last"
            return f"{sentence} checkpoint. Received: {' '.join(str(cause).split())[:300]}.", 1
        if type(cause).__name__ == "JobFailed":
            return f"The job failed on its runner; nothing was published. Received: {cause}.", 1
        if isinstance(cause, ChildProcessError):
            sentence = "A worker process was lost, killed or out of memory; nothing was published: run it again, with"
            return f"{sentence} fewer workers where memory is short. Received: {cause}.", 1
        if isinstance(cause, (FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError)):
            return f"A file or folder must be there and allow this use. Received: {cause}.", 2
    return None
