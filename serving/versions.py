"""The versions of one model: integer folders, polled; the highest is served, and replaced without a gap.

A new version is loaded and warmed up while the old one goes on answering; then it takes over, and the old one is freed
when the last request on it is done. A version that fails ends with its error on record and is not tried again until it
has been taken away; whatever served before goes on.

Reference: tensorflow_serving/sources/storage_path/file_system_storage_path_source.cc (which versions),
tensorflow_serving/core/{aspired_versions_manager,availability_preserving_policy}.cc (when they change).
"""

from __future__ import annotations

import contextlib
import logging
import pathlib
import re
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum

import grpc

from mmoe_ranker.errors import InputError
from serving.metrics import ServerMetrics, scores_of
from serving.session import SavedModel
from serving.status import StatusError
from serving.warmup import warm_up

_LOG = logging.getLogger(__name__)
_LOAD_SECONDS = 10.0  # that a stop waits for a version which is being loaded
_CANCEL_SECONDS = 10.0  # a kernel that is deep in its work looks for a cancellation only when it is done


class State(IntEnum):
    """States of a version, with the numbers of `ModelVersionStatus.State`."""

    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


@dataclass(frozen=True)
class VersionStatus:
    """Where a version stands; `error` says why it ended where that was not by being replaced."""

    version: int
    state: State
    error: StatusError | None = None


@dataclass
class Servable:
    """One loaded version and how many requests are on it; `scores` names the outputs that are measured."""

    version: int
    model: SavedModel
    scores: Sequence[str] = ()
    requests: int = 0


class ModelVersions:
    """Serves the highest version below `folder` under the name `name`."""

    def __init__(
        self, name: str, folder: pathlib.Path, poll_seconds: float = 1.0, metrics: ServerMetrics | None = None
    ) -> None:
        """Prepares; nothing is read before `start`.

        Args:
            name: The name that requests call the model by.
            folder: Holds one folder a version, named by an integer.
            poll_seconds: Pause between two looks at `folder`; 0 looks once, at the start.
            metrics: Where loads, warm-ups and runs are recorded, if anywhere.
        """
        self.name = name
        self._folder = folder
        self._poll_seconds = poll_seconds
        self._metrics = metrics
        self._lock = threading.Lock()
        self._returned = threading.Condition(self._lock)
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._statuses: dict[int, VersionStatus] = {}
        self._failed: set[int] = set()
        self._current: Servable | None = None
        self._retired: list[Servable] = []
        self._poller = threading.Thread(target=self._poll, name=f"versions-of-{name}", daemon=True)

    def start(self) -> None:
        """Loads the highest version and begins to poll.

        Raises:
            InputError: there is no folder, no version in it, or the highest one does not load.
        """
        if not self._folder.is_dir():
            raise InputError(
                "`models` must be a folder with one sub-folder a version, named by an integer, and there is none. "
                f"Received: {self._folder}"
            )
        try:
            found = version_folders(self._folder)
        except OSError as error:
            raise InputError(f"`models` must be a readable folder ({error}). Received: {self._folder}") from error
        if not found:
            raise InputError(
                "`models` must hold at least one version, a sub-folder named by an integer such as 1, and holds none. "
                f"Received: {self._folder}"
            )
        self._update()
        if self._current is None:
            failed = "".join(
                f"{{{{name: {self.name} version: {status.version}}} due to error: {status.error}}}, "
                for status in self.statuses()
            )
            raise InputError(
                f"Failed to start server. Error: 1 servable(s) did not become available: {{{failed}}}. "
                f"Received: {self._folder}"
            )
        if self._poll_seconds > 0:
            self._poller.start()

    def stop(self) -> None:
        """Ends polling and what is still under way, with CANCELLED, and frees the model; no request may follow.

        Nothing ends TensorFlow's loading of a version: one that takes long is left to its thread, which frees it.
        """
        self.stop_polling()
        if self._poller.is_alive():
            self._poller.join(_LOAD_SECONDS)
            if self._poller.is_alive():
                _LOG.warning("A version of %s is still being loaded; it will not be served.", self.name)
        self._retire_current()
        with self._lock:
            busy = [servable for servable in self._retired if servable.requests > 0]
        for servable in busy:
            servable.model.cancel()
        with self._returned:
            self._returned.wait_for(lambda: not any(servable.requests for servable in busy), _CANCEL_SECONDS)
        self._free_retired()

    def stop_polling(self) -> None:
        """Lets no later version take over, and returns at once; a warm-up ends before its next record."""
        self._stopping.set()
        self._wake.set()

    @contextlib.contextmanager
    def lease(self, name: str, version: int | None = None) -> Iterator[Servable]:
        """Lends the available version for one request; it is not freed meanwhile.

        Args:
            name: The model asked for.
            version: The version asked for; None for the latest.

        Raises:
            StatusError: NOT_FOUND, there is no such model or version, or it is not available.
        """
        with self._lock:
            servable = self._current
            if servable is None or name != self.name or version not in (None, servable.version):
                request = f"Latest({name})" if version is None else f"Specific({name}, {version})"
                raise StatusError(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: {request}")
            servable.requests += 1
        try:
            yield servable
        finally:
            with self._lock:
                servable.requests -= 1
                self._returned.notify_all()
                last_of_retired = servable is not self._current and servable.requests == 0
            if last_of_retired:
                self._wake.set()

    def statuses(self) -> list[VersionStatus]:
        """Every version seen since the start, highest first; replaced and failed ones remain as END."""
        with self._lock:
            return [self._statuses[version] for version in sorted(self._statuses, reverse=True)]

    def _poll(self) -> None:
        while not self._stopping.is_set():
            self._wake.wait(self._poll_seconds)
            self._wake.clear()
            if self._stopping.is_set():
                return
            try:
                self._free_retired()
                self._update()
            except OSError as error:
                # A network disk that is away for a moment must not end the server: what is loaded goes on.
                _LOG.warning("Could not look for versions of %s in %s: %s", self.name, self._folder, error)

    def _update(self) -> None:
        folders = version_folders(self._folder)
        self._failed &= set(folders)
        if not folders:
            _LOG.warning("No versions of servable %s found under base path %s.", self.name, self._folder)
            self._retire_current()
            return
        version = max(folders)
        if version in self._failed or (self._current is not None and self._current.version == version):
            return
        servable = self._load(version, folders[version])
        if servable is not None:
            self._retire_current(successor=servable)
            self._free_retired()

    def _load(self, version: int, folder: pathlib.Path) -> Servable | None:
        began = time.perf_counter()
        self._set(version, State.LOADING)
        model = None
        try:
            model = SavedModel.load(folder)
            loaded = time.perf_counter()
            records = warm_up(model, folder, self._stopping)
        except (StatusError, OSError) as error:
            if model is not None:
                model.close()
            if self._metrics is not None:
                self._metrics.count_load(folder, None if model is None else loaded - began)
            status = error if isinstance(error, StatusError) else StatusError(grpc.StatusCode.UNKNOWN, str(error))
            self._failed.add(version)
            self._set(version, State.END, status)
            _LOG.error("Version %d of %s failed to load and is not served: %s", version, self.name, status)
            return None
        warmed_up = time.perf_counter()
        _LOG.info(
            "Version %d of %s loaded in %.2f s, %d warm-up records", version, self.name, warmed_up - began, records
        )
        if self._metrics is None:
            return Servable(version, model)
        self._metrics.count_load(folder, loaded - began)
        self._metrics.observe_warm_up(folder, warmed_up - loaded, records)
        scores = scores_of(model)
        model.observe_runtime = self._metrics.observe_runtime
        return Servable(version, model, scores)

    def _retire_current(self, successor: Servable | None = None) -> None:
        with self._lock:
            retired: Servable | None
            if successor is not None and self._stopping.is_set():  # `stop` may have gone by, and frees it no more
                retired = successor
            else:
                retired, self._current = self._current, successor
                if successor is not None:
                    self._statuses[successor.version] = VersionStatus(successor.version, State.AVAILABLE)
            if retired is not None:
                self._statuses[retired.version] = VersionStatus(retired.version, State.UNLOADING)
                self._retired.append(retired)

    def _free_retired(self) -> None:
        with self._lock:
            idle = [servable for servable in self._retired if servable.requests == 0]
            self._retired = [servable for servable in self._retired if servable.requests > 0]
        for servable in idle:
            servable.model.close()
            if self._current is None or self._current.version != servable.version:  # it may have come back meanwhile
                self._set(servable.version, State.END)
            _LOG.info("Version %d of %s unloaded", servable.version, self.name)

    def _set(self, version: int, state: State, error: StatusError | None = None) -> None:
        with self._lock:
            self._statuses[version] = VersionStatus(version, state, error)


def version_folders(folder: pathlib.Path) -> dict[int, pathlib.Path]:
    """Version to its folder; names that are no integer are passed over, `00001` is 1, and of two the last wins."""
    return {
        int(child.name): child
        for child in sorted(folder.iterdir())
        if re.fullmatch(r"[0-9]+", child.name) and int(child.name) < 2**63 and child.is_dir()
    }
