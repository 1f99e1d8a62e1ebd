"""Versions spoilt on purpose, and what `verify` finds in them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tensorflow.core.protobuf import saved_model_pb2

from serving.verifying.checking import check
from serving.verifying.finding import Finding
from tests.serving.scorers import (
    Scorer,
    publish,
)

WARM_UP, ANSWERS = "tf_serving_warmup_requests", "training_model_answers"


def findings(version: Path, previous: Path | None = None, **options: bool) -> dict[str, Finding]:
    return {finding.name: finding for finding in check(version, previous, **options)}


def failed(version: Path) -> dict[str, str]:
    """The sentences of the failed findings by name."""
    return {name: found.sentence for name, found in findings(version).items() if found.status == "failed"}


def planted(folder: Path, **arguments: object) -> dict[str, str]:
    return failed(publish(folder / "1", Scorer(**arguments)))  # type: ignore[arg-type]


def rewrite(version: Path, change: Callable[[saved_model_pb2.SavedModel], None]) -> None:
    file = version / "saved_model.pb"
    saved_model = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    change(saved_model)
    file.write_bytes(saved_model.SerializeToString())
