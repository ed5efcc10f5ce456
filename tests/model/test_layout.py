import pytest

from model.errors import ModelError
from model.layout import find, graph_path


def put(folder, *paths):
    for path in paths:
        graph = folder / path / "model.onnx"
        graph.parent.mkdir(parents=True)
        graph.touch()


def test_a_graph_lies_under_name_then_version(tmp_path):
    assert graph_path(tmp_path, "a-B_1.c", 12) == tmp_path / "a-B_1.c" / "12" / "model.onnx"


@pytest.mark.parametrize(
    "name", ["", ".", "..", "...", "a/b", "../a", "a b", "a\n", "é", "a" * 201]
)
def test_names_that_are_no_plain_folder_are_refused(tmp_path, name):
    with pytest.raises(ModelError, match="expected 1 to 200"):
        graph_path(tmp_path, name, 1)


@pytest.mark.parametrize("version", [0, -1])
def test_versions_count_from_1(tmp_path, version):
    with pytest.raises(ModelError, match=f"version is {version}, expected 1 or more"):
        graph_path(tmp_path, "a", version)


def test_every_level_leads_to_the_highest_version(tmp_path):
    put(tmp_path, "a/9", "a/10")
    highest = tmp_path / "a" / "10" / "model.onnx"
    for path in (tmp_path, tmp_path / "a", tmp_path / "a" / "10", highest):
        assert find(path) == highest
    assert find(tmp_path / "a" / "9") == tmp_path / "a" / "9" / "model.onnx"


def test_folders_that_are_no_version_do_not_count(tmp_path):
    put(tmp_path, "a/1", "a/02", "a/latest")
    (tmp_path / "a" / "3").mkdir()
    (tmp_path / "a" / "config.pbtxt").touch()
    (tmp_path / "README").touch()
    assert find(tmp_path) == tmp_path / "a" / "1" / "model.onnx"


def test_a_repository_of_two_models_is_ambiguous(tmp_path):
    put(tmp_path, "a/1", "b/1")
    with pytest.raises(ModelError, match="holds a, b, expected exactly one"):
        find(tmp_path)


def test_an_empty_folder_holds_no_model(tmp_path):
    with pytest.raises(ModelError, match="holds no model"):
        find(tmp_path)


def test_a_missing_path_is_named(tmp_path):
    with pytest.raises(ModelError, match="nowhere does not exist"):
        find(tmp_path / "nowhere")
