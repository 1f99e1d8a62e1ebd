"""What can be read in the graph of a SavedModel: ops and their kernels, Python functions, what ties it to a machine.

TensorFlow's Python brings kernels for ops that call Python, and its loader is kinder than TF Serving's; so the ops are
compared with what the C++ library alone has registered.

Sources of the field numbers: tensorflow/core/protobuf/{saved_model,meta_graph}.proto,
tensorflow/core/framework/{graph,function,node_def,attr_value,op_def,kernel_def}.proto.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import re
from collections.abc import Iterator
from typing import Any

from google.protobuf.message import DecodeError

from serving.native_library import registered_kernels, registered_ops
from serving.protos import DT_STRING, SignatureDef, TensorProto
from serving.protos.schema import build_messages
from serving.tensor_codec import Array, decode
from serving.verifying.finding import Finding, found

# TensorFlow's own messages that the server has no need of; `bytes` stands for messages that are parsed when looked at.
_messages = build_messages(
    "mmoe_ranker.serving.verifying",
    {
        "SavedModel": [("meta_graphs", 2, "repeated MetaGraphDef")],
        "MetaInfoDef": [("tags", 4, "repeated string")],
        "MetaGraphDef": [
            ("meta_info_def", 1, "MetaInfoDef"),
            ("graph_def", 2, "GraphDef"),
            ("signature_def", 5, "map bytes"),
            ("asset_file_def", 6, "repeated AssetFileDef"),
        ],
        "AssetFileDef": [("filename", 2, "string")],
        "GraphDef": [("node", 1, "repeated NodeDef"), ("library", 2, "FunctionDefLibrary")],
        "FunctionDefLibrary": [("function", 1, "repeated FunctionDef")],
        "FunctionDef": [
            ("signature", 1, "OpDef"),
            ("node_def", 3, "repeated NodeDef"),
            ("attr", 5, "map AttrValue"),
        ],
        "NodeDef": [
            ("name", 1, "string"),
            ("op", 2, "string"),
            ("input", 3, "repeated string"),
            ("attr", 5, "map AttrValue"),
        ],
        "AttrValue": [
            ("list", 1, "TypeList"),
            ("b", 5, "bool"),
            ("type", 6, "int32"),
            ("tensor", 8, "bytes"),
            ("func", 10, "NameAttrList"),
        ],
        "TypeList": [("type", 6, "repeated int32")],
        "NameAttrList": [("name", 1, "string")],
        "OpDef": [("name", 1, "string")],
        "OpList": [("op", 1, "repeated OpDef")],
        "KernelList": [("kernel", 1, "repeated KernelDef")],
        "KernelDef": [
            ("device_type", 2, "string"),
            ("constraint", 3, "repeated AttrConstraint"),
            ("label", 5, "string"),
        ],
        "AttrConstraint": [("name", 1, "string"), ("allowed_values", 2, "AttrValue")],
    },
)

# Ops without a kernel, which the session replaces before it looks for one.
_REPLACED_OPS = {"AccumulateNV2"}
_PYTHON_OPS = {"PyFunc", "PyFuncStateless", "EagerPyFunc"}
_MUST_COMPILE = "_XlaMustCompile"
_MAY_BE_PATH = re.compile(rb"(/[^/\0]+/|(file|gs|s3|hdfs|viewfs|abfss?)://)[^\0]{1,4000}\Z")


class UnreadableModelError(ValueError):
    """A folder without a SavedModel that can be parsed and has the tag `serve`."""


@dataclasses.dataclass(frozen=True)
class Graph:
    """The parts of a SavedModel that the checks look at.

    Attributes:
        signatures: SignatureDef by name, without those that TensorFlow keeps for itself.
        nodes: Nodes by the function that they are in; the graph's own under "".
        functions: Attributes of each function.
        assets: Names of files below `assets/`.
    """

    signatures: dict[str, Any]
    nodes: dict[str, list[Any]]
    functions: dict[str, Any]
    assets: list[str]

    @classmethod
    def read(cls, version: pathlib.Path) -> Graph:
        """Reads the graph that TF Serving would load.

        Raises:
            UnreadableModelError: there is none.
        """
        path = version / "saved_model.pb"
        try:
            meta_graphs = _messages["SavedModel"].FromString(path.read_bytes()).meta_graphs
        except OSError as error:
            raise UnreadableModelError(f"saved_model.pb cannot be read: {error.strerror}") from error
        except DecodeError as error:
            raise UnreadableModelError("saved_model.pb is no SavedModel") from error
        served = [meta_graph for meta_graph in meta_graphs if set(meta_graph.meta_info_def.tags) == {"serve"}]
        if not served:
            raise UnreadableModelError("saved_model.pb holds no graph with the tag `serve`")
        (meta_graph, *_) = served
        library = meta_graph.graph_def.library.function
        return cls(
            signatures={
                name: SignatureDef.FromString(content)
                for name, content in sorted(meta_graph.signature_def.items())
                if not name.startswith("__saved_model_")
            },
            nodes={"": meta_graph.graph_def.node, **{each.signature.name: each.node_def for each in library}},
            functions={function.signature.name: function.attr for function in library},
            assets=[asset.filename for asset in meta_graph.asset_file_def],
        )

    def all_nodes(self) -> Iterator[Any]:
        """Nodes of the graph and of all functions."""
        for nodes in self.nodes.values():
            yield from nodes

    def contract(self) -> dict[str, Any] | None:
        """What the signature `contract` answers, read without running it; None where there is none to read."""
        if "contract" not in self.signatures or "contract" not in self.signatures["contract"].outputs:
            return None
        answering = self.signatures["contract"].outputs["contract"].name.partition(":")[0]
        waiting = [node for node in self.nodes[""] if node.name == answering]
        seen: set[str] = set()
        while waiting:
            node = waiting.pop()
            if node.op == "Const" and node.attr["dtype"].type == DT_STRING:
                try:
                    contract = json.loads(_strings(node)[0])
                except (ValueError, IndexError):
                    continue
                if isinstance(contract, dict):
                    return contract
            called = node.attr["f"].func.name
            if called in self.nodes and called not in seen:
                seen.add(called)
                waiting += self.nodes[called]
        return None

    def parsed_features(self) -> set[str]:
        """Names of the features that are parsed out of serialized tf.Examples."""
        names: set[str] = set()
        for nodes in self.nodes.values():
            constants = {node.name: node for node in nodes if node.op == "Const"}
            for node in nodes:
                if node.op == "ParseExampleV2":
                    keys = [name.partition(":")[0] for name in node.input[2:5]]
                    names |= {name.decode(errors="replace") for key in keys if key in constants
                              for name in _strings(constants[key])}  # fmt: skip
        return names


def check_graph(graph: Graph, version: pathlib.Path) -> Iterator[Finding]:
    """All checks on the graph that need no session."""
    python = sorted({node.op for node in graph.all_nodes()} & _PYTHON_OPS)
    problems = [f"The graph calls Python, through the op {op}, which no server can" for op in python]
    yield found("python_functions", problems, "No op calls Python.")
    problems = [
        f"{what} must be compiled by XLA, which TF Serving has switched off: trace it without `jit_compile`"
        for what in _must_compile(graph)
    ]
    yield found("must_compile", problems, "Nothing must be compiled by XLA, which TF Serving has switched off.")
    yield from check_ops(graph)
    problems = [*_paths(graph), *_links(version)]
    yield found("relocatable", problems, "No constant, asset or link leads out of the version's folder.")


def check_ops(graph: Graph) -> Iterator[Finding]:
    """Whether the C++ library knows each op, and can compute it on a processor."""
    registered = {op.name for op in _messages["OpList"].FromString(registered_ops()).op}
    ops: dict[str, list[Any]] = {}
    for node in graph.all_nodes():
        if node.op not in graph.nodes:  # a call of a function by its name
            ops.setdefault(node.op, []).append(node)
    unknown = sorted(set(ops) - registered)
    problems = [f"The op {op} is not registered in the C++ library" for op in unknown]
    yield found("ops", problems, f"All {len(ops)} ops are registered in the C++ library.")
    problems = []
    for op in sorted((set(ops) & registered) - _REPLACED_OPS):
        kernels = [
            kernel
            for kernel in _messages["KernelList"].FromString(registered_kernels(op)).kernel
            if kernel.device_type in ("CPU", "DEFAULT") and not kernel.label
        ]
        if not kernels:
            problems.append(f"The op {op} has no kernel for a processor")
            continue
        unfit = [node.name for node in ops[op] if not any(_fits(node, kernel) for kernel in kernels)]
        if unfit:
            problems.append(f"The op {op} has no kernel for a processor with the types that it has in {unfit[0]}")
    yield found("kernels", problems, "Each op has a kernel for a processor with the types that it is used with.")


def _fits(node: Any, kernel: Any) -> bool:
    # A default that the export stripped is not in the node; what runs then is for the signatures' runs to tell.
    return all(
        constraint.name not in node.attr
        or not node.attr[constraint.name].type
        or node.attr[constraint.name].type in constraint.allowed_values.list.type
        for constraint in kernel.constraint
    )


def _must_compile(graph: Graph) -> list[str]:
    functions = [f"The function {name}" for name, attr in graph.functions.items() if _is_set(attr)]
    return functions or [f"The call {node.name}" for node in graph.all_nodes() if _is_set(node.attr)]


def _is_set(attr: Any) -> bool:
    return _MUST_COMPILE in attr and attr[_MUST_COMPILE].b


def _paths(graph: Graph) -> Iterator[str]:
    for node in graph.all_nodes():
        if node.op == "Const" and node.attr["dtype"].type == DT_STRING:
            values = _values(node)
            for path in map(os.fsdecode, filter(_MAY_BE_PATH.match, values.reshape(-1).tolist())):
                # Values of a vocabulary, which is a vector, may be addresses or begin with a slash as well; what is
                # there on this machine is a path.
                if os.path.exists(path) if path.startswith("/") else values.ndim == 0:
                    yield f"The constant {node.name} holds a path outside of the version's folder, {path}"
    for asset in graph.assets:
        if os.path.isabs(asset) or ".." in pathlib.PurePath(asset).parts:
            yield f"An asset lies outside of the version's folder, {asset}"


def _links(version: pathlib.Path) -> Iterator[str]:
    home = version.resolve()
    for path in sorted(version.rglob("*")):
        if path.is_symlink() and not path.resolve().is_relative_to(home):
            yield f"{path.relative_to(version)} is a link that leads out of the version's folder, to {path.resolve()}"


def _strings(node: Any) -> list[bytes]:
    return _values(node).reshape(-1).tolist()


def _values(node: Any) -> Array:
    return decode(TensorProto.FromString(node.attr["value"].tensor))
