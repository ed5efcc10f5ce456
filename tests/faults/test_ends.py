"""A server that is short of something, or that nobody listens to, loses calls and always ends."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import urllib.request

import grpc
import numpy as np
import pytest
from conftest import GROUP_ROWS, PATIENCE_S, ROOT, Caller, Graphs

from measure.core.processes import free_port
from model.export import export
from model.weights import from_seed
from server.app.process.ending import EXIT_CODE

CLASSES, FEATURES = 4, 256 * 1024
MIB = 2**20
NO_THREAD = "argmax-server: error: "
USER = 54_321
# Python and its packages may lie where another user cannot read.
OTHER_USER = (
    *("setpriv", "--reuid", str(USER), "--regid", str(USER), "--clear-groups"),
    *("--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"),
)


def works(*words):
    return (
        shutil.which(words[0]) is not None
        and not subprocess.run([*words, "true"], capture_output=True, check=False).returncode
    )


needs_prlimit = pytest.mark.skipif(not works("prlimit"), reason="prlimit is not here")
needs_user = pytest.mark.skipif(
    not (works("prlimit") and works(*OTHER_USER)),
    reason="the limit of processes is not kept for root, and another user cannot be taken",
)


@pytest.fixture(scope="module")
def models(graphs):
    export(graphs.folder, "linear", from_seed(CLASSES, FEATURES, 0), "float32", 0)
    graphs.folder.chmod(0o755)
    return graphs.folder


@pytest.fixture(scope="module")
def slow_models(tmp_path_factory):
    graphs = Graphs(tmp_path_factory.mktemp("slow"))
    graphs.add_steps()
    return graphs.folder


@pytest.fixture
def start(models):
    """Start a server with any standard streams; its process."""
    with contextlib.ExitStack() as stack:

        def started(*options, before=(), folder=models, **streams):
            words = ("--models", folder, "--validation", "off", *options)
            process = subprocess.Popen(
                [*map(str, before), sys.executable, "-m", "server", *map(str, words)],
                cwd=ROOT,
                **streams,
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process

        yield started


def ask(caller, rows=1):
    message = caller.message("linear", outputs=["label"], x=np.ones((rows, FEATURES), np.float32))
    (output,) = caller.infer(message).outputs
    return output.data


# Too little of something.


@needs_user
@pytest.mark.parametrize("threads", [1, 2, 6, 12, 24])
def test_without_threads_for_its_start_it_ends_with_one_line(start, threads):
    process = start(
        *("--address", "127.0.0.1:0", "--log-level", "error"),
        before=(*OTHER_USER, "prlimit", f"--nproc={threads}"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out) == (2, "")
    assert err.splitlines()[-1].startswith(NO_THREAD)
    assert "no thread can be started" in err or "pthread_create failed" in err
    assert "Traceback" not in err


@needs_user
def test_without_a_thread_to_start_it_serves_reloads_and_ends(launch, models, call):
    process = launch(
        models,
        *("--model-control", "explicit", "--load-model", "*"),
        before=(*OTHER_USER, "prlimit", "--nproc=200"),
    )
    caller = call(process.address)
    before = ask(caller)
    subprocess.run(
        [*OTHER_USER, "prlimit", f"--pid={process.popen.pid}", "--nproc=1"],
        check=True,
        timeout=PATIENCE_S,
    )
    assert ask(caller) == before
    assert caller.control("ServerReady").ready
    with pytest.raises(grpc.RpcError, match=r"no thread can be started|pthread_create failed"):
        caller.control("RepositoryModelLoad", model_name="linear")
    process.popen.send_signal(signal.SIGUSR1)
    assert ask(caller) == before
    # The thread that closes it is there already.
    caller.control("RepositoryModelUnload", model_name="linear")
    assert process.stop() == 0
    assert "Traceback" not in "\n".join(process.said())


@needs_prlimit
@pytest.mark.parametrize("limit_mib", [300, 500])
def test_messages_without_memory_are_refused_and_others_answered(launch, models, call, limit_mib):
    process = launch(
        models,
        *("--max-inflight-bytes", 1000 * MIB, "--max-message-bytes", 200 * MIB),
        before=("prlimit", f"--data={limit_mib * MIB}"),
    )
    caller = call(process.address)
    x = np.ones((100, FEATURES), np.float32)
    large = caller.message("linear", outputs=["label"], x=x)
    codes = [sent.code() for sent in [caller.infer_later(large) for _ in range(8)]]
    # Not one of them fits into the smaller limit; how many fit into the other is a matter of time.
    fits = {grpc.StatusCode.OK} if limit_mib > 300 else set()
    assert set(codes) <= {grpc.StatusCode.RESOURCE_EXHAUSTED} | fits
    assert len(ask(caller)) == 1
    assert process.stop() == 0
    assert "Traceback" not in "\n".join(process.said())


@needs_prlimit
def test_groups_beyond_memory_are_gathered_as_far_as_rows_are_there(launch, models, call):
    rows = 10**6
    process = launch(
        models,
        # A TiB, which the rows that wait for each other do not take.
        *("--group-rows", rows, "--max-batch-rows", rows, "--queue-delay-us", 200_000),
        before=("prlimit", f"--as={20 * 1024 * MIB}"),
    )
    caller = call(process.address)
    message = caller.message("linear", outputs=["label"], x=np.ones((1, FEATURES), np.float32))
    for requests in (2, 6):
        sent = [caller.infer_later(message) for _ in range(requests)]
        assert [each.code() for each in sent] == [grpc.StatusCode.OK] * requests
    statistics = caller.statistics("linear")
    assert statistics.execution_count < statistics.inference_count
    assert process.stop() == 0
    assert "Traceback" not in "\n".join(process.said())


@needs_prlimit
def test_padded_groups_beyond_memory_end_the_start_with_one_line(start):
    rows = 10**6
    process = start(
        *("--address", "127.0.0.1:0", "--log-level", "error", "--deterministic", "on"),
        *("--group-rows", rows, "--max-batch-rows", rows),
        before=("prlimit", f"--as={20 * 1024 * MIB}"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out) == (2, "")
    (line,) = err.splitlines()
    assert line.startswith("argmax-server: error: ")
    assert "out of memory" in line


# Nobody who reads what it says.


@contextlib.contextmanager
def unread(kind):
    """A descriptor for stdout and stderr."""
    if kind == "full disk":
        descriptor = os.open("/dev/full", os.O_WRONLY)
        other = None
    else:
        other, descriptor = os.pipe()
    if kind == "full pipe":
        os.set_blocking(descriptor, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(descriptor, bytes(4096))
        os.set_blocking(descriptor, True)
    elif kind == "reader gone":
        os.close(other)
        other = None
    try:
        yield descriptor
    finally:
        os.close(descriptor)
        if other is not None:
            os.close(other)


KINDS = ("full pipe", "reader gone", "full disk")


@pytest.mark.parametrize("kind", KINDS)
def test_streams_that_nobody_reads_hold_up_nothing(start, tmp_path, eventually, kind):
    address = f"unix:{tmp_path / 's'}"
    port = free_port()
    with unread(kind) as descriptor:
        process = start(
            *("--address", address, "--metrics-address", f"127.0.0.1:{port}", "--access-log", "on"),
            *("--max-message-bytes", 2 * MIB, "--log-level", "debug"),
            stdout=descriptor,
            stderr=descriptor,
        )
        eventually((tmp_path / "s").exists, "it listens")
        caller = Caller(address)
        try:
            assert len(ask(caller)) == 1
            process.send_signal(signal.SIGUSR1)
            assert len(ask(caller)) == 1
            if kind != "full pipe":
                eventually(lambda: dropped(port) > 0, "lost lines are counted")
        finally:
            caller.channel.close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0


def dropped(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE_S) as page:
        text = page.read().decode()
    (line,) = (each for each in text.splitlines() if 'what="log_lines"' in each)
    return float(line.split()[-1])


def test_standard_streams_that_are_closed_are_taken_by_nothing_else(start, tmp_path, eventually):
    process = start(
        *("--address", f"unix:{tmp_path / 's'}"),
        before=("sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"),
    )
    eventually((tmp_path / "s").exists, "it listens")
    caller = Caller(f"unix:{tmp_path / 's'}")
    try:
        assert len(ask(caller)) == 1
    finally:
        caller.channel.close()
    for number in range(3):
        assert os.readlink(f"/proc/{process.pid}/fd/{number}") == "/dev/null"
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE_S) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_start_that_fails_ends_though_nobody_reads_why(start, tmp_path, kind):
    with unread(kind) as descriptor:
        process = start(
            *("--address", "127.0.0.1:0"), folder=tmp_path, stdout=descriptor, stderr=descriptor
        )
        assert process.wait(PATIENCE_S) == 2


# The end.

PROCESS_1 = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")


@pytest.mark.parametrize("alone", [True, False], ids=["alone", "process 1"])
def test_the_grace_period_ends_a_server_that_hangs(launch, slow_models, call, alone):
    if not alone and not works(*PROCESS_1):
        pytest.skip("no namespace of processes can be made here")
    options = ("--grace-s", 1, "--group-rows", GROUP_ROWS)
    process = launch(slow_models, *options, before=() if alone else PROCESS_1)
    caller = call(process.address)
    # One execution, which cannot be interrupted, takes for ever.
    with caller.busy_worker(executions=1, slow_steps=2**40) as running:
        os.kill(process.popen.pid if alone else child_of(process.popen.pid), signal.SIGTERM)
        assert process.wait() == EXIT_CODE
        assert running.code() is grpc.StatusCode.UNAVAILABLE


def child_of(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as children:
        (child,) = children.read().split()
    return int(child)
