"""Which server is checked, and the model that it has to serve."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import grpc

from tests.serving.saved_models import HalfPlusTwo

NAME = "half_plus_two"
VERSION = 123
_OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


@dataclass(frozen=True)
class Target:
    """A server of the model; `models` is its folder and `metrics` its HTTP address, where they are known."""

    address: str
    models: Path | None = None
    metrics: str | None = None

    @classmethod
    def from_environment(cls) -> Target | None:
        """The server that `make conformance` was given; None for this package's own."""
        address = os.environ.get("CONFORMANCE_TARGET")
        if not address:
            return None
        models, metrics = os.environ.get("CONFORMANCE_MODELS"), os.environ.get("CONFORMANCE_METRICS")
        return cls(address, Path(models) if models else None, metrics or None)

    def channel(self) -> grpc.Channel:
        return grpc.insecure_channel(self.address, options=_OPTIONS)


def write_model(models: Path, version: int = VERSION, offset: float = 2.0) -> Path:
    """Publishes y = x / 2 + `offset` as a version: written beside, renamed into place."""
    models.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=".export-", dir=models))
    try:
        HalfPlusTwo(offset).export(beside)
        beside.chmod(0o755)  # for a server that runs as another user
        return beside.rename(models / str(version))
    finally:
        shutil.rmtree(beside, ignore_errors=True)
