"""The HTTP server of the management port: what it answers, and what it bounds."""

import contextlib
import json
import logging
import socket
import threading
import time
from http import HTTPStatus

import pytest
from http_pages import get

from server.app.management import http_server
from server.app.management.http_server import HttpServer, Response
from transport.serving import listening

PATIENCE_S = 30


def answer(path, headers):
    if path == "/fails":
        raise ArithmeticError("on purpose")
    if path == "/accept":
        return Response(HTTPStatus.OK, (headers.get("Accept") or "").encode(), "text/plain")
    return Response(HTTPStatus.OK, json.dumps(path).encode()) if path == "/here" else None


@contextlib.contextmanager
def serving(answer=answer, address="127.0.0.1:0"):
    sockets = listening.bind(address)
    name = listening.name(sockets[0])
    server = HttpServer(sockets, answer)
    try:
        yield name
    finally:
        server.close()


@pytest.fixture(scope="module")
def address():
    with serving() as name:
        yield name


@contextlib.contextmanager
def connected(address):
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), PATIENCE_S) as sock:
        yield sock


def exchange(address, data):
    """Send bytes: all that comes until the server closes."""
    with connected(address) as sock:
        sock.sendall(data)
        return until_closed(sock)


def until_closed(sock):
    got = b""
    with contextlib.suppress(ConnectionResetError):
        while data := sock.recv(65536):
            got += data
    return got


def test_a_page_is_answered_with_its_length_and_type(address):
    status, headers, body = get(address, "/here?query=1")
    assert (status, body) == (200, b'"/here"')
    assert headers["Content-Length"] == "7"
    assert headers["Content-Type"] == "application/json"


def test_head_has_the_headers_alone(address):
    status, headers, body = get(address, "/here", method="HEAD")
    assert (status, body, headers["Content-Length"]) == (200, b"", "7")


def test_requests_of_one_connection_are_answered_in_order(address):
    many = b"GET /here HTTP/1.1\r\nHost: a\r\n\r\n" * 3
    last = b"GET /none HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    got = exchange(address, many + last)
    assert got.count(b"HTTP/1.1 200 OK\r\n") == 3
    assert got.count(b"HTTP/1.1 404 Not Found\r\n") == 1


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"])
def test_other_methods_are_not_allowed_where_there_is_a_page(address, method):
    status, headers, _ = get(address, "/here", method=method)
    assert (status, headers["Allow"]) == (405, "GET, HEAD")
    assert get(address, "/none", method=method)[0] == 404


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\r\n\r\n", 400),
        (b"GARBAGE\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\n\n", 400),
        (b"GET /here HTTP/1.1\r\nAccept: a\r\n b\r\n\r\n", 400),
        (b"GET /here HTTP/2.0\r\n\r\n", 505),
        (b"GET /here FTP\r\n\r\n", 400),
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\n\r\n", 431),
        (b"GET /here HTTP/1.1\r\n" + b"a: b\r\n" * 2000 + b"\r\n", 431),
        (b"GET /here HTTP/1.1\r\n" + b"a: b\r\n" * 200 + b"\r\n", 431),
        (b"GET /here HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", 200),
        (b"POST /here HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 405),
        (b"GET /here HTTP/1.0\r\n\r\n", 200),
        (b"GET /here\r\n\r\n", 200),
        (b"GET /here HTTP/1.1\nConnection: close\n\n", 200),
    ],
)
def test_a_request_that_is_malformed_or_the_last_is_answered_and_ends_the_connection(
    address, data, status, caplog
):
    with caplog.at_level(logging.DEBUG):
        got = exchange(address, data)
    assert got.startswith(b"HTTP/1.1 %d " % status)
    assert got.count(b"HTTP/1.1") == 1
    assert caplog.records == []


def test_nothing_of_a_request_is_in_the_answer_or_in_the_log(address, caplog):
    with caplog.at_level(logging.DEBUG):
        got = exchange(address, b"GET /\x1b[31m<script>\r\n\r\n") + exchange(
            address, b"<script> /x HTTP/1.1\r\nConnection: close\r\n\r\n"
        )
    assert b"script" not in got
    assert caplog.records == []


def test_a_page_that_fails_is_an_error_and_the_next_is_answered(address, caplog):
    assert get(address, "/fails")[0] == 500
    assert "a page of the management port failed" in caplog.text
    assert get(address, "/here")[0] == 200


def test_peers_that_send_nothing_or_slowly_are_closed(monkeypatch):
    monkeypatch.setattr(http_server, "_HEAD_S", 0.3)
    with serving() as address, connected(address) as silent, connected(address) as slow:
        started_s = time.monotonic()
        ended = threading.Event()

        def drip():
            with contextlib.suppress(OSError):
                while not ended.wait(0.02):
                    slow.sendall(b"x")

        thread = threading.Thread(target=drip)
        thread.start()
        assert until_closed(silent) == b""
        assert until_closed(slow) == b""
        ended.set()
        thread.join()
        assert time.monotonic() - started_s < PATIENCE_S
        assert get(address, "/here")[0] == 200


def test_a_connection_that_is_idle_between_requests_is_kept_for_longer(monkeypatch):
    monkeypatch.setattr(http_server, "_HEAD_S", 0.1)
    request = b"GET /here HTTP/1.1\r\n\r\n"
    with serving() as address, connected(address) as sock:
        sock.sendall(request)
        assert sock.recv(65536).startswith(b"HTTP/1.1 200")
        # Meanwhile others come and are given up.
        for _ in range(3):
            with connected(address) as silent:
                assert until_closed(silent) == b""
        sock.sendall(request)
        assert sock.recv(65536).startswith(b"HTTP/1.1 200")


def test_silent_connections_over_the_limit_keep_nobody_out(address):
    with contextlib.ExitStack() as stack:
        silent = [
            stack.enter_context(connected(address))
            for _ in range(2 * http_server._MOST_CONNECTIONS)
        ]
        assert get(address, "/here")[0] == 200
        # The first had to go.
        assert until_closed(silent[0]) == b""


def test_connections_that_are_answered_are_not_closed_for_others(eventually):
    held = threading.Barrier(http_server._MOST_CONNECTIONS + 1)

    def hold(path, headers):
        held.wait(PATIENCE_S)
        return Response(HTTPStatus.OK, b"held")

    with serving(hold) as address, contextlib.ExitStack() as stack:
        busy = [stack.enter_context(connected(address)) for _ in range(held.parties - 1)]
        for sock in busy:
            sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
        eventually(lambda: held.n_waiting == len(busy), "all are being answered")
        with connected(address) as surplus:
            assert until_closed(surplus) == b""
        held.wait(PATIENCE_S)
        assert all(until_closed(sock).endswith(b"held") for sock in busy)


def test_closing_ends_open_connections_and_the_port():
    with contextlib.ExitStack() as stack:
        with serving() as address:
            idle = stack.enter_context(connected(address))
            assert get(address, "/here")[0] == 200
        assert until_closed(idle) == b""
    with pytest.raises(OSError):  # noqa: PT011  # refused or reset
        get(address, "/here")


def test_a_name_listens_on_all_of_its_addresses():
    with serving(address="localhost:0") as address:
        port = address.rpartition(":")[2]
        assert get(f"localhost:{port}", "/here")[0] == 200
