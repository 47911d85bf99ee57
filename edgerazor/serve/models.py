"""The models of a server, by name."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from edgerazor.core.contracts import Runtime
from edgerazor.core.contracts.exporter import size_of
from edgerazor.core.contracts.runtime import OneSequence
from edgerazor.core.registry import Registry
from edgerazor.data.template import ChatTemplate
from edgerazor.inference.open_runtime import open_runtime
from edgerazor.schemas.base import nearest
from edgerazor.serve.errors import ApiError
from edgerazor.serve.metrics import Metrics
from edgerazor.serve.queue import Job, JobQueue


class ServedModel:
    """A loaded model, its cache, and the line of requests in front of it.

    Args:
        name: that requests call it by.
        runtime: the model; only the thread of the queue uses it from now on.
        bytes: of its file or folder.
        queue: requests that may wait.
        created: seconds since 1970.

    Attributes:
        template: false where it has none.
        sequences: the cache, of one text.
        metrics: of its requests.
    """

    def __init__(self, name: str, runtime: Runtime, *, bytes: int = 0, queue: int = 32, created: int = 0):
        self.name, self.runtime, self.bytes, self.created = name, runtime, bytes, created
        self.template = ChatTemplate.of(runtime)
        self.sequences = runtime.open_sequences(1, runtime.context_length)
        if isinstance(self.sequences, OneSequence):
            self.sequences.keeps = True
        self.metrics = Metrics()
        self.jobs = JobQueue(name, queue)

    def submit(self, work: Callable[[Job], Iterator[Any]]) -> Job:
        """Put a request in line.

        Raises:
            ApiError: the line is full, or the server ends.
        """
        job = Job(work)
        self.jobs.submit(job)
        return job

    def to_dict(self) -> dict[str, Any]:
        """As /v1/models lists it, with size, engine, context and whether it chats besides."""
        return {
            "id": self.name,
            "object": "model",
            "created": self.created,
            "owned_by": "edgerazor",
            "bytes": self.bytes,
            "engine": self.runtime.engine,
            "context_length": self.runtime.context_length,
            "chat": bool(self.template),
        }

    def close(self) -> None:
        """End all requests and free the model."""
        self.jobs.close()
        self.sequences.close()
        self.runtime.close()


class ModelTable:
    """Models by name, the first one first.

    Args:
        models: at least one.
    """

    def __init__(self, models: Sequence[ServedModel]):
        self._models = {model.name: model for model in models}

    def __iter__(self) -> Iterator[ServedModel]:
        return iter(self._models.values())

    def find(self, name: str | None) -> ServedModel:
        """The model of a request.

        Raises:
            ApiError: there is none of this name, or several and no name.
        """
        if name is None:
            if len(self._models) == 1:
                return next(iter(self))
            raise ApiError(400, f"'model' is missing; there are: {', '.join(self._models)}", param="model")
        if name not in self._models:
            message = f"there is no model '{name[:100]}'{nearest(name, self._models)}"
            raise ApiError(404, message, param="model", code="model_not_found")
        return self._models[name]


@contextmanager
def loaded_models(paths: Mapping[str, Path], *, registry: Registry, queue: int) -> Iterator[ModelTable]:
    """Load every model; they are closed at the end.

    Raises:
        EdgeRazorError: see `open_runtime`.
    """
    with ExitStack() as stack:
        models = []
        for name, path in paths.items():
            runtime = open_runtime(path, registry=registry, unquantized=True)
            created = int(path.stat().st_mtime) if path.exists() else int(time.time())
            model = ServedModel(name, runtime, bytes=size_of(path), queue=queue, created=created)
            stack.callback(model.close)
            models.append(model)
        yield ModelTable(models)
