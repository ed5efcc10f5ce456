"""The management port of a server: listens before the models are loaded, ends after all else."""

import platform
from importlib.metadata import version

from command_line.onnx_runtime import ort
from server.app import listening
from server.app.listening import METRICS_ADDRESS
from server.app.management.http_server import HttpServer
from server.app.management.metrics import ServerMetrics, registry
from server.app.management.pages import Authorize, Pages
from server.app.management.sources import Sources
from server.errors import StartError
from server.rpc.servicer import Servicer
from transport.serving import listening as transport_listening


class ManagementPort:
    """See the module."""

    def __init__(self, address: str, transport: str, execution_provider: str) -> None:
        """Listen at HOST:PORT; StartError says why not. The other values are shown as labels."""
        listening.check_port(address, METRICS_ADDRESS)
        self._metrics = ServerMetrics(
            {
                "version": version("argmax-serving"),
                "python": platform.python_version(),
                "onnxruntime": ort.__version__,
                "transport": transport,
                "execution_provider": execution_provider,
            }
        )
        self._pages = Pages(registry(self._metrics))
        try:
            sockets = transport_listening.bind(address)
        except (OSError, ValueError) as error:
            raise StartError(f"{METRICS_ADDRESS} {address}: cannot listen there: {error}") from None
        self.address = transport_listening.name(sockets[0])
        self._server = HttpServer(sockets, self._pages.answer)

    def serve(self, sources: Sources, servicer: Servicer, authorize: Authorize | None) -> None:
        """Show models and counts from now on."""
        self._metrics.sources = sources
        self._pages.serve(servicer, authorize)

    def close(self) -> None:
        """End every connection and listen no more."""
        self._server.close()
