"""What a search for weights leaves behind: text for a terminal, and a folder with table, plot, YAML and JSON."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import yaml

from mmoe_ranker import weight_plots
from mmoe_ranker.config import Config
from mmoe_ranker.errors import InputError
from mmoe_ranker.json_numbers import without_nan
from mmoe_ranker.text_table import difference, number, table
from mmoe_ranker.weight_search import CURRENT, Point, WeightSearch
from mmoe_ranker.whole_files import writing_whole

_DOCUMENT = "score_weights.json"


def format_search(search: WeightSearch, split: str) -> str:
    """The search as text: what each term does, then the weights worth a look.

    Args:
        search: To print.
        split: That it was made on.
    """
    lines = [f"{split}: {search.impressions:,} impressions, {search.requests:,} requests"]
    lines += ["", *table(_effect_rows(search)), ""]
    tried, front = len(search.weights), int(search.front.sum())
    if search.signs:
        lines += [f"{tried:,} weights tried; no others beat {front:,} of them in all of {_directions(search)}."]
    else:
        lines += ["No objective of the combined score has an NDCG on these impressions: there is nothing to seek."]
    weights = [
        {"weights": name}
        | {term: f"{weight:.4g}" for term, weight in zip(search.score.objectives, point.weights, strict=True)}
        for name, point in search.points.items()
    ]
    lines += ["", *table(weights), "", format_checked(search, search.points, split)]
    if len(search.points) > 1:
        lines.append(f"These were chosen on {split}, where chance flatters them; --check judges them on another split.")
    return "\n".join([*lines, *([""] if search.notes else []), *search.notes])


def format_checked(search: WeightSearch, points: Mapping[str, Point], split: str) -> str:
    """The points as text: what they gain against the current weights.

    Args:
        search: That found them.
        points: Its own, or as `weight_search.check` judges them on another split.
        split: That these gains are of.
    """
    current = points[CURRENT]
    heads = {name: f"{name} (less is better)" if search.signs.get(name) == -1 else name for name in current.ndcg}
    gains = [{"": f"{CURRENT} NDCG@{search.k}"} | {heads[name]: number(value) for name, value in current.ndcg.items()}]
    gains += [
        {"": f"{name} gains"} | {heads[label]: difference(interval) for label, interval in point.gains.items()}
        for name, point in points.items()
        if name != CURRENT
    ]
    what = (
        f"Gains in NDCG@{search.k} on {split}, with paired bootstrap intervals of {100 * search.level:g} % over "
        "requests (* without 0):"
    )
    return "\n".join([what, *table(gains)])


def check_replaceable(out: Path) -> None:
    """Checks that nothing of others would be lost.

    Raises:
        InputError: `out` is a file, or holds something that no search wrote.
    """
    if out.exists() and not (out / _DOCUMENT).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(
            "The output must be a new or empty folder, or one that `mmoe-ranker score-weights` wrote. "
            f"Received: {str(out)!r}."
        )


def write_search(
    search: WeightSearch, config: Config, split: str, checked: Mapping[str, Mapping[str, Point]], out: Path
) -> list[str]:
    """Writes `weights.csv`, `score_weights.json`, `<point>.yaml` for each point, and `weights.png`, whole.

    A plot needs two objectives with a term and an NDCG.

    Args:
        search: To write.
        config: The config that trained.
        split: That the search was made on.
        checked: By other split, its points as judged there.
        out: Folder, replaced where it is there.

    Returns:
        Names of the files.
    """
    with writing_whole(out) as folder:
        (folder / "weights.csv").write_text(weights_csv(search), encoding="utf-8")
        document = json.dumps(search_document(search, split, checked), indent=1)
        (folder / _DOCUMENT).write_text(document + "\n", encoding="utf-8")
        for name, point in search.points.items():
            (folder / f"{name}.yaml").write_text(score_block(config, search, point), encoding="utf-8")
        if len(search.signs) > 1:
            columns = [search.labels.index(name) for name in search.signs]
            figure = weight_plots.weight_front(
                search.ndcg[:, columns],
                search.front,
                list(search.signs),
                [name for name, sign in search.signs.items() if sign < 0],
                {name: [point.ndcg[label] for label in search.signs] for name, point in search.points.items()},
                f"NDCG@{search.k}",
            )
            figure.savefig(folder / "weights.png", dpi=110)
            plt.close(figure)
        return sorted(file.name for file in folder.iterdir())


def score_block(config: Config, search: WeightSearch, point: Point) -> str:
    """The `combined_score` section of a config with the weights of a point, as YAML.

    Args:
        config: The config that trained; form, offsets and complements stay.
        search: That found the point.
        point: Whose weights are taken.
    """
    section = config.combined_score.model_dump(mode="json")
    weights = dict(zip(search.score.objectives, point.weights.tolist(), strict=True))
    for name, term in section["terms"].items():
        term["weight"] = weights[name]
    return yaml.safe_dump({"combined_score": section}, sort_keys=False, default_flow_style=None, width=120)


def weights_csv(search: WeightSearch) -> str:
    """All weights that were tried, as CSV: a weight a term, NDCG by label, whether on the front, what chosen for."""
    chosen: dict[bytes, list[str]] = {}
    for name, point in search.points.items():
        chosen.setdefault(point.weights.tobytes(), []).append(name)
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    labels = [f"ndcg@{search.k} {name}" for name in search.labels]
    writer.writerow([*(f"weight {name}" for name in search.score.objectives), *labels, "front", "chosen"])
    for weights, ndcg, front in zip(search.weights, search.ndcg.tolist(), search.front, strict=True):
        cells = ["" if math.isnan(value) else f"{value:.6f}" for value in ndcg]
        writer.writerow([*weights.tolist(), *cells, int(front), " ".join(chosen.get(weights.tobytes(), []))])
    return file.getvalue()


def search_document(search: WeightSearch, split: str, checked: Mapping[str, Mapping[str, Point]]) -> dict[str, Any]:
    """What a search found, for JSON; a value that is not defined is None.

    Args:
        search: To write.
        split: That it was made on.
        checked: By other split, its points as judged there.
    """
    return {
        "split": split,
        "impressions": search.impressions,
        "requests": search.requests,
        "level": search.level,
        "terms": {name: without_nan(effect._asdict()) for name, effect in search.effects.items()},
        "lower_is_better": [name for name, sign in search.signs.items() if sign < 0],
        "tried": len(search.weights),
        "front": int(search.front.sum()),
        "points": {on: _points(search, points) for on, points in {split: search.points, **checked}.items()},
        "notes": list(search.notes),
    }


def _points(search: WeightSearch, points: Mapping[str, Point]) -> dict[str, Any]:
    return {
        name: {
            "weights": dict(zip(search.score.objectives, point.weights.tolist(), strict=True)),
            f"ndcg@{search.k}": without_nan(point.ndcg),
            "gains": {
                label: without_nan(dict(zip(("gain", "low", "high"), interval, strict=True)))
                for label, interval in point.gains.items()
            },
        }
        for name, point in points.items()
    }


def _effect_rows(search: WeightSearch) -> list[dict[str, str]]:
    what = "log score" if search.score.form == "weighted_product" else "score"
    return [
        {
            "term": name,
            "weight": f"{weight:.4g}",
            f"mean in the {what}": number(effect.mean),
            "spread within requests": number(effect.spread),
            "share of the order": number(effect.share),
        }
        for (name, effect), weight in zip(search.effects.items(), search.score.weights, strict=True)
    ]


def _directions(search: WeightSearch) -> str:
    return ", ".join(
        f"NDCG of {name}" + (" (less is better)" if sign < 0 else "") for name, sign in search.signs.items()
    )
