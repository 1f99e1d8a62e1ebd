"""References inside a config: names used once, and every name that is referred to exists and is of the right kind.

Each check raises ValueError("path||what is wrong and allowed||received"), which `config_loading` makes a sentence of.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from mmoe_ranker.config_model import AdditiveTower, Adversarial, Anchored, NoBias

if TYPE_CHECKING:
    from mmoe_ranker.config import Config


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "nothing"


def _refuse(path: str, rule: str, received: object) -> None:
    raise ValueError(f"{path}||{rule}||{received!r}")


def _one_of(path: str, allowed: Iterable[str], received: str, what: str) -> None:
    allowed = tuple(allowed)
    if received not in allowed:
        _refuse(path, f"must name {what}; allowed: {_listed(allowed)}", received)


def check_references(config: Config) -> None:
    """Checks every name in the config.

    Raises:
      ValueError: as `path||rule||received`, at the first name that is used twice or refers to nothing.
    """
    _check_names(config)
    _check_features(config)
    _check_tables(config)
    _check_histories(config)
    _check_objectives(config)
    _check_bias(config)
    _check_training(config)
    _check_combined_score(config)
    if config.split.by is not None:
        contexts = [feature.name for feature in config.side("context") if feature.kind == "categorical"]
        _one_of("split.by", contexts, config.split.by, "a categorical feature of side context")
    _check_evaluation(config)


def _check_evaluation(config: Config) -> None:
    categorical = [feature.name for feature in config.features if feature.kind == "categorical"]
    for position, name in enumerate(config.evaluation.group_by):
        _one_of(f"evaluation.group_by.{position}", categorical, name, "a categorical feature")
    sliced = [feature.name for feature in config.features if feature.kind != "vector"]
    for position, name in enumerate(config.evaluation.slices):
        _one_of(f"evaluation.slices.{position}", sliced, name, "a feature that is no vector")
    units = ["request_id", *(feature.name for feature in config.side("context") if feature.kind == "categorical")]
    what = "request_id, or a categorical feature of side context"
    _one_of("evaluation.bootstrap.by", units, config.evaluation.bootstrap.by, what)


def _check_names(config: Config) -> None:
    from mmoe_ranker.config import RESERVED_NAMES

    seen: set[str] = set()
    for section, entries in (("features", config.features), ("objectives", config.objectives)):
        for position, entry in enumerate(entries):
            path = f"{section}.{position}.name"
            if entry.name in seen:
                _refuse(path, "must be a name not used before by a feature or an objective", entry.name)
            if entry.name in RESERVED_NAMES or entry.name.endswith(("_label", "_logit")):
                _refuse(path, f"must not be one of {_listed(RESERVED_NAMES)}, nor end in _label or _logit", entry.name)
            seen.add(entry.name)
    if not config.served_features:
        _refuse("features", "must have at least one feature of side context or candidate", "none")
    key = [feature for feature in config.features if feature.name == config.item_key]
    if key and (key[0].side != "candidate" or key[0].kind != "categorical"):
        _refuse("item_key", "must name a categorical feature of side candidate, or no feature", config.item_key)


def _check_features(config: Config) -> None:
    categorical = {feature.name: feature for feature in config.features if feature.kind == "categorical"}
    for position, feature in enumerate(config.features):
        path = f"features.{position}"
        if feature.side == "bias" and feature.kind != "categorical" and feature.name != config.training.sample_weight:
            rule = f"must be categorical for `{feature.name}`, which is of side bias and not `training.sample_weight`"
            _refuse(f"{path}.kind", rule, feature.kind)
        if feature.kind == "sequence" and feature.embedding is not None:
            tables = [name for name, table in categorical.items() if table.side != "bias"]
            _one_of(
                f"{path}.embedding", tables, feature.embedding, "a categorical feature of side context or candidate"
            )
        if feature.kind == "sequence" and feature.pooling == "attention" and feature.embedding != config.item_key:
            rule = f"must be {config.item_key!r}, the item key, where `pooling` is attention from the candidate"
            _refuse(f"{path}.embedding", rule, feature.embedding)


def _check_tables(config: Config) -> None:
    keys = {f.name: f.side for f in config.logged("context", "candidate") if f.kind == "categorical"}
    keys[config.item_key] = "candidate"
    used = [feature.table for feature in config.features]
    tables: dict[str, str] = {}
    for position, table in enumerate(config.tables):
        path = f"tables.{position}"
        if table.name in tables:
            _refuse(f"{path}.name", "must be a name not used before by a table", table.name)
        if table.name not in used:
            _refuse(
                f"{path}.name", f"must be the `table` of a feature; used: {_listed(filter(None, used))}", table.name
            )
        what = "the item key, or a categorical feature of side context or candidate that is in the impressions log"
        _one_of(f"{path}.key", keys, table.key, what)
        tables[table.name] = table.key
    for position, feature in enumerate(config.features):
        path = f"features.{position}"
        if feature.name == config.item_key and not feature.is_logged:
            _refuse(f"{path}.table", "must be null for the item key, which is in the impressions log", feature.table)
        if feature.table is None:
            continue
        _one_of(f"{path}.table", tables, feature.table, "an entry of `tables`")
        key = tables[feature.table]
        if feature.side != keys[key]:
            rule = f"must be {keys[key]}, as for `{key}`, which is the key of the table `{feature.table}`"
            _refuse(f"{path}.side", rule, feature.side)


def _check_histories(config: Config) -> None:
    users = [feature.name for feature in config.logged("context") if feature.kind == "categorical"]
    for position, feature in enumerate(config.features):
        if feature.kind != "sequence" or feature.history is None:
            continue
        path = f"features.{position}"
        if feature.side != "context":
            _refuse(
                f"{path}.side", "must be context where the sequence has a `history`, which is of a user", feature.side
            )
        what = "a categorical feature of side context that is in the impressions log"
        _one_of(f"{path}.history.by", users, feature.history.by, what)
        if config.split.by not in (None, feature.history.by):
            rule = f"must be {config.split.by!r}, as `split.by`: labels of one split would be in histories of another"
            _refuse(f"{path}.history.by", rule, feature.history.by)
        events = dict.fromkeys(objective.event for objective in config.objectives)
        _one_of(f"{path}.history.event", events, feature.history.event, "the event of an objective")
        if feature.embedding not in (None, config.item_key):
            rule = f"must be {config.item_key!r}, the item key, or null where the sequence has a `history` of items"
            _refuse(f"{path}.embedding", rule, feature.embedding)
        if feature.is_integer:
            _refuse(f"{path}.size", "must be null where the sequence has a `history` of items", feature.size)


def _check_objectives(config: Config) -> None:
    binary = [objective.name for objective in config.objectives if objective.kind == "binary"]
    given = {objective.name: objective.given for objective in config.objectives}
    for position, objective in enumerate(config.objectives):
        if objective.given is None:
            continue
        path = f"objectives.{position}.given"
        _one_of(path, [name for name in binary if name != objective.name], objective.given, "another binary objective")
        followed = [objective.name]
        while (parent := given[followed[-1]]) is not None:
            if parent in followed:
                _refuse(path, "must not lead back to the objective itself", " -> ".join([*followed, parent]))
            followed.append(parent)


def _check_bias(config: Config) -> None:
    bias = config.model.bias
    if isinstance(bias, NoBias):
        return
    # A served feature is in the main tower anyway; only an additive tower can have a use for it as well.
    sides = ("bias", "context") if isinstance(bias, AdditiveTower) else ("bias",)
    allowed = [feature.name for feature in config.side(*sides) if feature.kind == "categorical"]
    for position, name in enumerate(bias.features):
        what = f"a categorical feature of side {' or '.join(sides)}"
        _one_of(f"model.bias.features.{position}", allowed, name, what)
        if getattr(config.feature(name), "hashes", 1) == 2:
            _refuse(f"model.bias.features.{position}", "must be a feature with one row a value (`hashes: 1`)", name)
    _each_once("model.bias.features", bias.features)
    unserved = sorted({feature.name for feature in config.side("bias")} & set(bias.features))
    if unserved and not isinstance(bias, Adversarial) and bias.dropout == 0:
        rule = f"must be above 0, so that the missing value of {_listed(unserved)} is trained, which serving uses"
        _refuse("model.bias.dropout", rule, bias.dropout)
    if isinstance(bias, AdditiveTower):
        _check_tower(config, bias)
    if isinstance(bias, Anchored):
        _check_anchor(config, bias)


def _check_tower(config: Config, bias: AdditiveTower) -> None:
    for position, cross in enumerate(bias.cross):
        path = f"model.bias.cross.{position}"
        for place, name in enumerate(cross):
            _one_of(f"{path}.{place}", bias.features, name, "one of `model.bias.features`")
        _each_once(path, cross)
        if set(cross) in [set(earlier) for earlier in bias.cross[:position]]:
            _refuse(path, "must be another cross than those before it", list(cross))
    for position, name in enumerate(bias.objectives):
        _one_of(f"model.bias.objectives.{position}", config.objective_names, name, "an objective")
    _each_once("model.bias.objectives", bias.objectives)


def _check_anchor(config: Config, bias: Anchored) -> None:
    binary = [o.name for o in config.objectives if o.kind == "binary" and o.space == "conditional"]
    for position, name in enumerate(bias.objectives):
        _one_of(f"model.bias.objectives.{position}", binary, name, "a binary objective of `space: conditional`")
    unserved = [feature.name for feature in config.side("bias")]
    if not set(unserved) & set(bias.features):
        rule = f"must name a feature of side bias, which is missing at serving; allowed: {_listed(unserved)}"
        _refuse("model.bias.features", rule, list(bias.features))
    if bias.random_order is not None:
        flags = [f.name for f in config.side("bias") if f.kind == "categorical" and f.name not in bias.features]
        what = "a categorical feature of side bias that is not among `model.bias.features`"
        _one_of("model.bias.random_order", flags, bias.random_order, what)
    kind = config.training.distribution.kind
    if kind != "none":
        rule = "must be none where `model.bias` is of kind anchored, whose numbers follow the batches one by one"
        _refuse("training.distribution.kind", rule, kind)


def _each_once(path: str, names: tuple[str, ...]) -> None:
    if len(set(names)) != len(names):
        _refuse(path, "must name each once", list(names))


def _check_training(config: Config) -> None:
    weight = config.training.sample_weight
    if weight is not None:
        allowed = [f.name for f in config.side("bias") if f.kind == "numeric"]
        _one_of("training.sample_weight", allowed, weight, "a numeric feature of side bias")
        feature: Any = config.feature(weight)
        if feature.transform != "none" or feature.quantiles is not None:
            rule = "must name a feature that is used as it stands, with `transform: none` and without `quantiles`"
            _refuse("training.sample_weight", rule, weight)
    kind = config.training.distribution.kind
    if config.training.early_stopping is not None and kind in ("multi_worker", "parameter_server"):
        rule = f"must be null where `training.distribution` is of kind {kind}, which has no validation between passes"
        _refuse("training.early_stopping", rule, config.training.early_stopping.model_dump())
    if config.sampling is not None and config.sampling.correction == "export":
        for position, objective in enumerate(config.objectives):
            if objective.kind == "regression" and objective.without_event == "zero":
                rule = "must be missing where `sampling.correction` is export, which cannot bring dropped zeros back"
                _refuse(f"objectives.{position}.without_event", rule, objective.without_event)


def _check_combined_score(config: Config) -> None:
    binary = [objective.name for objective in config.objectives if objective.kind == "binary"]
    for name, term in config.combined_score.terms.items():
        _one_of(f"combined_score.terms.{name}", config.objective_names, name, "an objective")
        if term.complement and name not in binary:
            _refuse(f"combined_score.terms.{name}.complement", "must be false for a regression objective", True)
