import contextlib
import errno
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from server.app import listening
from server.errors import StartError
from transport.serving import listening as transport_listening

ROOT = Path(__file__).resolve().parents[3]
FIRST_FREE_PORT = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")


def why(address):
    with pytest.raises(StartError) as caught:
        listening.check(address)
    text = str(caught.value)
    assert address in text
    return text


@contextlib.contextmanager
def listener(address="127.0.0.1", family=socket.AF_INET):
    with socket.socket(family) as server:
        # As servers do; connections that linger have it from them.
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(address if family == socket.AF_UNIX else (address, 0))
        server.listen()
        yield server


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "localhost"])
def test_a_port_that_another_process_listens_on_is_in_use(host):
    with listener() as server:
        port = server.getsockname()[1]
        assert why(f"{host}:{port}").endswith(f"port {port} is in use")


def test_a_port_whose_listener_is_gone_is_free():
    with listener() as server:
        port = server.getsockname()[1]
        # CloseReason by the server first, so that the connection lingers there.
        with socket.create_connection(("127.0.0.1", port)), server.accept()[0]:
            pass
    listening.check(f"127.0.0.1:{port}")
    listening.check("localhost:0")


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("192.0.2.1:0", "192.0.2.1 is not an address of this host"),
        ("nowhere.invalid:8001", "the name 'nowhere.invalid' cannot be resolved: "),
        (f"{'x' * 64}.example:8001", "cannot be resolved: "),
        ("127.0.0.1", "has no port, expected HOST:PORT or unix:/path"),
        (":8001", "has no host, expected one such as 127.0.0.1"),
        ("127.0.0.1:http", "got port 'http', expected a number from 0 to 65535"),
        ("127.0.0.1:-1", "got port '-1', expected a number from 0 to 65535"),
        ("127.0.0.1:65536", "got port '65536', expected a number from 0 to 65535"),
        ("::1:8001", "an IPv6 address needs brackets: [::1]:8001"),
        ("*:0", "got host '*', expected 0.0.0.0 or [::] for every interface"),
        ("http://127.0.0.1:8001", "is a URL, expected HOST:PORT or unix:/path: 127.0.0.1:8001"),
        ("grpc://", "is a URL, expected HOST:PORT or unix:/path"),
        ("unix://a/b", "is a URL, expected unix:/path"),
        ("unix:", "has no path, expected unix:/path"),
        ("unix:/nowhere/of/all/s", "there is no folder /nowhere/of/all"),
        (f"unix:/{'x' * 107}", "the socket's path has 108 bytes, expected at most 107"),
        (f"unix:/{'é' * 54}", "the socket's path has 109 bytes, expected at most 107"),
    ],
)
def test_each_cause_has_its_own_text(address, text):
    assert text in why(address)


def test_a_socket_file_is_replaced_only_if_nobody_listens(tmp_path):
    path = tmp_path / "s"
    with listener(str(path), socket.AF_UNIX):
        assert why(f"unix:{path}").endswith("is in use by another server")
    assert path.is_socket()
    listening.check(f"unix:{path}")
    listening.check(f"unix://{path}")


@contextlib.contextmanager
def full_queue(path):
    """A socket file whose server accepts nothing, so that a connection more would wait."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(path))
        listener.listen(0)
        for _ in range(100):
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            if client.connect_ex(str(path)) == errno.EAGAIN:
                break
        else:
            pytest.fail("the queue takes more than 100 connections")
        yield


def test_a_server_that_accepts_nothing_does_not_hang_the_next_one(tmp_path):
    with full_queue(tmp_path / "s"):
        assert why(f"unix:{tmp_path / 's'}").endswith("is in use by another server")
        with pytest.raises(OSError, match="in use by another server"):
            transport_listening.bind(f"unix:{tmp_path / 's'}")


def test_what_is_no_socket_is_not_replaced(tmp_path):
    path = tmp_path / "file"
    path.write_text("")
    assert why(f"unix:{path}").endswith("exists and is not a socket")


def check_without_rights(address):
    """What `check` says to a user who may do nothing in particular."""
    # Rights are given up only after the imports: Python may not be another user's to read.
    code = (
        "import os, sys, encodings.idna\n"
        "from server.app.listening import check\n"
        "if os.geteuid() == 0:\n"
        "    os.setgroups([]), os.setgid(65534), os.setuid(65534)\n"
        "check(sys.argv[1])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, address],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    return done.stderr.splitlines()[-1]


def test_a_folder_that_cannot_be_written_to_is_a_lack_of_permission():
    assert "permission denied: / cannot be written to" in check_without_rights("unix:/s")


@pytest.mark.skipif(
    not FIRST_FREE_PORT.exists() or int(FIRST_FREE_PORT.read_text()) < 2,
    reason="every port may be listened on here",
)
def test_a_privileged_port_is_a_lack_of_permission():
    assert "permission denied: port 1 is privileged" in check_without_rights("127.0.0.1:1")


@pytest.mark.parametrize(
    ("address", "text"),
    [("unix:/nowhere/s", "there is no folder /nowhere"), ("http://h:1", "is a URL, expected")],
)
def test_the_address_is_checked_before_models_are_loaded(tmp_path, address, text):
    # Nothing there can be loaded, which would be found out next.
    done = subprocess.run(
        [sys.executable, "-m", "server", "--models", tmp_path / "none", "--address", address],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 2
    assert re.fullmatch(rf"argmax-server: error: .*{re.escape(text)}.*\n", done.stderr)
    assert not done.stdout
