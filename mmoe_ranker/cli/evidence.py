"""Commands that look at trained rankers: `compare`, `report`, `score-weights`."""

from __future__ import annotations

from pathlib import Path

import click

from mmoe_ranker.cli.options import FOLDER, by_name, check_json_path, json_option, write_json
from mmoe_ranker.cli.terminal import elapsed
from mmoe_ranker.errors import InputError

level_option = click.option(
    "--level", type=click.FloatRange(0, 0.999, min_open=True), default=0.95, show_default=True,
    help="Coverage of the intervals.",
)  # fmt: skip
examples_option = click.option(
    "--examples", "examples_path", type=FOLDER, help="Folder of examples; by default the one evaluated or trained on."
)


@click.command("score-weights")
@click.option("--workdir", type=FOLDER, required=True)
@examples_option
@click.option("--split", type=click.Choice(["train", "validation"]), default="validation", show_default=True)
@click.option(
    "--check", "checked", type=click.Choice(["validation", "test"]), help="Judge what is found on this split."
)
@click.option("--out", type=FOLDER, help="Folder to write; by default WORKDIR/score_weights.")
@click.option("--trials", type=click.IntRange(min=1), default=1000, show_default=True, help="Weights to try.")
@level_option
def score_weights(
    workdir: Path,
    examples_path: Path | None,
    split: str,
    checked: str | None,
    out: Path | None,
    trials: int,
    level: float,
) -> None:
    """Say what each term of the combined score does, and search its weights; writes a table, a plot and YAML."""
    from mmoe_ranker.saved_evaluation import load_evaluation
    from mmoe_ranker.weight_report import check_replaceable, format_checked, format_search, write_search
    from mmoe_ranker.weight_search import check, search_weights

    if checked == split:
        raise InputError(f"`--check` must be another split than `--split`. Received: {checked!r} for both.")
    out = out or workdir / "score_weights"
    check_replaceable(out)
    evaluation = load_evaluation(workdir, split, examples_path)
    with elapsed("score-weights"):
        search = search_weights(evaluation.predictions, evaluation.config, trials, level)
    click.echo(format_search(search, split))
    elsewhere = {}
    if checked is not None:
        elsewhere[checked] = check(search, load_evaluation(workdir, checked, examples_path).predictions)
        click.echo(format_checked(search, elsewhere[checked], checked))
    written = write_search(search, evaluation.config, split, elsewhere, out)
    click.echo(f"Wrote {', '.join(written)} to {out}.")


@click.command()
@click.argument("run_a", type=FOLDER)
@click.argument("run_b", type=FOLDER)
@examples_option
@click.option("--split", type=click.Choice(["train", "validation", "test"]), default="test", show_default=True)
@level_option
@click.option(
    "--judge-by", "judged", multiple=True, metavar="OBJECTIVE=METRIC", help="The metric of an objective's verdict."
)
@click.option("--common", is_flag=True, help="Where the impressions differ, compare those in both.")
@json_option
def compare(
    run_a: Path,
    run_b: Path,
    examples_path: Path | None,
    split: str,
    level: float,
    judged: tuple[str, ...],
    common: bool,
    json_path: Path | None,
) -> None:
    """Hold RUN_B against RUN_A, workdirs of two trainings, on the same impressions; a verdict an objective."""
    from mmoe_ranker.comparison import compare as compare_runs
    from mmoe_ranker.comparison_text import comparison_document, format_comparison
    from mmoe_ranker.saved_evaluation import load_evaluation

    check_json_path(json_path)
    judge_by = by_name(judged, "`--judge-by` must read OBJECTIVE=METRIC, each objective once")
    first, second = (load_evaluation(run, split, examples_path) for run in (run_a, run_b))
    with elapsed("compare"):
        comparison = compare_runs(first, second, level, judge_by, common)
    write_json(comparison_document(comparison), json_path)
    click.echo(format_comparison(comparison))


@click.command()
@click.option("--workdir", type=FOLDER, required=True)
@examples_option
@click.option("--split", type=click.Choice(["train", "validation", "test"]), default="test", show_default=True)
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="File to write; by default WORKDIR/report.html."
)
def report(workdir: Path, examples_path: Path | None, split: str, out: Path | None) -> None:
    """Write a page on a training and its evaluation: one HTML file that needs no network."""
    out = out or workdir / "report.html"
    if not out.parent.is_dir():
        raise InputError(f"The folder of `--out` must exist. Received: {str(out)!r}.")
    from mmoe_ranker.report import write_report

    with elapsed("report"):
        problem = write_report(workdir, split, examples_path, out)
    if problem is not None:
        click.echo(f"The page has no evaluation: {problem}", err=True)
    click.echo(f"Wrote {out}.")
