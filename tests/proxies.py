"""haproxy and nginx in front of servers, run from the files of deploy/proxies."""

import contextlib
import csv
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

import psutil
import pytest
from conftest import PATIENCE_S, ROOT, wait_until

FOLDER = ROOT / "deploy" / "proxies"
_LISTENS, _SERVERS = "127.0.0.1:8000", ("127.0.0.1:8001", "127.0.0.1:8002", "127.0.0.1:8003")


class Proxy:
    """A proxy process. Its address takes connections from the start."""

    program = ""

    def __init__(self, servers):
        """`servers`: addresses of three, which may be the same."""
        path = shutil.which(self.program, path=f"{os.environ['PATH']}:/usr/sbin")
        if path is None:
            pytest.skip(f"{self.program} is not installed; Debian's package of that name has it")
        self.servers = servers
        # Worker processes of another user enter it; the path of a socket is short.
        self.folder = Path(tempfile.mkdtemp(prefix="proxy-"))
        self.folder.chmod(0o755)
        # The process gets the socket itself: no other one can take the port meanwhile.
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        # nginx expects it so: workers that race for a connection would wait for the next one.
        self._listener.setblocking(False)
        self.address = "127.0.0.1:{1}".format(*self._listener.getsockname())
        self._log = (self.folder / "log").open("w")
        self._command = [path, *self._options()]
        self._environment = {**os.environ, **self._variables(self._listener.fileno())}
        self._process = subprocess.Popen(
            self._command,
            env=self._environment,
            pass_fds=[self._listener.fileno()],
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        self._wait()

    def _wait(self):
        """Wait until it can be controlled."""

    def _options(self):
        """Words after the program's name."""
        raise NotImplementedError

    def _variables(self, listener):
        """Variables of its environment; `listener` is a file descriptor."""
        raise NotImplementedError

    def check(self, word):
        """What the program says about its configuration, with its option for that."""
        return subprocess.run(
            [*self._command, word],
            env={**self._environment, **self._variables(self._listener.fileno())},
            pass_fds=[self._listener.fileno()],
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )

    def close(self):
        """End the process."""
        self._process.terminate()
        self._process.wait(PATIENCE_S)
        self._listener.close()
        self._log.close()
        shutil.rmtree(self.folder)


class Haproxy(Proxy):
    """haproxy gets its addresses from the environment."""

    program = "haproxy"

    def _options(self):
        return ["-db", "-f", str(FOLDER / "haproxy.cfg")]

    def _variables(self, listener):
        return {
            "ARGMAX_PROXY_ADDRESS": f"fd@{listener}",
            "ARGMAX_PROXY_SOCKET": str(self.folder / "socket"),
            **dict(zip(map("ARGMAX_SERVER_{}".format, "ABC"), self.servers, strict=True)),
        }

    def _wait(self):
        def controlled():
            with contextlib.suppress(OSError):
                return self.told("show info")

        wait_until(controlled, "haproxy takes commands")

    def told(self, line):
        """The answer to a command on its socket."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(PATIENCE_S)
            sock.connect(str(self.folder / "socket"))
            sock.sendall(f"{line}\n".encode())
            return b"".join(iter(lambda: sock.recv(2**16), b"")).decode().strip()

    def state(self, number):
        """Row of the statistics for a server."""
        rows = csv.DictReader(self.told("show stat").removeprefix("# ").splitlines())
        (row,) = [r for r in rows if (r["pxname"], r["svname"]) == ("servers", "abc"[number])]
        return row

    def ignore_health(self, number):
        """Send a server calls whatever its health checks say."""
        assert self.told(f"disable health servers/{'abc'[number]}") == ""
        assert self.told(f"set server servers/{'abc'[number]} health up") == ""

    def take_out(self, number):
        """Send a server no new calls, and wait for those that it has."""
        assert self.told(f"set server servers/{'abc'[number]} state drain") == ""
        wait_until(lambda: self.state(number)["scur"] == "0", "its calls have ended")

    def put_back(self, number):
        """Send a server calls again."""
        assert self.told(f"set server servers/{'abc'[number]} state ready") == ""


class Nginx(Proxy):
    """nginx gets a copy of the file with other addresses."""

    program = "nginx"

    def _options(self):
        self._write()
        whole = f"daemon off; pid {self.folder}/pid;"
        return ["-p", self.folder, "-e", "stderr", "-c", self.folder / "nginx.conf", "-g", whole]

    def _variables(self, listener):
        # The way in which it hands its sockets to a newer version of itself.
        return {"NGINX": f"{listener};"}

    def _write(self, down=()):
        text = (FOLDER / "nginx.conf").read_text()
        replaced = dict(zip((_LISTENS, *_SERVERS), (self.address, *self.servers), strict=True))
        for number in down:
            line = re.search(rf"server {re.escape(_SERVERS[number])}.*(?=;)", text)[0]
            text = text.replace(line, f"{line} down")
        for old in replaced:
            assert text.count(old) == 1
        text = re.sub(r"127\.0\.0\.1:800\d", lambda found: replaced[found[0]], text)
        # Its own folders are for root alone.
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        paths = "".join(f"{kind}_temp_path {self.folder}/{kind};\n" for kind in kinds)
        text, count = re.subn(r"^http \{\n", rf"\g<0>{paths}", text, flags=re.MULTILINE)
        assert count == 1
        (self.folder / "nginx.conf").write_text(text)

    def ignore_health(self, number):
        """Send a server calls whatever its health checks say: it has none."""

    def _workers(self):
        return {child.pid for child in psutil.Process(self._process.pid).children()}

    def _reload(self, down=()):
        """Start workers with a new configuration; the processes of those before."""
        self._write(down)
        wait_until(self._workers, "it has workers")
        before = self._workers()
        self._process.send_signal(signal.SIGHUP)
        return before

    def take_out(self, number):
        """Send a server no new calls, and wait for those that it has."""
        before = self._reload([number])
        wait_until(lambda: self._workers().isdisjoint(before), "the last calls have ended")

    def put_back(self, number):
        """Send a server calls again."""
        self._reload()


PROXIES = {"haproxy": Haproxy, "nginx": Nginx}
