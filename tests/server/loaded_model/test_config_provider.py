import pytest

from protos.model_config_pb2 import ModelConfig, ModelInstanceGroup
from server.errors import LoadError
from server.loaded_model.config_provider import instance_kind, provider
from server.loaded_model.model_config import parse_text
from server.onnx.execution_provider import parse


def accelerator(kind, name, **parameters):
    listed = " ".join(f'parameters {{ key: "{k}" value: "{v}" }}' for k, v in parameters.items())
    return (
        "optimization { execution_accelerators "
        f'{{ {kind}_execution_accelerator {{ name: "{name}" {listed} }} }} }} '
    )


CHOSEN = [
    ("", "cpu", "cpu"),
    ("", "cuda:tf32=1", "cuda:tf32=1"),
    (accelerator("cpu", "openvino"), "cpu", "openvino"),
    (accelerator("cpu", "openvino", precision="bf16"), "cuda", "openvino:precision=bf16"),
    (accelerator("cpu", "cpu"), "openvino", "cpu"),
    (accelerator("gpu", "tensorrt", device="1"), "cpu", "tensorrt:device=1"),
    (accelerator("gpu", "cuda", tf32="1"), "openvino", "cuda:tf32=1"),
    ("instance_group { kind: KIND_GPU }", "cpu", "cuda"),
    ("instance_group { kind: KIND_GPU }", "tensorrt:precision=f16", "tensorrt:precision=f16"),
    ("instance_group { gpus: [3] }", "cpu", "cuda:device=3"),
    ("instance_group { gpus: [3] }", "cuda:tf32=1", "cuda:tf32=1,device=3"),
    (accelerator("gpu", "tensorrt") + "instance_group { gpus: [2] }", "cpu", "tensorrt:device=2"),
    ("instance_group { kind: KIND_CPU }", "cuda", "cpu"),
    ("instance_group { kind: KIND_CPU }", "openvino", "openvino"),
    ("instance_group { count: 1 }", "cuda", "cuda"),
]


@pytest.mark.parametrize(("text", "default", "wanted"), CHOSEN)
def test_a_configuration_counts_over_the_servers_provider(text, default, wanted):
    assert provider(parse_text(text), parse(default)) == parse(wanted)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (accelerator("gpu", "openvino"), "expected cuda or tensorrt"),
        (accelerator("cpu", "nothing"), "cpu_execution_accelerator 'nothing'"),
        (accelerator("cpu", "openvino", CACHE_DIR="/tmp"), "has CACHE_DIR, expected device, prec"),
        (accelerator("cpu", "openvino", cache_dir="/tmp"), "has cache_dir, expected device, prec"),
        (accelerator("gpu", "cuda", gpu_external_alloc="1"), "has gpu_external_alloc, expected"),
        (
            accelerator("gpu", "tensorrt", trt_extra_plugin_lib_paths="/x.so"),
            "other options with --ep",
        ),
        (accelerator("gpu", "cuda", tf32="2"), "0 or 1 as tf32"),
        (
            "optimization { execution_accelerators { gpu_execution_accelerator "
            '[{ name: "cuda" }, { name: "tensorrt" }] } }',
            "names cuda, tensorrt",
        ),
        (accelerator("cpu", "openvino") + "instance_group { gpus: [0] }", "beside openvino"),
        ("instance_group { gpus: [0, 1] }", "gpus [0, 1]"),
        ("instance_group { gpus: [-1] }", "a number as device"),
    ],
)
def test_what_cannot_be_served_is_named(text, said):
    with pytest.raises(LoadError) as caught:
        provider(parse_text(text), parse("cpu"))
    assert said in str(caught.value)


def test_an_empty_configuration_leaves_the_servers_provider():
    assert provider(ModelConfig(), parse("openvino:precision=f16")).options == {"precision": "f16"}


def test_a_model_on_a_gpu_is_told_to_be_there():
    assert instance_kind(parse("cuda")) == ModelInstanceGroup.KIND_GPU
    assert instance_kind(parse("openvino")) == ModelInstanceGroup.KIND_CPU
