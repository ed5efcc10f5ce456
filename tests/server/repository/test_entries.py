"""One odd entry of the repository does not concern the models beside it, and is named once."""

import contextlib
import json
import os
import shutil
import socket
import stat

import containers
import psutil
import pytest
from onnx import helper

X = ("float32", ["batch", 2])
MESSAGE = "entry of the model repository is not used"
READ_BY_ALL = 0o755
contained = pytest.mark.skipif(bool(containers.why_not()), reason=str(containers.why_not()))


@pytest.fixture
def folder(graphs, tmp_path):
    """A repository of one model, whose name could be that of a version."""
    graphs.folder = tmp_path / "models"
    add(graphs, "7")
    graphs.folder.chmod(READ_BY_ALL)
    return graphs.folder


def add(graphs, name):
    graphs.add(name, [helper.make_node("Neg", ["x"], ["y"])], {"x": X}, {"y": X})


def _folder_without_permission(path):
    path.mkdir(mode=0o700)


def _folder_that_cannot_be_searched(path):
    """Its names can be read, but nothing else of it."""
    (path / "1").mkdir(parents=True)
    path.chmod(0o744)


def _name_that_is_no_text(path):
    shutil.copytree(path.with_name("7"), path.with_name(os.fsdecode(b"\xff\xfe")))


def _dangling_link(path):
    path.symlink_to(path.with_name("nowhere"))


def _socket(path):
    with socket.socket(socket.AF_UNIX) as listening:
        # Its path would be too long.
        here = os.open(path.parent, os.O_PATH)
        listening.bind(f"/proc/self/fd/{here}/{path.name}")
        os.close(here)


def _device(path):
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("only root can make a device")


# The entry `odd`, and what is said of it.
ODD = {
    _name_that_is_no_text: r"\xff\xfe has a name that is not UTF-8",
    _dangling_link: "odd is a link that leads nowhere",
    os.mkfifo: "odd is a named pipe",
    _socket: "odd is a socket",
    _device: "odd is a device",
    (lambda path: path.symlink_to(path)): ("odd cannot be read: Too many levels of symbolic links"),
    (lambda path: path.symlink_to(path.parent)): "odd is a link to a folder that it lies in",
    (lambda path: path.symlink_to("/")): "odd is a link to a folder that it lies in",
}
UNREADABLE = {
    _folder_without_permission: "odd cannot be read: Permission denied",
    _folder_that_cannot_be_searched: "odd cannot be read: Permission denied",
}


def named(process):
    """Texts about entries in the log."""
    lines = [json.loads(line) for line in process.said() if line.startswith("{")]
    return [line["entry"] for line in lines if line["message"] == MESSAGE]


def listed(caller):
    return {each.name: each.state for each in caller.control("RepositoryIndex").models}


def reasons(caller):
    return {each.name: each.reason for each in caller.control("RepositoryIndex").models}


def check_all_controls(start, call, eventually, graphs, make, text):
    """Start, poll and list beside an entry that is made before, or while the server polls."""
    odd = graphs.folder / "odd"
    polling = start("--model-control", "poll", "--poll-s", "0.05")
    caller = call(polling.address)
    assert listed(caller) == {"7": "READY"}
    make(odd)
    # Each is found by a poll of its own, or by a later one.
    for name in ("later", "last"):
        add(graphs, name)
        eventually(lambda: listed(caller).get(name) == "READY", "the new model serves")  # noqa: B023
    assert named(polling) == [text]
    for control in ((), ("--model-control", "explicit", "--load-model", "*")):
        process = start(*control)
        assert listed(call(process.address)) == dict.fromkeys(("7", "last", "later"), "READY")
        assert named(process) == [text]


@pytest.mark.parametrize(("make", "text"), ODD.items(), ids=[make.__name__ for make in ODD])
def test_an_odd_entry_keeps_no_other_model_from_being_started_polled_or_listed(
    launch, call, eventually, graphs, folder, make, text
):
    check_all_controls(
        lambda *options: launch(folder, *options), call, eventually, graphs, make, text
    )


@pytest.fixture
def start_unprivileged(launch, folder, tmp_path):
    """Start servers of the folder as a user who may not read everything in it."""
    (tmp_path / "root").mkdir()
    servers = []

    def start(*options):
        before = containers.command(folder, tmp_path / "root")
        process = launch(containers.MODELS, *options, before=before)
        server = containers.process_1(psutil.Process(process.popen.pid))
        assert server is not None, process.said()
        servers.append(server)
        return process

    yield start
    # Under another user they do not end with the process that has started them.
    for server in servers:
        with contextlib.suppress(psutil.NoSuchProcess):
            server.kill()


@contained
@pytest.mark.parametrize(("make", "text"), UNREADABLE.items(), ids=["no r, no x", "no x"])
def test_a_folder_that_the_server_may_not_read_keeps_no_other_model_from_it(
    start_unprivileged, call, eventually, graphs, make, text
):
    check_all_controls(start_unprivileged, call, eventually, graphs, make, text)


@contained
def test_a_model_that_becomes_unreadable_serves_on_and_others_are_polled(
    start_unprivileged, call, eventually, graphs, folder
):
    process = start_unprivileged("--model-control", "poll", "--poll-s", "0.05")
    caller = call(process.address)
    (folder / "7").chmod(0)
    eventually(lambda: named(process), "the model is seen to be unreadable")
    add(graphs, "later")
    eventually(lambda: listed(caller).get("later") == "READY", "the new model serves")
    assert listed(caller)["7"] == "READY"
    # A version that cannot be read is an error of its model alone.
    (folder / "later" / "1").chmod(0)
    (folder / "7").chmod(READ_BY_ALL)
    add(graphs, "last")
    eventually(lambda: "Permission denied" in reasons(caller)["later"], "its error is listed")
    eventually(lambda: listed(caller).get("last") == "READY", "the new model serves")
    assert reasons(caller)["7"] == reasons(caller)["last"] == ""


def test_a_repository_of_odd_entries_alone_is_refused_with_their_names(refusal, tmp_path):
    os.mkfifo(tmp_path / "odd")
    assert refusal("--models", tmp_path).endswith("/model.onnx below it; odd is a named pipe")


def test_names_that_are_no_text_are_readable_in_answers(serve, call, folder):
    os.makedirs(os.fsencode(folder) + b"/m/1")
    with open(os.fsencode(folder) + b"/m/1/\xff.onnx", "wb"):
        pass
    caller = call(serve(folder, model_control="poll").address)
    assert r"got \xff.onnx, expected model.onnx" in reasons(caller)["m"]
