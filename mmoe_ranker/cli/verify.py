"""The command that looks at an export before anyone serves it: `verify`."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mmoe_ranker.cli.options import FOLDER, allow_breaking_option, check_json_path, json_option, write_json
from mmoe_ranker.cli.terminal import elapsed, fail
from mmoe_ranker.errors import InputError

if TYPE_CHECKING:
    from serving.verifying.finding import Finding

_WIDTH = 110


@click.command()
@click.argument("model_dir", type=FOLDER)
@click.option("--version", type=click.IntRange(min=0), help="Which to check; the highest by default.")
@click.option(
    "--tensorflow-versions",
    metavar="VERSIONS",
    default="",
    help="Also run it on the C++ library of these, as 2.19,2.20; `previous` for the two before the installed one. "
    "Fetched from PyPI once.",
)
@allow_breaking_option
@json_option
def verify(
    model_dir: Path, version: int | None, tensorflow_versions: str, allow_breaking: bool, json_path: Path | None
) -> None:
    """Check a published version as TF Serving would see it; exit status 2 where a check fails.

    MODEL_DIR is a folder of versions, or one of them.
    """
    check_json_path(json_path)
    from serving.verifying.finding import Finding
    from serving.verifying.libraries import library_of, versions_of
    from serving.verifying.verification import verify as verify_version
    from serving.verifying.verification import versions_to_compare

    folder, previous = versions_to_compare(model_dir, version)
    others = versions_of(tensorflow_versions)
    with elapsed("verify"):
        findings = {"": verify_version(folder, previous, allow_breaking)}
        for other in others:
            try:
                place = library_of(other)
            except (InputError, OSError) as error:
                # What the others found is not lost for it, and no version is to blame.
                findings[other] = [Finding("library", "", "skipped", str(error))]
            else:
                findings[other] = verify_version(folder, previous, tensorflow=place)
    document = [
        {"tensorflow": library or "installed", **dataclasses.asdict(finding)}
        for library, found in findings.items()
        for finding in found
    ]
    write_json({"version": str(folder), "findings": document}, json_path)
    for library, found in findings.items():
        click.echo(f"{folder}{f' on TensorFlow {library}' if library else ''}")
        click.echo("\n".join(_lines(found)))
    failed = [(library, finding) for library, found in findings.items() for finding in found]
    failed = [(library, finding) for library, finding in failed if finding.status == "failed"]
    if failed:
        names = ", ".join(f"{finding.name}{f' on {library}' if library else ''}" for library, finding in failed)
        fail(f"{len(failed)} check(s) failed: {names}.", 2)
    missing = [library for library, found in findings.items() if any(each.check == "library" for each in found)]
    if missing:
        # Asked for and not done must not look like passed.
        fail(f"Nothing failed, but it was not run on TensorFlow {', '.join(missing)}.", 2)


def _lines(findings: Sequence[Finding]) -> Iterator[str]:
    for finding in findings:
        head = f"  {finding.status:8}{finding.name}: "
        yield from textwrap.wrap(head + finding.sentence, _WIDTH, subsequent_indent=" " * 10)
