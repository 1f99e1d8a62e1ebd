"""The ranked-list log under full or hanging disks, kills and bad values: ranking never waits, each loss is counted."""

from __future__ import annotations

import errno
import logging
import math
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from serving.ranked_list_log import LogCounts, RankedListLog
from serving.rotating_files import RotatingFiles
from tests.serving.offered_lists import offer, records


def test_ranking_never_waits_for_a_disk_that_hangs(tmp_path, monkeypatch, caplog):
    working, hanging = threading.Event(), threading.Event()
    append = RotatingFiles.append

    def hang(files: RotatingFiles, line: bytes) -> None:
        hanging.set()
        assert working.wait(30)
        append(files, line)

    monkeypatch.setattr(RotatingFiles, "append", hang)
    with RankedListLog(tmp_path, max_waiting=10) as log:
        offer(log)
        assert hanging.wait(10)
        started = time.perf_counter()
        for _ in range(500):
            offer(log)
        assert time.perf_counter() - started < 5.0
        assert log.counts == LogCounts(offered=501, dropped=490)
        working.set()
    assert log.counts == LogCounts(offered=501, dropped=490, written=11)
    assert len(records(tmp_path)) == 11
    assert "lost 490 of 501 requests: 490 found its queue full, 0 could not be written." in caplog.text


def test_a_file_that_grows_is_hidden_and_stays_so_after_a_kill(tmp_path):
    code = (
        "import os, signal, sys, time\n"
        "from serving.ranked_list_log import RankedListLog\n"
        "log = RankedListLog(sys.argv[1])\n"
        "log.offer({}, [{'video_id': 'v1'}], [0], 1, {})\n"
        "while not any(os.path.getsize(e) for e in os.scandir(sys.argv[1])): time.sleep(0.01)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False, timeout=60)
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".ranked-lists-")
    assert left.name.endswith(".jsonl.part")


def test_a_program_that_ends_without_closing_writes_what_waits(tmp_path):
    code = (
        "import sys\n"
        "from serving.ranked_list_log import RankedListLog\n"
        "log = RankedListLog(sys.argv[1])\n"
        "for _ in range(20): log.offer({}, [{'video_id': 'v1'}], [0], 1, {})\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=60)
    assert len(records(tmp_path)) == 20


class SmallDisk:
    """os.pwrite on a disk of a few bytes: it writes what fits, then says ENOSPC."""

    def __init__(self, free: int) -> None:
        self.free = free
        self._pwrite = os.pwrite

    def pwrite(self, descriptor: int, data: bytes, place: int) -> int:
        if self.free == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = self._pwrite(descriptor, data[: self.free], place)
        self.free -= written
        return written


def test_a_full_disk_loses_records_and_nothing_else(tmp_path, monkeypatch, caplog):
    disk = SmallDisk(free=1500)
    monkeypatch.setattr(os, "pwrite", disk.pwrite)
    log = RankedListLog(tmp_path)
    for _ in range(10):
        offer(log)
    deadline = time.monotonic() + 20
    while log.counts.failed == 0 and time.monotonic() < deadline:
        time.sleep(0.01)
    while log._waiting and time.monotonic() < deadline:
        time.sleep(0.01)
    disk.free = 10**6  # somebody has cleared it: the half of a line that was left is written over
    offer(log, "after")
    log.close()
    counts = log.counts
    assert counts.failed >= 1
    assert counts == LogCounts(offered=11, failed=counts.failed, written=11 - counts.failed)
    assert len(records(tmp_path)) == counts.written
    assert records(tmp_path)[-1]["request_id"] == "after"
    assert "could not be written; the last failure was OSError: [Errno 28] No space left on device." in caplog.text


def test_a_disk_that_stays_full_leaves_whole_lines(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "pwrite", SmallDisk(free=1500).pwrite)
    with RankedListLog(tmp_path) as log:
        for _ in range(10):
            offer(log)
    assert 0 < log.counts.written == len(records(tmp_path)) < 10
    assert log.counts.failed == 10 - log.counts.written


def test_a_folder_that_was_removed_is_counted_and_made_again(tmp_path):
    folder = tmp_path / "logs"
    log = RankedListLog(folder, max_file_bytes=1)
    offer(log)
    deadline = time.monotonic() + 20
    while log.counts.written == 0 and time.monotonic() < deadline:
        time.sleep(0.01)
    shutil.rmtree(folder)
    offer(log, "again")
    log.close()
    assert log.counts == LogCounts(offered=2, written=2)
    assert [record["request_id"] for record in records(folder)] == ["again"]


def test_a_file_that_cannot_be_renamed_is_counted(tmp_path, monkeypatch, caplog):
    def refuse(*_: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "rename", refuse)
    with RankedListLog(tmp_path) as log:
        for _ in range(3):
            offer(log)
    assert log.counts == LogCounts(offered=3, failed=3)
    assert list(tmp_path.iterdir()) == []
    assert "PermissionError" in caplog.text


def test_a_value_without_json_is_counted_and_the_next_record_written(tmp_path, caplog):
    with RankedListLog(tmp_path) as log:
        offer(log, "bad", context={"user_id": {1, 2}})
        offer(log, "infinite", context={"age": math.inf})
        offer(log, "good")
    assert log.counts == LogCounts(offered=3, failed=2, written=1)
    assert [record["request_id"] for record in records(tmp_path)] == ["good"]
    assert "the last failure was ValueError" in caplog.text


def test_losses_are_said_once_a_minute(tmp_path, caplog):
    with caplog.at_level(logging.WARNING), RankedListLog(tmp_path) as log:
        for _ in range(30):
            offer(log, context={"user_id": {1}})
            time.sleep(0.001)
    assert len(caplog.records) <= 2
    assert caplog.records[-1].getMessage().startswith("The ranked-list log has lost 30 of 30 requests")


def test_a_closed_log_drops(tmp_path):
    log = RankedListLog(tmp_path)
    log.close()
    log.close()
    offer(log)
    assert log.counts == LogCounts(offered=1, dropped=1)
