"""Which names classes get, and where the labels come from."""

import json

import numpy as np
import pytest

from client.class_names import ClassNames, class_names, labelled_output
from client.errors import UsageError
from protos import model_config_pb2 as config_pb

LABELS = ("ant", "bee", "", "cat")
NAMES = ClassNames("y", LABELS)


def config(data_type="TYPE_INT64", *, file="", rows=8, **parameters):
    output = config_pb.ModelOutput(name="y", data_type=data_type, label_filename=file)
    told = config_pb.ModelConfig(name="m", max_batch_size=rows, output=[output])
    for name, value in parameters.items():
        told.parameters[name.replace("_of_", ":")].string_value = json.dumps(value)
    return told


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.int32])
def test_indices_are_named_in_their_shape(dtype):
    indices = np.array([[0, 1], [3, 0]], dtype)
    assert NAMES.of(indices).tolist() == [["ant", "bee"], ["cat", "ant"]]


def test_the_best_of_scores_is_named_the_first_of_equal_ones():
    scores = np.array([[1, 2, 0, 2], [0, 0, 0, 1], [3, 3, 3, 3]], np.float16)
    assert NAMES.of(scores).tolist() == ["bee", "cat", "ant"]
    assert NAMES.of(scores.reshape(3, 2, 2)).tolist() == ["bee", "cat", "ant"]


def test_an_output_of_text_holds_names_already():
    names = class_names(config("TYPE_STRING"), "y")
    given = np.array([b"caf\xc3\xa9", b"tea"], np.object_)
    assert names.of(given).tolist() == ["café", "tea"]


def test_names_are_numpys_text():
    assert NAMES.of(np.array([3])).dtype.kind == "U"
    assert NAMES.of(np.empty((0, 4), np.float32)).dtype.kind == "U"


@pytest.mark.parametrize(("index", "reason"), [(-1, "0 to 3"), (2, "blank"), (4, "0 to 3")])
def test_a_class_without_a_label_is_named_by_its_index(index, reason):
    with pytest.raises(UsageError, match=f"class {index} of output 'y' has no label.*{reason}"):
        NAMES.of(np.array([0, index]))


def test_one_score_a_row_has_no_best():
    with pytest.raises(UsageError, match=r"output 'y' has shape \[2\], expected scores"):
        NAMES.of(np.array([0.5, 0.7]))


def test_the_labels_of_the_output_count_before_those_of_the_model():
    told = config(labels=["model"], labels_of_y=["output"])
    assert class_names(told, "y") == ClassNames("y", ("output",))
    assert class_names(config(labels=[3, 4.5, "x"]), "y").labels == ("3", "4.5", "x")


@pytest.mark.parametrize("value", [{"a": 1}, "text", 7, []])
def test_a_parameter_that_is_no_list_of_labels_is_none(value):
    with pytest.raises(UsageError, match="has no labels"):
        class_names(config(labels=value), "y")


def test_labels_that_the_server_keeps_are_asked_for_in_the_answer():
    names = class_names(config("TYPE_FP32", file="l.txt"), "y")
    assert names.requested.parameters == {"classification": 1}
    texts = np.array([[b"0.5:1:bee"], [b"2.000000:3:a: b"]], np.object_)
    assert names.of(texts).tolist() == ["bee", "a: b"]
    with pytest.raises(UsageError, match="class 7 of output 'y' has no label"):
        names.of(np.array([[b"0.5:7"]], np.object_))


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        (config(), r"config.pbtxt: output \{ name: \"y\" label_filename: \"labels.txt\" \}"),
        (config("TYPE_FP32"), "has no labels; name a file"),
        (config(file="l.txt"), "does not return its lines; expected scores"),
        (config("TYPE_FP32", file="l.txt", rows=0), "with a batch axis"),
    ],
)
def test_an_output_without_labels_says_how_to_give_it_some(told, reason):
    with pytest.raises(UsageError, match=reason):
        class_names(told, "y")


def test_an_output_that_is_not_there_is_refused():
    with pytest.raises(UsageError, match=r"outputs \['y'\], but no 'z'"):
        class_names(config(labels=["a"]), "z")


def test_the_labelled_output_is_the_preferred_one_or_the_only_one():
    told = config(file="l.txt")
    assert labelled_output(told, "label") == "y"
    told.output.add(name="label")
    assert labelled_output(told, "label") == "y"
    told.output[1].label_filename = "l.txt"
    assert labelled_output(told, "label") == "label"
    assert labelled_output(told, "other") is None
    assert labelled_output(config(labels_of_y=["a"]), "label") == "y"
