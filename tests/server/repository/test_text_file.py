import codecs

import grpc
import pytest
from onnx import helper

TEXT = "# größer als π\r\nmax_batch_size: 8\r\n"
SAVED = {
    "UTF-8": TEXT.encode(),
    "UTF-8 with a mark": codecs.BOM_UTF8 + TEXT.encode(),
    "UTF-16, little end first": codecs.BOM_UTF16_LE + TEXT.encode("utf-16-le"),
    "UTF-16, big end first": codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"),
}


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
