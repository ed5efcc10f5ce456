import codecs

import grpc
import pytest
from onnx import helper

from client import text_file as client_text_file
from client.errors import UsageError
from server.errors import StartError
from server.onnx import text_file

READERS = [(text_file.decode, StartError), (client_text_file.decode, UsageError)]
TEXT = "# größer als π\r\nmax_batch_size: 8\r\n"
SAVED = {
    "UTF-8": TEXT.encode(),
    "UTF-8 with a mark": codecs.BOM_UTF8 + TEXT.encode(),
    "UTF-16, little end first": codecs.BOM_UTF16_LE + TEXT.encode("utf-16-le"),
    "UTF-16, big end first": codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"),
}


@pytest.mark.parametrize("decode", [decode for decode, _ in READERS])
@pytest.mark.parametrize("data", SAVED.values(), ids=SAVED)
def test_text_of_every_editor_is_the_same(decode, data):
    assert decode(data) == TEXT
    assert decode(b"") == ""


@pytest.mark.parametrize(("decode", "error"), READERS)
@pytest.mark.parametrize(
    ("data", "position", "byte"),
    [
        ("name: café".encode("latin-1"), 9, "e9"),
        (codecs.BOM_UTF8 + b"ab\xff", 5, "ff"),
        ("max".encode("utf-16-le"), 1, "00"),
        ("max".encode("utf-16-be"), 0, "00"),
        ("max".encode("utf-32"), 2, "00"),
        (codecs.BOM_UTF16_LE + "ab".encode("utf-16-le") + b"c", 6, "63"),
        (b"\x1f\x8b\x08\x00", 1, "8b"),
        (b"abc\0", 3, "00"),
    ],
)
def test_anything_else_is_refused_with_its_position(decode, error, data, position, byte):
    with pytest.raises(error, match=f"^byte {position} is 0x{byte}; expected UTF-8, or UTF-16"):
        decode(data)


@pytest.fixture(scope="module")
def caller(graphs, serve, call):
    value = ("float32", ["batch", 2])
    graphs.add("m", [helper.make_node("Neg", ["x"], ["y"])], {"x": value}, {"y": value})
    return call(serve(graphs.folder, model_control="explicit").address)


@pytest.mark.parametrize("data", SAVED.values(), ids=SAVED)
def test_a_configuration_may_be_saved_by_any_editor(caller, graphs, data):
    (graphs.folder / "m" / "config.pbtxt").write_bytes(data)
    caller.control("RepositoryModelLoad", model_name="m")
    assert caller.control("ModelConfig", name="m").config.max_batch_size == 8


def test_a_configuration_in_another_encoding_is_refused_by_name_and_position(caller, graphs):
    (graphs.folder / "m" / "config.pbtxt").write_bytes("# café\n".encode("latin-1"))
    with pytest.raises(grpc.RpcError) as caught:
        caller.control("RepositoryModelLoad", model_name="m")
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "m/config.pbtxt: byte 5 is 0xe9; expected UTF-8" in caught.value.details()


def test_a_configuration_in_a_request_may_have_a_mark_too(caller):
    config = {"string_param": '\ufeff{"max_batch_size": 5}\r\n'}
    caller.control("RepositoryModelLoad", model_name="m", parameters={"config": config})
    assert caller.control("ModelConfig", name="m").config.max_batch_size == 5
