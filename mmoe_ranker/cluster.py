"""The cluster that a process belongs to, from the environment variable TF_CONFIG as TensorFlow defines it.

`{"cluster": {"worker": ["host:port", ...], ...}, "task": {"type": "worker", "index": 0}}`: whoever starts the processes
(a Kubernetes operator, Vertex AI, a script) sets it, the same cluster in all of them and a task of its own in each.
"""

from __future__ import annotations

import dataclasses
import json
import os
from typing import Any

from mmoe_ranker.errors import InputError

TF_CONFIG = "TF_CONFIG"

# The jobs that a cluster has to have, and those that it may have.
_JOBS = {"multi_worker": (("worker",), ("chief",)), "parameter_server": (("chief", "worker", "ps"), ())}


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Who takes part in a training, and who of them this process is.

    Args:
      addresses: "host:port" of every process, by job.
      job: the job of this process.
      index: its place among the processes of that job.
    """

    addresses: dict[str, tuple[str, ...]]
    job: str
    index: int

    @property
    def is_chief(self) -> bool:
        """Whether this process writes what a training leaves behind: the chief, or the first worker where none is."""
        return self.index == 0 and self.job == ("chief" if "chief" in self.addresses else "worker")


def cluster_from_environment(kind: str) -> Cluster:
    """Reads TF_CONFIG.

    Args:
      kind: of `training.distribution`, which says what jobs a cluster has.

    Raises:
      InputError: the variable is missing, or describes no cluster of this kind with this process in it.
    """
    text = os.environ.get(TF_CONFIG)
    if not text:
        raise _refusal(kind, "must be set in every process", "nothing")
    try:
        described = json.loads(text)
    except json.JSONDecodeError as error:
        raise _refusal(kind, "must be JSON", str(error)) from None
    addresses = described.get("cluster") if isinstance(described, dict) else None
    if not isinstance(addresses, dict) or not all(_is_addresses(values) for values in addresses.values()):
        raise _refusal(kind, 'must hold "cluster": lists of "host:port", by job', addresses)
    required, optional = _JOBS[kind]
    if not set(required) <= set(addresses) <= {*required, *optional} or len(addresses.get("chief", "1")) != 1:
        rule = f"must have the jobs {', '.join(required)}" + "".join(f", and may have {job}" for job in optional)
        raise _refusal(kind, f"{rule}, with at most one chief", {job: len(named) for job, named in addresses.items()})
    task = described.get("task")
    job, index = (task.get("type", ""), task.get("index")) if isinstance(task, dict) else ("", None)
    # Some schedulers write the index as a string.
    index = int(index) if isinstance(index, str) and index.isdecimal() else index
    if job not in addresses or type(index) is not int or not 0 <= index < len(addresses[job]):
        raise _refusal(kind, 'must name in "task" the type and index of one process of the cluster', task)
    return Cluster({name: tuple(values) for name, values in addresses.items()}, job, index)


def _is_addresses(values: Any) -> bool:
    return (
        isinstance(values, list)
        and bool(values)
        and all(isinstance(value, str) and value.rpartition(":")[2].isdecimal() for value in values)
    )


def _refusal(kind: str, rule: str, received: object) -> InputError:
    return InputError(
        f"For `training.distribution` of kind `{kind}` the environment variable {TF_CONFIG} {rule}. "
        f"Received: {received if isinstance(received, str) else json.dumps(received)}."
    )
