"""All checks of one version, in order: first what the graph says, then what it does in the C++ session."""

from __future__ import annotations

import contextlib
import os
import pathlib
import tempfile
from collections.abc import Iterator

from serving.native_library import NativeLibraryError, library_version
from serving.session import SavedModel
from serving.status import StatusError
from serving.verifying.answers import check_reference, check_signatures, check_warm_up
from serving.verifying.compatibility import check_compatibility, check_inputs
from serving.verifying.finding import Finding
from serving.verifying.graph import Graph, UnreadableModelError, check_graph, check_ops


def check(
    version: pathlib.Path, previous: pathlib.Path | None = None, allow_breaking: bool = False, runs_only: bool = False
) -> Iterator[Finding]:
    """Checks a version, finding by finding, so that those before a crash of the library are known.

    Args:
        version: Folder of the SavedModel.
        previous: Folder of the version before, if there is one.
        allow_breaking: Reports changes that break callers of the version before without failing.
        runs_only: Leaves out what does not depend on the library that runs it.
    """
    try:
        library = library_version()
    except NativeLibraryError as error:
        yield Finding("loads", "", "failed", f"TensorFlow's C++ library cannot be used: {error}.")
        return
    try:
        graph = Graph.read(version)
    except UnreadableModelError as error:
        yield Finding("loads", "", "failed", f"{error}.")
        return
    if runs_only:
        yield from check_ops(graph)
    else:
        yield from check_graph(graph, version)
        yield from check_inputs(graph)
        yield _against_previous(graph, previous, allow_breaking)
    with _elsewhere(version) as moved:
        try:
            model = SavedModel.load(moved)
        except StatusError as error:
            yield Finding(
                "loads", "", "failed", f"TensorFlow {library} cannot load it: {' '.join(str(error).split())}."
            )
            return
        yield Finding("loads", "", "ok", f"TensorFlow {library}'s C++ loader takes it, from another folder too.")
        try:
            yield from check_signatures(model, moved)
            yield from check_reference(model, moved, _form(graph))
            yield check_warm_up(model, moved)
        finally:
            model.close()


def _form(graph: Graph) -> str | None:
    score = (graph.contract() or {}).get("combined_score")
    return score.get("form") if isinstance(score, dict) else None


def _against_previous(graph: Graph, previous: pathlib.Path | None, allow_breaking: bool) -> Finding:
    if previous is None:
        return Finding("compatibility", "", "skipped", "There is no version before to compare the signatures with.")
    try:
        before = Graph.read(previous)
    except UnreadableModelError as error:
        return Finding("compatibility", "", "skipped", f"Of the version before, {previous.name}, {error}.")
    return check_compatibility(graph, before, previous.name, allow_breaking)


@contextlib.contextmanager
def _elsewhere(version: pathlib.Path) -> Iterator[pathlib.Path]:
    """The version under another path; its files are linked, because a copy of large tables takes long."""
    with tempfile.TemporaryDirectory() as folder:
        moved = pathlib.Path(folder) / "moved"
        for path in [version, *sorted(version.rglob("*"))]:
            target = moved / path.relative_to(version)
            if path.is_dir():
                target.mkdir()
            else:
                os.symlink(path.resolve(), target)
        yield moved
