"""Reads a config: a YAML file or a preset's name, dotted overrides, and one sentence for each mistake.

A mistake is named by its path (`model.sharing.experts`), what is allowed there, and what was received.
"""

from __future__ import annotations

import difflib
import functools
import importlib.resources
import os
import re
import types
import typing
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from mmoe_ranker.config import Config
from mmoe_ranker.errors import InputError

_Model = TypeVar("_Model", bound=BaseModel)

_PRESETS = importlib.resources.files("mmoe_ranker") / "presets"


def preset_names() -> tuple[str, ...]:
    """The configs that ship with the package, usable wherever a config file is."""
    return tuple(sorted(entry.name[: -len(".yaml")] for entry in _PRESETS.iterdir() if entry.name.endswith(".yaml")))


def load_config(source: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Config:
    """Reads a YAML file, or the preset of that name, and applies `key.path=value` overrides.

    Args:
      source: a path; or a preset's name, where no such file exists.
      overrides: `training.epochs=2`, `features.video_id.dim=8` (a list entry by its `name` or its index); the value is
        read as YAML.

    Raises:
      InputError: the file is missing or not YAML, an override leads nowhere, or the config breaks a rule.
    """
    text, where = _read(source)
    raw = parse_mapping(text, f"The config {where}")
    for override in overrides:
        _apply(raw, override)
    return parse_config(raw, where)


def parse_config(raw: Mapping[str, Any], where: str = "given") -> Config:
    """Checks a mapping and returns it as a Config.

    Raises:
      InputError: one sentence a mistake, each naming its path, what is allowed and what was received.
    """
    return validated(Config, raw, f"The config {where}")


def parse_mapping(text: str, what: str) -> dict[str, Any]:
    """Reads YAML that must be a mapping, each of its keys once; `what` begins the sentence for a mistake.

    Raises:
      InputError: the text is no mapping, or has a key twice.
    """
    try:
        raw = yaml.load(text, _OneValueAKey)
    except (yaml.YAMLError, RecursionError) as error:
        raise InputError(f"{what} must be a YAML mapping. Received: {' '.join(str(error).split())}.") from None
    if not isinstance(raw, dict):
        raise InputError(f"{what} must be a YAML mapping. Received: {type(raw).__name__}.")
    return raw


def validated(model: type[_Model], raw: Mapping[str, Any], what: str) -> _Model:
    """Checks a mapping against a model of pydantic, with the sentences of the config for its mistakes.

    Args:
      model: what it must be.
      raw: the mapping.
      what: begins the sentence for a mistake.

    Raises:
      InputError: one sentence a mistake, each naming its path, what is allowed and what was received.
    """
    try:
        return model.model_validate(dict(raw))
    except ValidationError as error:
        sentences = [_sentence(dict(detail), model) for detail in error.errors()]
        raise InputError(f"{what} is not valid: " + "\n".join(sentences)) from None


def override_config(config: Config, overrides: Mapping[str, Any]) -> Config:
    """The config with other values at some keys, checked as a whole again.

    Args:
      config: to change; it stays as it is.
      overrides: values by dotted key, such as `training.optimizer.learning_rate`, each as YAML would give it.

    Raises:
      InputError: a key leads nowhere, or the changed config breaks a rule.
    """
    raw = config.model_dump(mode="json")
    for path, value in overrides.items():
        _put(raw, path, value)
    return parse_config(raw, f"`{config.name}`")


def dump_config(config: Config) -> str:
    """The whole config as YAML, defaults included; `parse_config` reads it back to an equal one."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, width=120)


def _read(source: str | os.PathLike[str]) -> tuple[str, str]:
    path = Path(source)
    preset = _PRESETS / f"{source}.yaml"
    if not path.is_file() and str(source) in preset_names():
        return preset.read_text(encoding="utf-8"), f"`{source}` (a preset)"
    try:
        return path.read_text(encoding="utf-8"), f"`{path}`"
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        presets = ", ".join(preset_names())
        raise InputError(
            f"The config must be a readable YAML file or a preset ({presets}); {reason}. Received: {str(source)!r}."
        ) from None


class _OneValueAKey(yaml.SafeLoader):
    """Refuses a key that stands twice in a mapping, where YAML would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping, each key once."""
        seen: set[str] = set()
        for key_node, _ in node.value:
            # A merge may stand beside others; what is no scalar is no key of ours, and refused further on.
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag == "tag:yaml.org,2002:merge":
                continue
            if key_node.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key_node.value!r} stands twice in one mapping", key_node.start_mark
                )
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


def _apply(raw: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    if not equals or not path:
        raise InputError(f"An override must read key.path=value. Received: {override!r}.")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise InputError(f"The value of the override `{path}` must be YAML. Received: {text!r}.") from None
    _put(raw, path, value)


def _put(raw: dict[str, Any], path: str, value: Any) -> None:
    keys = path.split(".")
    node: Any = raw
    for depth, key in enumerate(keys):
        index: Any = key
        if isinstance(node, list):
            index = _list_index(node, key, path)
        elif not isinstance(node, dict):
            parent = ".".join(keys[:depth])
            raise InputError(
                f"The override `{path}` must lead into a mapping, but `{parent}` is a value. Received: {node!r}."
            )
        if depth == len(keys) - 1:
            node[index] = value
        else:
            # A section that the file leaves to its defaults may still be overridden; a misspelled one fails validation.
            node = node.setdefault(index, {}) if isinstance(node, dict) else node[index]


def _list_index(node: list[Any], key: str, path: str) -> int:
    names = [entry.get("name") if isinstance(entry, dict) else None for entry in node]
    if key in names:
        return names.index(key)
    if key.isdecimal() and int(key) < len(node):
        return int(key)
    allowed = ", ".join(name for name in names if name) or f"0 to {len(node) - 1}"
    raise InputError(f"The override `{path}` must name an entry of its list; allowed: {allowed}. Received: {key!r}.")


def _sentence(detail: dict[str, Any], root: type[BaseModel]) -> str:
    tags = _tags(root)
    path = [str(part) for part in detail["loc"] if not _is_union_tag(part, detail["loc"], tags)]
    received, kind, context = detail["input"], detail["type"], detail.get("ctx", {})
    if kind == "value_error":
        parts = str(context["error"]).split("||")
        if len(parts) == 3:
            return f"`{parts[0]}` {parts[1]}. Received: {parts[2]}."
        return f"`{'.'.join(path) or 'config'}` {parts[0]}. Received: {parts[1]}."
    if kind == "extra_forbidden":
        allowed = _fields_at(detail["loc"][:-1], root, tags)
        near = difflib.get_close_matches(path[-1], allowed, n=1)
        hint = f" (did you mean `{near[0]}`?)" if near else ""
        return f"`{'.'.join(path)}` is not a key here{hint}; allowed: {', '.join(allowed)}. Received: {path[-1]!r}."
    if kind == "missing":
        return f"`{'.'.join(path)}` must be given. Received: nothing."
    if kind == "union_tag_not_found":
        return f"`{'.'.join([*path, 'kind'])}` must be given. Received: nothing."
    if kind == "union_tag_invalid":
        return f"`{'.'.join([*path, 'kind'])}` must be one of {context['expected_tags']}. Received: {context['tag']!r}."
    rule = re.sub(r"^(Input|Value|String|List|Dictionary|Tuple|Mapping) ", "", detail["msg"])
    if not rule.startswith(("should", "must")):
        rule = f"must be valid: {rule}"
    return f"`{'.'.join(path)}` {rule.replace('should', 'must', 1)}. Received: {received!r}."


def _is_union_tag(part: object, location: tuple[object, ...], tags: Container[object]) -> bool:
    # pydantic puts the chosen member of a union by `kind` into the path, after a list index or the field's name.
    return (isinstance(part, str) and part in tags and location.index(part) > 0) or part == "[key]"


def _models(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if isinstance(annotation, types.GenericAlias) or typing.get_origin(annotation) is not None:
        return [model for argument in typing.get_args(annotation) for model in _models(argument)]
    return []


def _tag(model: type[BaseModel]) -> str | None:
    kind = model.model_fields.get("kind")
    return typing.get_args(kind.annotation)[0] if kind is not None else None


def _all_models(model: type[BaseModel]) -> list[type[BaseModel]]:
    below = [inner for field in model.model_fields.values() for inner in _models(field.annotation)]
    return [model, *(deep for inner in below for deep in _all_models(inner))]


@functools.lru_cache
def _tags(root: type[BaseModel]) -> frozenset[str]:
    return frozenset(tag for model in _all_models(root) if (tag := _tag(model)) is not None)


def _fields_at(location: tuple[object, ...], root: type[BaseModel], tags: Container[object]) -> list[str]:
    candidates: list[type[BaseModel]] = [root]
    for part in location:
        if isinstance(part, str) and any(part in model.model_fields for model in candidates):
            fields = [model.model_fields[part] for model in candidates if part in model.model_fields]
            candidates = [inner for field in fields for inner in _models(field.annotation)]
        elif part in tags:
            candidates = [model for model in candidates if _tag(model) == part]
    return sorted({name for model in candidates for name in model.model_fields})
