"""Whether examples that were built with one config can be trained on with another.

What the pipeline did cannot be undone by an override at training: a vocabulary that was counted with another
`min_count`, or a label of another event, would be used silently. Widths, learning rates and the like are free, and a
config that trains may leave features and objectives out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmoe_ranker.config import Config
from mmoe_ranker.errors import InputError

# Keys of a feature or an objective that say what stands in the examples and their statistics.
_OF_FEATURES = (
    *("kind", "side", "vocabulary", "min_count", "size", "transform", "quantiles", "max_length", "embedding"),
    *("table", "column", "history"),
)
_OF_TABLES = ("key", "timestamp")
_OF_OBJECTIVES = ("kind", "event", "given", "transform", "without_event", "window", "aggregate", "at_least")


def check_built_with(config: Config, built_with: Config, examples: Path) -> None:
    """Checks that the examples hold what the config wants of them.

    Args:
      config: that trains.
      built_with: that the examples were built with.
      examples: their folder, for the message.

    Raises:
      InputError: a feature or an objective is not in the examples, or was built otherwise.
    """
    if config.item_key != built_with.item_key:
        _refuse("item_key", built_with.item_key, config.item_key, examples)
    for section in ("join", "split"):
        built, wanted = getattr(built_with, section), getattr(config, section)
        if built != wanted:
            _refuse(section, built, wanted, examples)
    # How it is corrected is free, since the examples hold what each correction needs.
    built_share, share = (one.sampling and one.sampling.negatives for one in (built_with, config))
    if share != built_share:
        _refuse("sampling.negatives", built_share, share, examples)
    for section, keys in (("features", _OF_FEATURES), ("tables", _OF_TABLES), ("objectives", _OF_OBJECTIVES)):
        there = {entry.name: entry for entry in getattr(built_with, section)}
        for entry in getattr(config, section):
            if entry.name not in there:
                _refuse(f"{section}.{entry.name}", f"one of {', '.join(there)}", entry.name, examples)
            for key in keys:
                built, wanted = getattr(there[entry.name], key, None), getattr(entry, key, None)
                if built != wanted:
                    _refuse(f"{section}.{entry.name}.{key}", repr(built), repr(wanted), examples)


def _refuse(path: str, built: Any, wanted: Any, examples: Path) -> None:
    raise InputError(
        f"`{path}` must be {built}, as the examples in {str(examples)!r} were built: build them again with the config "
        f"that trains, or train with theirs. Received: {wanted}."
    )
