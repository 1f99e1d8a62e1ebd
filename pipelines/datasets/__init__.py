"""Public data sets to the logs that the pipeline reads: `detect` knows a raw folder by its files."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from mmoe_ranker.errors import InputError
from pipelines.datasets import clara2, kuairand, trivago


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A public data set.

    Attributes:
      name: also the name of its preset config.
      files: raw file to the columns that its converter reads of it.
      convert: `convert(raw_folder, out)` writes `impressions.parquet` and `feedback.parquet` into `out`.
    """

    name: str
    files: dict[str, tuple[str, ...]]
    convert: Callable[[Path, Path], None]


DATASETS: dict[str, Dataset] = {
    name: Dataset(name, module.FILES, module.convert)
    for name, module in (("kuairand", kuairand), ("trivago", trivago), ("clara2", clara2))
}


def detect(folder: Path) -> Dataset:
    """The data set whose raw files a folder holds.

    Raises:
      InputError: the folder is missing, or holds no data set that is known.
    """
    if not folder.is_dir():
        raise InputError(f"The raw data must be a folder. Received: {str(folder)!r}, which is not one.")
    for dataset in DATASETS.values():
        if all(_has_columns(folder / file, columns) for file, columns in dataset.files.items()):
            return dataset
    known = "; ".join(f"{dataset.name} ({', '.join(dataset.files)})" for dataset in DATASETS.values())
    held = ", ".join(sorted(path.name for path in folder.iterdir())[:10]) or "nothing"
    raise InputError(
        f"The raw folder {folder} must hold a data set that is known, with its columns: {known}. Received: {held}."
    )


def _has_columns(path: Path, columns: tuple[str, ...]) -> bool:
    # trivago and clara2 name their one file alike, so its columns decide.
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        return False
    try:
        return set(columns) <= set(pq.read_schema(path).names)
    except (OSError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"The raw table {path} must be a readable Parquet file. Received: {reason}.") from None
