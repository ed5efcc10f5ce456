import pytest

from protos.model_config_pb2 import ModelInstanceGroup
from server.errors import LoadError
from server.loaded_model.config_instances import groups, instances
from server.loaded_model.model_config import parse_text
from server.onnx.execution_provider import parse


def providers(text, default="cpu", count=1):
    """The provider of each instance of a model."""
    return instances(groups(parse_text(text), "model", parse(default), count))


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
    assert providers(text, default) == [parse(wanted)]


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
        ("instance_group { gpus: [1, 1] }", "gpus [1, 1], expected each once"),
        ("instance_group { gpus: [1] kind: KIND_CPU }", "gpus [1] beside KIND_CPU"),
        ("instance_group { gpus: [-1] }", "a number as device"),
    ],
)
def test_what_cannot_be_served_is_named(text, said):
    with pytest.raises(LoadError) as caught:
        providers(text)
    assert said in str(caught.value)


def test_an_empty_configuration_leaves_the_servers_provider():
    assert providers("", "openvino:precision=f16") == [parse("openvino:precision=f16")]


def test_instances_run_on_each_of_the_gpus_of_their_group_and_beside_them():
    text = "instance_group { count: 2 gpus: [0, 3] } instance_group { kind: KIND_CPU }"
    on_gpu = [parse(f"cuda:device={gpu}") for gpu in (0, 0, 3, 3)]
    assert providers(text) == [*on_gpu, parse("cpu")]
    on_gpu, on_cpu = (
        group.to_config() for group in groups(parse_text(text), "m", parse("cpu"), default_count=1)
    )
    assert (on_gpu.count, on_gpu.gpus) == (2, [0, 3])
    assert (on_gpu.kind, on_cpu.kind) == (
        ModelInstanceGroup.KIND_GPU,
        ModelInstanceGroup.KIND_CPU,
    )
    assert (on_gpu.name, on_cpu.name) == ("m_0", "m_1")


def test_a_group_without_a_count_has_as_many_instances_as_the_server_says():
    assert len(providers("instance_group { kind: KIND_CPU }", count=3)) == 3
    assert len(providers("", count=3)) == 3
    assert len(providers("instance_group { count: 2 }", count=3)) == 2


def test_a_model_that_must_not_be_on_a_gpu_is_not():
    text = accelerator("gpu", "cuda") + "instance_group { kind: KIND_CPU }"
    assert providers(text, "tensorrt") == [parse("cpu")]
