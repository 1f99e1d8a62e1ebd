"""A page, and a browser to look at it with."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mmoe_ranker.errors import InputError
from mmoe_ranker.report import write_report
from mmoe_ranker.saved_evaluation import SavedEvaluation
from tests.report.worlds import evaluation_in, report_config, report_predictions

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


class Written:
    """A report on arrays, written to disk."""

    def __init__(self, folder: Path, evaluation: SavedEvaluation, validation: SavedEvaluation | None = None) -> None:
        self.evaluation, self.validation = evaluation, validation
        self.file = folder / "report.html"

        def load(workdir: Path, split: str, examples: Path | None) -> SavedEvaluation:
            found = {"test": evaluation, "validation": validation}[split]
            if found is None:
                raise InputError(f"The split must hold examples. Received: none in {split!r}.")
            return found

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("mmoe_ranker.report.load_evaluation", load)
            self.problem = write_report(evaluation.workdir, "test", None, self.file)
        self.html = self.file.read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """The page of the documentation's config."""
    folder = tmp_path_factory.mktemp("report")
    test = evaluation_in(folder, report_config(), report_predictions())
    validation = dataclasses.replace(test, split="validation", predictions=report_predictions(seed=6))
    return Written(folder, test, validation)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Headless Chromium; tests that need it are skipped where there is none."""
    path = next((found for name in _BROWSERS if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip(
            f"the page is looked at in a browser, and none of {', '.join(_BROWSERS)} is on the PATH "
            "(`make browser` installs one on Debian)"
        )
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield chromium
        chromium.close()
