import os
import re
import subprocess
import sys
from pathlib import Path

import in_process
import numpy as np
import pytest

from command_line.onnx_runtime import ort
from measure.__main__ import main as client_main
from model.__main__ import main as model_main
from server.errors import StartError
from server.onnx.engine import Engine
from server.onnx.execution_provider import CPU, CUDA, OPENVINO, WANTED, ExecutionProvider, parse
from server.onnx.provider_library import names, require, used_providers

ROOT = Path(__file__).resolve().parents[3]
CLASSES, FEATURES, EXAMPLES = 64, 4096, 1024
TIMINGS = {"timings": True}


def reason(name):
    """Why a provider is not available; "" if it is."""
    try:
        require(ExecutionProvider(name))
    except StartError as error:
        return str(error)
    return ""


needs_openvino = pytest.mark.skipif(
    bool(reason(OPENVINO)), reason=f"needs the extra [openvino] and its device: {reason(OPENVINO)}"
)
no_cuda = pytest.mark.skipif(not reason(CUDA), reason="there is a GPU")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two models of the same weights: `linear`, `other`."""
    folder = tmp_path_factory.mktemp("models")
    for name in ("linear", "other"):
        words = ["--name", name, "--classes", CLASSES, "--features", FEATURES]
        assert in_process.run(model_main, "export", "--out", folder, *words).returncode == 0
    return folder


@pytest.fixture(scope="module")
def examples():
    return np.random.default_rng(7).standard_normal((EXAMPLES, FEATURES), dtype=np.float32)


def graph(models, name="linear"):
    return models / name / "1" / "model.onnx"


def told(caller, model, x):
    message = caller.message(model, outputs=["label"], parameters=TIMINGS, x=x)
    answer = caller.infer(message)
    return answer.parameters["execution_provider"], answer.outputs[0].data


# What is not available.


def test_the_cpu_is_here():
    assert CPU in names()
    assert reason(CPU) == ""


@pytest.mark.parametrize(
    "option", ["cuda", "tensorrt:precision=f16", "NoSuchExecutionProvider:a=b"]
)
@no_cuda
def test_a_server_ends_at_once_with_what_is_missing_and_what_is_here(refusal, models, option):
    line = refusal("--models", models, "--ep", option)
    name = parse(option).name
    assert line.startswith(f"execution provider {name} is not available: ")
    assert re.search(rf"; available are .*{CPU}", line)
    if name not in names() and option.startswith(("cuda", "tensorrt")):
        assert line.endswith("; it comes with the extra [cuda] of argmax-serving")


@pytest.mark.parametrize("control", ["poll", "explicit"])
@no_cuda
def test_a_server_whose_models_come_later_ends_at_once_too(refusal, tmp_path, control):
    assert CUDA in refusal("--models", tmp_path, "--ep", "cuda", "--model-control", control)


@no_cuda
def test_an_engine_names_the_file_whose_provider_is_missing(models):
    with pytest.raises(StartError, match=rf"^{re.escape(str(graph(models)))}: .*{CUDA}"):
        Engine(graph(models), 1, parse("cuda"))


@pytest.mark.skipif("AzureExecutionProvider" not in names(), reason="not in this build")
def test_a_provider_that_is_given_no_node_is_no_provider(models):
    with pytest.raises(StartError, match="gave every node to CPUExecutionProvider"):
        Engine(graph(models), 1, ExecutionProvider("AzureExecutionProvider"))


def test_a_plugin_that_onnx_runtime_refuses_is_told_in_one_line(models, tmp_path):
    plugin = tmp_path / "onnxruntime_ep_broken" / "__init__.py"
    plugin.parent.mkdir()
    plugin.write_text(
        'def get_ep_names():\n    return ["BrokenExecutionProvider"]\n\n\n'
        'def get_library_path():\n    return "/no/such/library.so"\n'
    )
    command = [sys.executable, "-m", "server", "--models", models]
    done = subprocess.run(
        [*command, "--ep", "BrokenExecutionProvider"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2
    assert "ONNX Runtime rejects onnxruntime_ep_broken: " in line
    assert "/no/such/library.so" in line


@pytest.mark.parametrize("mode", ["local", "unary"])
@pytest.mark.parametrize(
    ("option", "said"), [("cuda", f"{CUDA} is not available"), ("gpu", WANTED)]
)
@no_cuda
def test_a_sweep_on_what_is_not_here_ends_in_one_line(tmp_path, mode, option, said, capsys):
    words = ["sweep", "--out", str(tmp_path), "--ep", option, "--features", "8"]
    words += ["--batch-sizes", "1", "--examples", "4", "--modes", mode]
    assert client_main(words) == 2
    # Before it stand the steps of the sweep.
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith("argmax-client: error: ")
    assert said in line


def test_what_runs_on_the_cpu_is_told(models):
    made = ort.InferenceSession(str(graph(models)), providers=[CPU])
    assert used_providers(made, CPU) == [CPU]


# OpenVINO, where it is installed.


@needs_openvino
def test_openvino_gives_the_cpus_labels_and_scores(models, examples):
    outputs = ["label", "scores"]
    wanted = Engine(graph(models), 2).run(outputs, {"x": examples})
    engine = Engine(graph(models), 2, parse("openvino"))
    assert engine.provider.split(", ")[0] == OPENVINO
    labels, scores = engine.run(outputs, {"x": examples})
    np.testing.assert_array_equal(labels, wanted[0])
    # Products rounded to bfloat16 are off by about 0.5.
    np.testing.assert_allclose(scores, wanted[1], atol=5e-3)


@needs_openvino
@pytest.mark.parametrize("option", ["NO_SUCH_PROPERTY=1", "no_such_option=1"])
def test_an_option_that_openvino_refuses_is_a_start_error(models, option):
    with pytest.raises(StartError, match="ONNX Runtime cannot load it"):
        Engine(graph(models), 1, parse(f"openvino:{option}"))


@needs_openvino
def test_timings_tell_which_provider_ran_each_of_two_models(serve, call, models, examples):
    config = (
        "optimization { execution_accelerators { cpu_execution_accelerator "
        '{ name: "openvino" parameters { key: "precision" value: "f32" } } } }'
    )
    (models / "other" / "config.pbtxt").write_text(config)
    caller = call(serve(models).address)
    on_cpu, labels = told(caller, "linear", examples)
    on_openvino, same_labels = told(caller, "other", examples)
    assert (on_cpu, on_openvino.split(", ")[0]) == (CPU, OPENVINO)
    np.testing.assert_array_equal(labels, same_labels)


@needs_openvino
def test_a_model_on_openvino_is_loaded_anew(launch, call, models, examples):
    process = launch(models, "--ep", "openvino", "--model-control", "explicit")
    caller = call(process.address)
    wanted = Engine(graph(models), 1).run(["label"], {"x": examples})[0]
    for _ in range(3):
        caller.control("RepositoryModelLoad", model_name="linear")
        provider, labels = told(caller, "linear", examples)
        assert provider.split(", ")[0] == OPENVINO
        np.testing.assert_array_equal(labels, wanted)
    assert process.stop() == 0


@needs_openvino
def test_a_sweep_tells_what_ran_it(tmp_path):
    command = [sys.executable, "-m", "client", "sweep", "--out", tmp_path, "--ep", "openvino"]
    command += ["--features", FEATURES, "--batch-sizes", "8", "--examples", "64"]
    done = subprocess.run([str(word) for word in command], check=False, capture_output=True)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "sweep.json").read_text()
    assert text.count(f'"execution_provider": "{OPENVINO}') == 3
    assert '"ep": "openvino"' in text
