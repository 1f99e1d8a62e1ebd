"""The signatures of a version: what no caller could use, and what would break those who call the version before.

A change is breaking where a request that the last version answered would be refused, or an answer would lack or mean
something else: TF Serving refuses an input that the signature does not have as well as one that is left out without a
default. `score_weights` are given by position, so the order of the objectives is part of what callers rely on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from serving.protos import DT_FLOAT, DT_INT64, DT_STRING
from serving.tensor_codec import NUMBERS, decode
from serving.verifying.finding import Finding, found
from serving.verifying.graph import Graph

_SCORE_WEIGHTS = "score_weights"
_SENDABLE = (DT_FLOAT, DT_INT64, DT_STRING)


def check_inputs(graph: Graph) -> Iterator[Finding]:
    """Whether the inputs are those that a ranker may have, with types that clients send, and with right defaults."""
    contract = graph.contract() or {}
    yield _check_bias(graph, contract.get("bias_features"))
    problems = [
        f"The input `{alias}` of `{name}` is {_dtype(info)}, and must be float, int64 or string"
        for name, signature in graph.signatures.items()
        for alias, info in sorted(signature.inputs.items())
        if info.dtype not in _SENDABLE
    ]
    yield found("input_types", problems, "All inputs are float, int64 or string.")
    problems, defaults = [], 0
    for name, signature in graph.signatures.items():
        defaults += len(signature.defaults)
        problems += _wrong_defaults(name, signature, len(contract.get("objectives", [])) or None)
    yield found("defaults", problems, f"{_counted(defaults, 'default')} of the signatures' inputs, each of its type.")


def check_compatibility(graph: Graph, previous: Graph, version: str, allow_breaking: bool) -> Finding:
    """Holds the signatures against those of the version before.

    Args:
        graph: of the version that is checked.
        previous: of the version before.
        version: its name.
        allow_breaking: Reports breaking changes without failing.
    """
    breaking, compatible = changes(graph, previous)
    told = []
    if breaking:
        told.append(f"Breaks who calls version {version}: {'; '.join(breaking)}.")
    if compatible:
        told.append(f"Compatible with version {version}: {'; '.join(compatible)}.")
    sentence = " ".join(told) or f"The signatures are those of version {version}."
    failed = bool(breaking) and not allow_breaking
    return Finding("compatibility", "", "failed" if failed else "ok", sentence)


def changes(graph: Graph, previous: Graph) -> tuple[list[str], list[str]]:
    """Breaking and compatible changes since `previous`, each in a few words."""
    breaking, compatible = [], []
    for name in sorted({*previous.signatures, *graph.signatures}):
        old, new = previous.signatures.get(name), graph.signatures.get(name)
        if new is None:
            breaking.append(f"the signature `{name}` is gone")
        elif old is None:
            compatible.append(f"the signature `{name}` is new")
        else:
            for change, breaks in (*_changed_inputs(old, new), *_changed_outputs(old.outputs, new.outputs)):
                (breaking if breaks else compatible).append(f"in `{name}` {change}")
    for change, breaks in _changed_contract(previous.contract() or {}, graph.contract() or {}):
        (breaking if breaks else compatible).append(change)
    return breaking, compatible


def _check_bias(graph: Graph, bias: list[str] | None) -> Finding:
    check = "bias_inputs"
    if bias is None:
        return Finding(check, "", "skipped", "The signature `contract` does not say which features model a bias.")
    problems = [
        f"The bias feature `{alias}` is an input of `{name}`"
        for name, signature in graph.signatures.items()
        for alias in sorted(set(bias) & set(signature.inputs))
    ]
    problems += [
        f"The bias feature `{name}` is read from serialized examples"
        for name in sorted(set(bias) & graph.parsed_features())
    ]
    names = ", ".join(f"`{name}`" for name in bias) or "none"
    return found(check, problems, f"No input is a bias feature ({names}).")


def _wrong_defaults(name: str, signature: Any, objectives: int | None) -> Iterator[str]:
    for alias, tensor in sorted(signature.defaults.items()):
        info = signature.inputs.get(alias)
        if info is None:
            yield f"The default `{alias}` of `{name}` is of no input"
        elif info.dtype != tensor.dtype or not _holds(_shape(info), [dim.size for dim in tensor.tensor_shape.dim]):
            yield f"The default of `{alias}` of `{name}` is not of the input's type and shape"
    if _SCORE_WEIGHTS in signature.inputs:
        if _SCORE_WEIGHTS not in signature.defaults:
            yield f"The input `{_SCORE_WEIGHTS}` of `{name}` has no default, so that each request would have to send it"
        elif objectives not in (None, decode(signature.defaults[_SCORE_WEIGHTS]).size):
            yield f"The default of `{_SCORE_WEIGHTS}` of `{name}` does not hold one weight for each objective"


def _changed_inputs(old: Any, new: Any) -> Iterator[tuple[str, bool]]:
    gone, added = sorted(set(old.inputs) - set(new.inputs)), sorted(set(new.inputs) - set(old.inputs))
    if renamed := _renamed(old.inputs, new.inputs, gone, added):
        yield renamed, True
        gone, added = [], []
    yield from ((f"the input `{alias}` is gone", True) for alias in gone)
    for alias in added:
        optional = alias in new.defaults
        yield f"the input `{alias}`, {'with a default' if optional else 'without a default'}, is new", not optional
    for alias in sorted(set(old.inputs) & set(new.inputs)):
        before, after = old.inputs[alias], new.inputs[alias]
        if before.dtype != after.dtype:
            yield f"the input `{alias}` was {_dtype(before)} and is {_dtype(after)}", True
        elif _shape(before) != _shape(after):
            wider = _holds(_shape(after), _shape(before))
            yield f"the input `{alias}` had the shape {_shape(before)} and has {_shape(after)}", not wider
        if alias in old.defaults and alias not in new.defaults:
            yield f"the input `{alias}` has no default any more", True
        elif alias in new.defaults and alias not in old.defaults:
            yield f"the input `{alias}` has a default now", False
        elif alias in new.defaults and _values(old.defaults[alias]) != _values(new.defaults[alias]):
            yield f"the default of the input `{alias}` has changed", False


def _changed_outputs(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[str, bool]]:
    gone, added = sorted(set(old) - set(new)), sorted(set(new) - set(old))
    if renamed := _renamed(old, new, gone, added, "output"):
        yield renamed, True
        gone, added = [], []
    yield from ((f"the output `{alias}` is gone", True) for alias in gone)
    yield from ((f"the output `{alias}` is new", False) for alias in added)
    for alias in sorted(set(old) & set(new)):
        if old[alias].dtype != new[alias].dtype:
            yield f"the output `{alias}` was {_dtype(old[alias])} and is {_dtype(new[alias])}", True
        elif _shape(old[alias]) != _shape(new[alias]):
            yield f"the output `{alias}` had the shape {_shape(old[alias])} and has {_shape(new[alias])}", True


def _renamed(
    old: Mapping[str, Any], new: Mapping[str, Any], gone: list[str], added: list[str], what: str = "input"
) -> str | None:
    if len(gone) != 1 or len(added) != 1:
        return None
    (before,), (after,) = gone, added
    alike = old[before].dtype == new[after].dtype and _shape(old[before]) == _shape(new[after])
    return f"the {what} `{before}` has become `{after}`" if alike else None


def _changed_contract(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[str, bool]]:
    if not old or not new:
        return  # that the signature is gone or new has been said
    if old.get("item_key") != new.get("item_key"):
        yield f"the item key was `{old.get('item_key')}` and is `{new.get('item_key')}`", True
    before, after = ({each["name"]: each for each in contract.get("objectives", [])} for contract in (old, new))
    if before and after and list(before) != list(after):
        yield f"the objectives, the order of `score_weights`, were {_list(before)} and are {_list(after)}", True
    for name in [name for name in before if name in after]:
        kinds = [each[name].get("kind") for each in (before, after)]
        if kinds[0] != kinds[1]:
            yield f"the objective `{name}` was {kinds[0]} and is {kinds[1]}", True
        elif before[name] != after[name]:
            yield f"the objective `{name}` is defined otherwise", False
    if old.get("combined_score") != new.get("combined_score"):
        yield "the combined score has changed", False


def _list(names: Mapping[str, Any]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _values(tensor: Any) -> list[Any]:
    return decode(tensor).tolist()


def _shape(info: Any) -> list[int] | None:
    return None if info.tensor_shape.unknown_rank else [dim.size for dim in info.tensor_shape.dim]


def _holds(wide: list[int] | None, narrow: list[int] | None) -> bool:
    """Whether every tensor of the shape `narrow` is one of the shape `wide`; -1 is any size, None any shape."""
    if wide is None or narrow is None:
        return wide is None
    return len(wide) == len(narrow) and all(size in (-1, other) for size, other in zip(wide, narrow, strict=True))


def _dtype(info: Any) -> str:
    return NUMBERS[info.dtype].name if info.dtype in NUMBERS else "string" if info.dtype == DT_STRING else "other"


def _counted(many: int, what: str) -> str:
    return f"{many} {what}{'' if many == 1 else 's'}"
