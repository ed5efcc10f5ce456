"""Answer the RPCs that list, load and unload models."""

from collections.abc import Mapping

from protos import inference_pb2 as pb
from server.errors import InvalidInput, Unsupported
from server.repository.repository import Repository

_CONFIG = "config"
_FILE = "file:"
_UNLOAD_DEPENDENTS = "unload_dependents"


class RepositoryServicer:
    """One method per RPC."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository

    def RepositoryIndex(self, request: pb.RepositoryIndexRequest) -> pb.RepositoryIndexResponse:
        """Every version of every model with its state."""
        _check_repository(request.repository_name)
        response = pb.RepositoryIndexResponse()
        for version in self._repository.index(ready_only=request.ready):
            response.models.add(
                name=version.name,
                version=version.version,
                state=version.state,
                reason=version.reason,
            )
        return response

    def RepositoryModelLoad(
        self, request: pb.RepositoryModelLoadRequest
    ) -> pb.RepositoryModelLoadResponse:
        """Load a model, or reload it."""
        _check_repository(request.repository_name)
        self._repository.load(request.model_name, _override(request.parameters))
        return pb.RepositoryModelLoadResponse()

    def RepositoryModelUnload(
        self, request: pb.RepositoryModelUnloadRequest
    ) -> pb.RepositoryModelUnloadResponse:
        """Unload a model; models do not depend on each other, so there are no dependents."""
        _check_repository(request.repository_name)
        for name, value in request.parameters.items():
            if name != _UNLOAD_DEPENDENTS or value.WhichOneof("parameter_choice") != "bool_param":
                raise InvalidInput(
                    f"got parameter {name!r}, expected {_UNLOAD_DEPENDENTS}, a boolean"
                )
        self._repository.unload(request.model_name)
        return pb.RepositoryModelUnloadResponse()


def _check_repository(name: str) -> None:
    if name:
        raise Unsupported(f"got repository {name!r}, expected no name: there is one repository")


def _override(parameters: Mapping[str, pb.ModelRepositoryParameter]) -> str | None:
    """The configuration in a request, as JSON, which replaces the file."""
    for name, value in parameters.items():
        if name.startswith(_FILE):
            raise Unsupported(f"got parameter {name!r}; files are read from the repository only")
        if name != _CONFIG or value.WhichOneof("parameter_choice") != "string_param":
            raise InvalidInput(f"got parameter {name!r}, expected {_CONFIG}, a string of JSON")
    if _CONFIG not in parameters:
        return None
    return parameters[_CONFIG].string_param
