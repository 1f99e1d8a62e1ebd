"""A file system of Beam's that lives in memory: `mem://bucket/path`, flat as object stores are."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any, ClassVar

from apache_beam.io.filesystem import BeamIOError, CompressedFile, CompressionTypes, FileMetadata, FileSystem

_ROOT = "mem://"


class _Written(io.BytesIO):
    """Appears as a file when it is closed, as an object of an object store does."""

    def __init__(self, path: str):
        super().__init__()
        self._path = path

    def close(self) -> None:
        if not self.closed:
            MemoryFileSystem.files[self._path] = self.getvalue()
        super().close()


class MemoryFileSystem(FileSystem):
    """Files by path; `log` has what was done, and `refuse` makes the writing or renaming of some paths fail."""

    files: ClassVar[dict[str, bytes]] = {}
    log: ClassVar[list[tuple[str, str]]] = []
    refuse: ClassVar[tuple[str, str] | None] = None

    @classmethod
    def empty(cls) -> None:
        """Nothing there, nothing refused."""
        cls.files, cls.log, cls.refuse = {}, [], None

    @classmethod
    def scheme(cls) -> str:
        return "mem"

    @classmethod
    def _note(cls, what: str, path: str) -> None:
        if cls.refuse is not None and cls.refuse[0] == what and cls.refuse[1] in path:
            raise BeamIOError(f"{what} refused", {path: OSError("out of order")})
        cls.log.append((what, path))

    def join(self, basepath: str, *paths: str) -> str:
        return "/".join([basepath.rstrip("/"), *(path.strip("/") for path in paths)])

    def split(self, path: str) -> tuple[str, str]:
        head, _, tail = path[len(_ROOT) :].rpartition("/")
        return _ROOT + head, tail

    def mkdirs(self, path: str) -> None:
        pass

    def has_dirs(self) -> bool:
        return False

    def _list(self, dir_or_prefix: str) -> Iterator[FileMetadata]:
        for path in sorted(self.files):
            if path.startswith(dir_or_prefix):
                yield FileMetadata(path, len(self.files[path]))

    def create(self, path: str, mime_type: str = "", compression_type: str = CompressionTypes.AUTO) -> Any:
        self._note("create", path)
        return _Written(path)

    def open(self, path: str, mime_type: str = "", compression_type: str = CompressionTypes.AUTO) -> Any:
        self._note("open", path)
        if path not in self.files:
            raise FileNotFoundError(path)
        if compression_type == CompressionTypes.AUTO:
            compression_type = CompressionTypes.detect_compression_type(path)
        file = io.BytesIO(self.files[path])
        return file if compression_type == CompressionTypes.UNCOMPRESSED else CompressedFile(file, compression_type)

    def copy(self, source_file_names: list[str], destination_file_names: list[str]) -> None:
        for source, target in zip(source_file_names, destination_file_names, strict=True):
            self.files[target] = self.files[source]

    def rename(self, source_file_names: list[str], destination_file_names: list[str]) -> None:
        for source, target in zip(source_file_names, destination_file_names, strict=True):
            self._note("rename", target)
            self.files[target] = self.files.pop(source)

    def exists(self, path: str) -> bool:
        return path in self.files

    def size(self, path: str) -> int:
        return len(self.files[path])

    def last_updated(self, path: str) -> float:
        return 0.0

    def checksum(self, path: str) -> str:
        return ""

    def metadata(self, path: str) -> FileMetadata:
        return FileMetadata(path, len(self.files[path]))

    def delete(self, paths: list[str]) -> None:
        for path in paths:
            for found in self.match([path])[0].metadata_list:
                self._note("delete", found.path)
                del self.files[found.path]
