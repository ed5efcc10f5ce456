"""One loaded version of a model: its request checks and its queue."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from protos import malloc
from protos.model_config_pb2 import ModelConfig
from server.batching import argmax_labels
from server.batching.argmax_labels import ArgmaxLabel
from server.batching.batch_dependence import BatchDependence
from server.batching.request import Request
from server.batching.scheduler import Scheduler
from server.batching.statistics import Statistics
from server.errors import LoadError
from server.loaded_model import (
    config_completion,
    config_instances,
    config_session,
    config_settings,
    row_independence,
)
from server.loaded_model.config_settings import QueuePolicy
from server.loaded_model.fixed_size import fixed_size
from server.loaded_model.group_size import GroupSize, group_size
from server.loaded_model.labels import Labels
from server.loaded_model.parts import Parts, part_rows
from server.loaded_model.request_check import RequestCheck
from server.loaded_model.warmup import warm_up
from server.onnx import graph_file, instances
from server.onnx.engine import Engine
from server.onnx.execution_provider import CPU, ExecutionProvider
from server.onnx.graph_file import Graph
from server.onnx.session_settings import SessionSettings


@dataclass(frozen=True, slots=True)
class ModelLimits:
    """Settings of a model without a configuration.

    `threads` of all instances together, most rows of a request, most rows gathered for one
    execution (None: to be measured), how long a request waits for others, execution provider,
    whether requests with NaN or infinite values are rejected, whether executions have one size,
    labels that are an ArgMax of linear scores (None: not known yet), why requests share no
    executions ("": they do; None: not known yet), how many instances run batches, settings of their
    sessions.
    """

    threads: int
    max_batch_rows: int
    group_rows: int | None = None
    queue_delay_ns: int = 0
    ep: ExecutionProvider = field(default_factory=ExecutionProvider)
    finite_only: bool = False
    deterministic: bool = False
    argmax_labels: tuple[ArgmaxLabel, ...] | None = None
    unbatched: str | None = None
    instances: int = 1
    session: SessionSettings = field(default_factory=SessionSettings)


class Model:
    """A serving version: `requests` checks messages, `submit` queues their requests."""

    def __init__(
        self,
        name: str,
        version: str,
        path: Path,
        config: ModelConfig,
        limits: ModelLimits,
        labels: Labels | None = None,
        graph: Graph | None = None,
    ) -> None:
        """Load the graph at `path` with the settings of `config`; StartError on failure.

        `labels`: content of the label files that the configuration names. `graph`: what was found
        in the file at `path`, None: it is read here.
        """
        self.name = name
        self.version = version
        self.labels = labels or {}
        self.statistics = Statistics()
        groups = config_instances.groups(config, name, limits.ep, limits.instances)
        providers = config_instances.instances(groups)
        if limits.deterministic and len({each.name for each in providers}) > 1:
            raise LoadError("instance_group has instances on CPU and GPU beside --deterministic")
        threads = config_session.threads(config, max(1, limits.threads // len(providers)))
        self.engines = instances.load(
            # The repository is above NAME/VERSION: links may lead to weights anywhere in it.
            graph or graph_file.read(path, path.parents[2]),
            threads,
            providers,
            config_session.settings(config, limits.session, providers),
            shared=config_session.shared(config),
            deterministic=limits.deterministic,
        )
        self.engine = engine = self.engines[0]
        set_rows = config_settings.group_rows(config) or limits.group_rows
        # Why requests share no executions, "" where they do.
        self.unbatched = (
            row_independence.doubt(engine, path, config, limits.max_batch_rows, set_rows)
            if limits.unbatched is None
            else limits.unbatched
        )
        self.config = config_completion.complete(
            config,
            name,
            engine.inputs,
            engine.outputs,
            limits.max_batch_rows,
            [group.to_config() for group in groups],
            self.unbatched,
        )
        # 0 is the protocol's word for a model without a batch axis.
        self.max_batch_rows = self.config.max_batch_size
        batched = self.max_batch_rows > 0
        self.inputs = config_completion.served(self.config.input, engine.inputs, batched)
        self.outputs = config_completion.served(self.config.output, engine.outputs, batched)
        for each in set(self.engines):
            warm_up(each, self.config, self.inputs)
        group = GroupSize(set_rows, "set") if set_rows else group_size(engine, self.max_batch_rows)
        fixed = batched and limits.deterministic
        if fixed:
            most = GroupSize(min(group.rows, self.max_batch_rows), group.reason)
            group = fixed_size(path, engine, self.inputs, most)
        self.group_reason = group.reason
        self.batching = config_settings.batching(
            self.config, group.rows, limits.queue_delay_ns, fixed=fixed
        )
        self.execution = config_settings.execution(self.batching, threads) if fixed else {}
        self.argmax_labels = _argmax_labels(path, self.engines, limits) if batched else ()
        dependence = BatchDependence(self.outputs, self.argmax_labels, never=fixed or not batched)
        queue_policy = QueuePolicy.of(config)
        self._most_requests = queue_policy.most_requests
        self._finite_only = limits.finite_only
        # Requests that share a batch would have to share their values, too.
        self.optional_inputs = () if batched else engine.optional_inputs
        self.requests = RequestCheck(
            name,
            self.inputs,
            self.optional_inputs,
            self.outputs,
            self.max_batch_rows,
            queue_policy,
            dependence,
            finite_only=limits.finite_only,
        )
        self.output_dtypes = {spec.name: spec.dtype for spec in self.outputs}
        self._scheduler = Scheduler(
            f"{name}:{version}",
            self.engines,
            self.batching,
            self.statistics,
            batched=batched,
            most_requests=queue_policy.most_requests,
            finite_only=limits.finite_only,
            fixed=fixed,
        )
        # Loading leaves copies of the weights behind.
        malloc.give_back()

    @property
    def waiting(self) -> int:
        """Requests in the queue, with one that runs in part."""
        return self._scheduler.waiting

    @property
    def takes_parts(self) -> bool:
        """Whether requests can be queued in parts: they have rows, whose values are not checked.

        A limit of waiting requests would count each part.
        """
        limited = self._finite_only or self._most_requests > 0
        return self.max_batch_rows > 0 and not limited

    def parts(self, request: Request) -> Parts | None:
        """A request of arrays in parts, to be queued while its rows arrive; they are not read here.

        None for few rows, and where it may wait for a limited time only, until it begins to run.
        """
        if not request.in_place or request.queue_deadline_ns is not None:
            return None
        rows = part_rows(self.batching, request.size_bytes // request.rows)
        if 2 * rows > request.rows:
            return None
        return Parts(request, rows, self.submit, self.cancel)

    def submit(self, request: Request) -> None:
        """Queue a request; ServerStopping once closed, QueueFull when too many wait."""
        self._scheduler.submit(request)

    def flush(self) -> None:
        """Run queued requests without waiting for more."""
        self._scheduler.flush()

    def cancel(self, request: Request) -> None:
        """Drop a request; its bytes are released when the current batch ends."""
        self._scheduler.cancel(request)

    def close(self) -> None:
        """Run queued requests, then release the graph; nothing can be submitted any more."""
        self._scheduler.close()
        instances.close(self.engines)


def _argmax_labels(
    path: Path, engines: Sequence[Engine], limits: ModelLimits
) -> tuple[ArgmaxLabel, ...]:
    """Labels whose answers can be judged; none on providers other than the CPU's."""
    if limits.argmax_labels is not None:
        return limits.argmax_labels
    kinds = {spec.dtype.kind for spec in engines[0].outputs}
    if any(engine.provider != CPU for engine in engines) or not kinds >= {"i", "f"}:
        return ()
    return argmax_labels.find(path)
