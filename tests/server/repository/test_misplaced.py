"""What is not where a model belongs, or not what its name says, is named with what to do."""

import grpc
import pytest
from onnx import TensorProto, helper

from model.export import export
from model.weights import from_seed
from server.app.config import Config
from server.app.server import Server
from server.errors import StartError

POINTER = (
    "version https://git-lfs.github.com/spec/v1\n"
    "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\n"
    "size 12345\n"
)
PULL = "is a Git LFS pointer, not the file itself; run `git lfs pull`"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


@pytest.fixture
def refused(serve, call, folder):
    """Ask a server to load the model `m`, which it refuses; the text."""

    def load():
        caller = call(serve(folder, model_control="explicit").address)
        with pytest.raises(grpc.RpcError) as caught:
            caller.control("RepositoryModelLoad", model_name="m")
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        ((state, reason),) = {
            (one.state, one.reason)
            for one in caller.control("RepositoryIndex").models
            if one.name == "m"
        } or {("UNAVAILABLE", "")}
        assert state == "UNAVAILABLE"
        assert reason in ("", caught.value.details().partition("loaded: ")[2])
        return caught.value.details()

    return load


def put(path, content=b"graph"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def add(folder, name="m", version=1, **options):
    return export(folder, name, from_seed(4, 8, 1), "float32", version=version, **options)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (["m/01/model.onnx"], "m/01/model.onnx is in a folder that is no version; rename it to 1"),
        (["m/v1/model.onnx"], "m/v1/model.onnx is in a folder that is no version; rename it to 1"),
        (["m/V2.0/a.onnx"], "m/V2.0/a.onnx is in a folder that is no version; rename it to 2"),
        (["m/version-3/a.pt"], "m/version-3/a.pt is in a folder that is no version; rename it to"),
        (["m/latest/model.onnx"], "m/latest/model.onnx is in a folder that is no version; expect"),
        (["m/model.onnx"], "m/model.onnx is in no version; move it to m/1/model.onnx"),
        (
            ["m/1/resnet50.onnx"],
            "m/1: got resnet50.onnx, expected model.onnx; rename it, or set default_model_filename",
        ),
        (["m/1/Model.ONNX"], "m/1: got Model.ONNX, expected model.onnx; rename it"),
        (
            ["m/1/a.onnx", "m/1/b.pt"],
            "got a.onnx, b.pt (a PyTorch model), expected model.onnx; rename the .onnx file",
        ),
        (["m/1/saved_model.pb"], "got saved_model.pb (a TensorFlow graph), expected model.onnx"),
        (["m/1/model.pt"], "got model.pt (a PyTorch model), expected model.onnx; convert it to"),
        (["m/1/model.H5"], "got model.H5 (a Keras model), expected model.onnx; convert it to"),
        (
            ["m/1/model.safetensors"],
            "got model.safetensors (weights without a graph), expected model.onnx; convert it",
        ),
        (["m/1/notes.txt"], "m/1: got no model.onnx in it"),
        (["m/config.pbtxt"], "expected m/VERSION/model.onnx"),
    ],
)
def test_what_is_there_instead_of_a_graph_is_named(refused, folder, files, said):
    for name in files:
        put(folder / name, b"")
    text = refused()
    assert "model 'm' has no version to serve: " in text
    assert said in text


def test_the_file_that_the_configuration_names_is_the_one_expected(refused, folder):
    put(folder / "m" / "1" / "model.onnx")
    put(folder / "m" / "config.pbtxt", b'default_model_filename: "net.onnx"')
    assert "m/1: got model.onnx, expected net.onnx; rename it" in refused()


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("m/v1/model.onnx", "m/v1/model.onnx is in a folder that is no version; rename it to 1"),
        ("m/model.onnx", "m/model.onnx is in no version; move it to m/1/model.onnx"),
        ("model.onnx", "model.onnx is in the repository itself; expected NAME/VERSION/model.onnx"),
    ],
)
def test_a_start_without_any_model_says_what_it_found(folder, file, said):
    put(folder / file)
    with pytest.raises(StartError) as caught:
        Server(Config(models=folder, address="127.0.0.1:0"))
    text = str(caught.value)
    assert text.startswith(f"{folder} holds no model; expected NAME/VERSION/model.onnx below it; ")
    assert text.endswith(said)


def test_beside_models_that_serve_it_is_a_warning(serve, call, folder, caplog):
    add(folder)
    put(folder / "m" / "02" / "model.onnx")
    put(folder / "other" / "v1" / "model.onnx")
    put(folder / "notes" / "v1" / "readme.txt")
    put(folder / ".hidden" / "model.onnx")
    caller = call(serve(folder).address)
    assert [one.state for one in caller.control("RepositoryIndex").models] == ["READY"]
    warnings = [one.file for one in caplog.records if one.levelname == "WARNING"]
    assert warnings == [
        "other/v1/model.onnx is in a folder that is no version; rename it to 1",
        "m/02/model.onnx is in a folder that is no version; rename it to 2",
    ]


def test_a_poll_warns_once(serve, call, folder, caplog, eventually):
    add(folder)
    put(folder / "other" / "v1" / "model.onnx")
    caller = call(serve(folder, model_control="poll", poll_s=0.01).address)
    add(folder, "new")

    def ready():
        return {one.name for one in caller.control("RepositoryIndex", ready=True).models}

    eventually(lambda: ready() == {"m", "new"}, "a poll has found the new model")
    put(folder / "late" / "model.onnx")
    wanted = ["other/v1/model.onnx", "late/model.onnx"]

    def warned():
        texts = [one.file for one in caplog.records if one.levelname == "WARNING"]
        return [text.split()[0] for text in texts]

    eventually(lambda: warned() == wanted, "the second is warned of as well, the first only once")


def test_a_link_that_leads_out_is_not_looked_into(folder, tmp_path):
    put(tmp_path / "outside" / "v1" / "secret.onnx")
    put(folder / "m" / "model.onnx")
    (folder / "m" / "v2").symlink_to(tmp_path / "outside" / "v1")
    with pytest.raises(StartError) as caught:
        Server(Config(models=folder, address="127.0.0.1:0"))
    assert "secret" not in str(caught.value)


# Files that are not what their names say.


def test_a_git_lfs_pointer_in_place_of_a_graph_is_named(refused, folder):
    put(folder / "m" / "1" / "model.onnx", POINTER.encode())
    assert f"m/1/model.onnx {PULL}" in refused()


def test_a_git_lfs_pointer_in_place_of_weights_is_named(refused, folder):
    path = add(folder, inline_limit_bytes=0)
    (data,) = path.parent.glob("*.data")
    data.write_text(POINTER)
    assert f"m/1/{data.name} {PULL}" in refused()


def test_a_graph_with_zipmap_is_refused_with_the_option_that_leaves_it_out(refused, folder):
    float_map = helper.make_map_type_proto(
        TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, [])
    )
    graph = helper.make_graph(
        [
            helper.make_node(
                "ZipMap", ["x"], ["probabilities"], domain="ai.onnx.ml", classlabels_int64s=[0, 1]
            )
        ],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 2])],
        [helper.make_value_info("probabilities", helper.make_sequence_type_proto(float_map))],
    )
    opsets = [helper.make_opsetid("", 13), helper.make_opsetid("ai.onnx.ml", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    put(folder / "m" / "1" / "model.onnx", model.SerializeToString())
    text = refused()
    assert "'probabilities' has type seq(map(int64,tensor(float))), which is not supported" in text
    assert "convert with options={'zipmap': False}" in text
