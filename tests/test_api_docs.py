"""Every public symbol is documented: what it is, its arguments, the shapes of its arrays, its errors; examples run.

Ruff asks for a docstring at all (D1); this asks what is in it.
"""

from __future__ import annotations

import ast
import dataclasses
import doctest
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mmoe_ranker.config import Config
from mmoe_ranker.statistics import Statistics

ROOT = Path(__file__).resolve().parents[1]
# Beside the whole library but its command line, whose texts `--help` shows.
_ENTRY_POINTS = (
    "serving/client.py",
    "pipelines/impressions.py",
    *(f"pipelines/{part}/job.py" for part in ("checking", "scoring")),
    *(f"pipelines/datasets/{name}.py" for name in ("clara2", "kuairand", "trivago")),
)
FILES = [
    *(file for file in sorted((ROOT / "mmoe_ranker").rglob("*.py")) if "cli" not in file.relative_to(ROOT).parts),
    *(ROOT / name for name in _ENTRY_POINTS),
]
_ARRAY = re.compile(r"\b(ArrayLike|NDArray|ndarray|Tensor|Floats|Ints|Bools)\b")
_SHAPE = re.compile(r"\[([A-Z]|\.\.\.)[^\]]*\]|\bscalars?\b")
# So many arguments do not speak for themselves.
_MANY = 3


@dataclasses.dataclass(frozen=True)
class Symbol:
    """A public function, method or class.

    Attributes:
      name: with its class.
      node: its syntax.
      doc: its docstring.
      around: the docstrings of its class and its module, where shapes may stand.
      signature: the function itself; of a class its `__init__`, or None.
    """

    name: str
    node: ast.FunctionDef | ast.ClassDef
    doc: str
    around: str
    signature: ast.FunctionDef | None

    @property
    def arguments(self) -> list[str]:
        if self.signature is None:  # of a class that names its fields
            fields = [one.target for one in self.node.body if isinstance(one, ast.AnnAssign)]
            return [one.id for one in fields if isinstance(one, ast.Name)]
        given = self.signature.args
        starred = [one for one in (given.vararg, given.kwarg) if one is not None]
        names = [one.arg for one in (*given.posonlyargs, *given.args, *given.kwonlyargs, *starred)]
        return [name for name in names if name not in ("self", "cls")]

    @property
    def described(self) -> list[str] | None:
        """The arguments that its docstring, or that of `__init__`, describes; None without such a section."""
        docs = [self.doc, (self.signature and ast.get_docstring(self.signature)) or ""]
        section = next((found for doc in docs if (found := re.search(r"^Args:\n((?:[ ]+.*\n?|\n)+)", doc, re.M))), None)
        if section is None:
            return None
        lines = [line for line in section[1].split("\n") if line.strip()]
        indent = min(len(line) - len(line.lstrip()) for line in lines)
        heads = [line.strip().split(":")[0] for line in lines if len(line) - len(line.lstrip()) == indent]
        return [name.strip("* ") for head in heads for name in head.split(",")]


def _symbols(file: Path) -> list[Symbol]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return list(_below(tree, "", ast.get_docstring(tree) or ""))


def _below(parent: ast.Module | ast.ClassDef, prefix: str, around: str) -> Iterator[Symbol]:
    for node in parent.body:
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef)) or node.name.startswith("_"):
            continue
        doc = ast.get_docstring(node) or ""
        if isinstance(node, ast.FunctionDef):
            yield Symbol(prefix + node.name, node, doc, around, node)
            continue
        made = [one for one in node.body if isinstance(one, ast.FunctionDef) and one.name == "__init__"]
        yield Symbol(prefix + node.name, node, doc, around, made[0] if made else None)
        yield from _below(node, f"{prefix}{node.name}.", around + doc)


def _test_id(file: Path) -> str:
    return str(file.relative_to(ROOT))


@pytest.mark.parametrize("file", FILES, ids=_test_id)
def test_is_documented(file: Path) -> None:
    assert (
        ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or not file.read_text(encoding="utf-8").strip()
    )
    assert [symbol.name for symbol in _symbols(file) if not symbol.doc] == []


@pytest.mark.parametrize("file", FILES, ids=_test_id)
def test_arguments_are_those_of_the_signature(file: Path) -> None:
    for symbol in _symbols(file):
        if symbol.described is not None:
            assert sorted(symbol.described) == sorted(symbol.arguments), symbol.name
        elif "." not in symbol.name and symbol.signature is not None:  # a method may speak through what it overrides
            assert len(symbol.arguments) < _MANY, f"{symbol.name} must describe its arguments"


@pytest.mark.parametrize("file", FILES, ids=_test_id)
def test_arrays_have_shapes(file: Path) -> None:
    for symbol in _symbols(file):
        if symbol.signature is not None and _ARRAY.search(_annotations(symbol.signature)):
            assert _SHAPE.search(symbol.doc + symbol.around), f"{symbol.name} must say the shape of its arrays"


@pytest.mark.parametrize("file", FILES, ids=_test_id)
def test_errors_are_named(file: Path) -> None:
    for symbol in _symbols(file):
        raises = [node.exc for node in ast.walk(symbol.node) if isinstance(node, ast.Raise) and node.exc is not None]
        if isinstance(symbol.node, ast.FunctionDef) and any("InputError" in ast.unparse(error) for error in raises):
            assert re.search(r"^Raises:\n\s+InputError: ", symbol.doc, re.M), f"{symbol.name} must say what it refuses"


@pytest.mark.parametrize("file", FILES, ids=_test_id)
def test_examples_are_those_of_a_prompt(file: Path) -> None:
    for symbol in _symbols(file):
        example = re.search(r"^Examples?:\n((?:[ ]+.*\n?|\n)+)", symbol.doc, re.M)
        assert example is None or ">>>" in example[1], symbol.name


def _examples() -> Iterator[Any]:
    for file in FILES:
        text = file.read_text(encoding="utf-8")
        if ">>>" in text:
            yield pytest.param(file, id=_test_id(file), marks=[pytest.mark.slow] if "import tensorflow" in text else [])


@pytest.mark.parametrize("file", _examples())
def test_examples_run(file: Path, config: Config, statistics: Statistics) -> None:
    module = importlib.import_module(".".join(file.relative_to(ROOT).with_suffix("").parts))
    names: dict[str, Any] = {"config": config, "statistics": statistics}
    result = doctest.testmod(module, extraglobs=names)
    assert result.failed == 0
    assert result.attempted > 0


_PACKAGES = ("metrics", "simulation", "position_bias", "plots", "report")


@pytest.mark.parametrize("package", [*_PACKAGES, pytest.param("layers", marks=pytest.mark.slow)])
def test_what_a_package_offers_is_there_and_documented(package: str) -> None:
    module = importlib.import_module(f"mmoe_ranker.{package}")
    for name in module.__all__:
        offered = getattr(module, name)
        assert not callable(offered) or (offered.__doc__ or "").strip(), name


def _annotations(function: ast.FunctionDef) -> str:
    given = function.args
    every = [one.annotation for one in (*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg) if one]
    return " ".join(ast.unparse(one) for one in (*every, function.returns) if one is not None)
