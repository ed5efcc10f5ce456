import json

import pytest

from server.onnx.execution_provider import (
    CPU,
    CUDA,
    OPENVINO,
    TENSORRT,
    WANTED,
    ExecutionProvider,
    parse,
    runtime_options,
)

PARSED = [
    ("cpu", CPU, {}),
    ("cuda", CUDA, {}),
    ("tensorrt:precision=f16", TENSORRT, {"precision": "f16"}),
    ("openvino:precision=bf16", OPENVINO, {"precision": "bf16"}),
    ("openvino:device=GPU.1,precision=f16", OPENVINO, {"device": "GPU.1", "precision": "f16"}),
    ("cuda:device=1,tf32=1", CUDA, {"device": "1", "tf32": "1"}),
    ("CUDAExecutionProvider:enable_cuda_graph=1", CUDA, {"enable_cuda_graph": "1"}),
    ("XnnpackExecutionProvider:a=b=c", "XnnpackExecutionProvider", {"a": "b=c"}),
]

REFUSED = [
    *[(text, WANTED) for text in ("", ":", "gpu", "CPU", "cuda:", "cuda:a", "cuda:a=1,a=2")],
    ("cpu:a=1", "no a of cpu, which takes none"),
    ("cuda:tf32=yes", "0 or 1 as tf32 of cuda"),
    ("cuda:device=-1", "a number as device of cuda"),
    ("cuda:use_tf32=1", "no use_tf32 of cuda, which takes device, tf32, memory_bytes"),
    ("tensorrt:precision=bf16", "f32 or f16 as precision of tensorrt"),
    ("openvino:precision=FP32", "f32, f16 or bf16 as precision of openvino"),
    ("openvino:device=TPU", "CPU, GPU, GPU.N or NPU as device of openvino"),
    ("openvino:load_config=x.json", "no load_config of openvino, which takes device, precision"),
    (
        "openvino:INFERENCE_PRECISION_HINT=bf16",
        "no INFERENCE_PRECISION_HINT of openvino, which takes device, precision",
    ),
]


@pytest.mark.parametrize(("text", "name", "options"), PARSED)
def test_a_provider_is_read_by_either_name_with_its_options(text, name, options):
    provider = parse(text)
    assert provider == ExecutionProvider(name, options)
    assert parse(str(provider)) == provider


@pytest.mark.parametrize(("text", "wanted"), REFUSED)
def test_what_names_no_provider_or_option_is_told_what_was_wanted(text, wanted):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        parse(text)
    assert str(caught.value) == wanted


@pytest.mark.parametrize(
    ("text", "tf32", "device"), [("cuda", "0", "0"), ("cuda:tf32=1,device=2", "1", "2")]
)
def test_cuda_computes_in_float32_unless_tf32_is_named(text, tf32, device):
    assert runtime_options(parse(text), 2) == {"use_tf32": tf32, "device_id": device}


def test_an_arena_of_cuda_may_be_bounded():
    assert runtime_options(parse("cuda:memory_bytes=1024"), 2)["gpu_mem_limit"] == "1024"


@pytest.mark.parametrize(("text", "fp16"), [("tensorrt", "0"), ("tensorrt:precision=f16", "1")])
def test_tensorrt_uses_half_precision_only_when_named(text, fp16):
    assert runtime_options(parse(text), 2)["trt_fp16_enable"] == fp16


@pytest.mark.parametrize(
    ("text", "properties"),
    [
        ("openvino", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": "3"}),
        (
            "openvino:precision=bf16,PERFORMANCE_HINT=LATENCY",
            {
                "INFERENCE_PRECISION_HINT": "bf16",
                "INFERENCE_NUM_THREADS": "3",
                "PERFORMANCE_HINT": "LATENCY",
            },
        ),
    ],
)
def test_openvino_gets_its_precision_and_the_servers_threads(text, properties):
    options = runtime_options(parse(text), 3)
    assert json.loads(options.pop("load_config")) == {"CPU": properties}
    assert options == {}


def test_what_is_not_an_option_of_ours_is_passed_on():
    options = runtime_options(parse("openvino:device=GPU,cache_dir=/tmp/c"), 3)
    assert options.pop("cache_dir") == "/tmp/c"
    assert json.loads(options.pop("load_config")) == {"GPU": {"INFERENCE_PRECISION_HINT": "f32"}}
    assert runtime_options(parse("XnnpackExecutionProvider:a=b"), 3) == {"a": "b"}


def test_the_cpu_takes_no_options():
    assert runtime_options(parse("cpu"), 3) == {}
