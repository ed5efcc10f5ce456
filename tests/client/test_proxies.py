"""The client connects to servers itself: it sends nothing, least of all a token, to a proxy."""

import os
import socket
import subprocess
import sys

import pytest
from conftest import PATIENCE_S, ROOT

from model.export import export
from model.weights import from_seed

VARIABLES = ("http_proxy", "https_proxy", "grpc_proxy", "all_proxy")
PROGRAM = (
    "import sys; from client import Client; import numpy as np\n"
    "with Client(sys.argv[1]) as client: print(client.predict(np.ones((2, 8), np.float32)).shape)"
)


@pytest.mark.parametrize("kind", ["loopback", "socket"])
def test_variables_of_proxies_are_not_obeyed(serve, graphs, tmp_path, kind):
    if not (graphs.folder / "linear_argmax").exists():
        export(graphs.folder, "linear_argmax", from_seed(4, 8, 0), "float32", 0)
    options = {} if kind == "loopback" else {"address": f"unix:{tmp_path / 's'}"}
    address = serve(graphs.folder, **options).address
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        url = f"http://127.0.0.1:{proxy.getsockname()[1]}"
        variables = {name: url for each in VARIABLES for name in (each, each.upper())}
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, address],
            env={**os.environ, **variables, "no_proxy": "", "NO_PROXY": ""},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert (done.stdout, done.stderr) == ("(2,)\n", "")
        proxy.setblocking(False)
        with pytest.raises(BlockingIOError):
            proxy.accept()
