import re
from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import pytest

from command_line.resources import cores
from server.app.arguments import parse, unknown_variables
from server.app.config import Config
from server.onnx.execution_provider import WANTED, ExecutionProvider

NAMES = [option.name for option in fields(Config)]
MODELS = ["--models", "m"]

# For each option: two values that differ from each other, the second from the default too, and
# what they mean.
VALUES = {
    "models": [("a", Path("a")), ("b/c", Path("b/c"))],
    "transport": [("native", "native"), ("grpcio", "grpcio")],
    "address": [("0.0.0.0:0", "0.0.0.0:0"), ("unix:/s", "unix:/s")],
    "threads": [("1001", 1001), ("1002", 1002)],
    "ep": [
        ("cuda", ExecutionProvider("CUDAExecutionProvider")),
        (
            "openvino:precision=bf16,device=GPU",
            ExecutionProvider("OpenVINOExecutionProvider", {"precision": "bf16", "device": "GPU"}),
        ),
    ],
    "instances": [("1", 1), ("256", 256)],
    "inter_op_threads": [("0", 0), ("3", 3)],
    "execution_mode": [("sequential", "sequential"), ("parallel", "parallel")],
    "graph_optimization": [("basic", "basic"), ("off", "off")],
    "mem_arena": [("on", True), ("off", False)],
    "mem_pattern": [("on", True), ("off", False)],
    "arena_shrinkage": [("off", ""), ("cpu:0;gpu:1", "cpu:0;gpu:1")],
    "session_config": [
        ("session.disable_prepacking=1", {"session.disable_prepacking": "1"}),
        (
            "session.set_denormal_as_zero=1,session.dynamic_block_base=4",
            {"session.set_denormal_as_zero": "1", "session.dynamic_block_base": "4"},
        ),
    ],
    "max_batch_rows": [("1", 1), ("2147483647", 2147483647)],
    "group_rows": [("1", 1), ("64", 64)],
    "deterministic": [("off", False), ("on", True)],
    "queue_delay_us": [("1", 1), ("100", 100)],
    "non_finite": [("pass", "pass"), ("reject", "reject")],
    "max_message_bytes": [("1", 1), ("2147483647", 2147483647)],
    "max_inflight_bytes": [("1", 1), ("9223372036854775807", 2**63 - 1)],
    "max_stream_bytes": [("1", 1), ("4294967296", 2**32)],
    "max_streams": [("1", 1), ("2", 2)],
    "workers": [("1", 1), ("2", 2)],
    "max_waiting": [("0", 0), ("1", 1)],
    "metrics_address": [("a:1", "a:1"), ("b:2", "b:2")],
    "max_connections": [("1", 1), ("2", 2)],
    "receive_s": [("0", 0.0), ("0.5", 0.5)],
    "silent_peer_s": [("0.1", 0.1), ("30", 30.0)],
    "stream_idle_s": [("0", 0.0), ("0.5", 0.5)],
    "max_connection_age_s": [("0", 0.0), ("0.5", 0.5)],
    "max_connection_age_grace_s": [("0", 0.0), ("0.5", 0.5)],
    "grace_s": [("0", 0.0), ("1e3", 1000.0)],
    "reflection": [("on", True), ("off", False)],
    "shared_memory": [("on", True), ("off", False)],
    "shared_memory_prefix": [("a", "a"), ("b.c-d_", "b.c-d_")],
    "tls_cert": [("a", Path("a")), ("b/c", Path("b/c"))],
    "tls_key": [("a", Path("a")), ("b/c", Path("b/c"))],
    "tls_client_ca": [("a", Path("a")), ("b/c", Path("b/c"))],
    "token_file": [("a", Path("a")), ("b/c", Path("b/c"))],
    "plaintext_tokens": [("off", False), ("on", True)],
    "model_control": [("poll", "poll"), ("explicit", "explicit")],
    "load_model": [("a", ("a",)), ("*,b", ("*", "b"))],
    "poll_s": [("0.01", 0.01), ("3", 3.0)],
    "validation": [("on", True), ("off", False)],
    "validation_s": [("0.01", 0.01), ("3", 3.0)],
    "validation_bytes": [("1", 1), ("4294967296", 2**32)],
    "log_level": [("debug", "debug"), ("error", "error")],
    "access_log": [("off", None), ("1/20", 20)],
    "slow_ms": [("1", 1), ("2", 2)],
    "trace_otlp": [("a:1", "a:1"), ("https://[::1]:4317", "https://[::1]:4317")],
    "trace_rate": [("1/1", 1), ("1/100", 100)],
}

# How help shows defaults that are no plain numbers or words.
SHOWN = {
    **dict.fromkeys(["group_rows", "reflection", "shared_memory"], "auto"),
    **dict.fromkeys(["load_model", "tls_cert", "tls_key", "tls_client_ca", "token_file"], "none"),
    "metrics_address": "off",
    "shared_memory_prefix": "none",
    "deterministic": "off",
    "plaintext_tokens": "off",
    "validation": "on",
    "mem_arena": "on",
    "mem_pattern": "on",
    "arena_shrinkage": "off",
    "session_config": "none",
    **dict.fromkeys(["access_log", "slow_ms", "trace_otlp"], "off"),
}

NO_COUNT = ["", "0", "-1", "1.5", "x", "1_0", " 1", "\u0663", "1e3", "0" * 19 + "1" * 5, "9" * 5000]
NO_INT32 = [*NO_COUNT, "2147483648"]
NO_SECONDS = ["", "-1", "x", "nan", "inf", "1e10"]
NO_SWITCH = ["", "yes", "ON", "true", "1"]
NO_PREFIX = "up to 200 letters, digits, '_', '.' and '-'"
NO_ON_OR_OFF = [*NO_SWITCH, "auto"]
BAD = {
    "models": ([""], "a folder"),
    "threads": ([*NO_COUNT, "100001"], "an integer from 1 to 100000"),
    "ep": (["", "gpu", "CUDA", "cuda:", "cuda:tf32", "cuda:tf32=1,", "cuda:=1"], WANTED),
    "instances": ([*NO_COUNT, "257"], "an integer from 1 to 256"),
    "inter_op_threads": (
        [*(value for value in NO_COUNT if value != "0"), "100001"],
        "an integer from 0 to 100000",
    ),
    "execution_mode": (NO_SWITCH, "one of sequential, parallel"),
    "graph_optimization": (["", "ALL", "99", "on"], "one of all, extended, basic, off"),
    "mem_arena": (NO_ON_OR_OFF, "one of on, off"),
    "mem_pattern": (NO_ON_OR_OFF, "one of on, off"),
    "arena_shrinkage": (
        ["", "on", "cpu", "cpu:", "cpu:0;", "cpu:0,gpu:0", "npu:0"],
        "off or cpu:0 or gpu:N, several separated by ';'",
    ),
    "session_config": (["", "a", "session.disable_prepacking"], "KEY=VALUE,..., each key once"),
    "max_batch_rows": (NO_INT32, "an integer from 1 to 2147483647"),
    "group_rows": (NO_INT32, "auto or an integer from 1 to 2147483647"),
    "deterministic": (NO_ON_OR_OFF, "one of on, off"),
    "queue_delay_us": ([v for v in NO_INT32 if v != "0"], "an integer from 0 to 2147483647"),
    "transport": (NO_SWITCH, "one of native, grpcio"),
    "non_finite": (NO_SWITCH, "one of reject, pass"),
    "max_message_bytes": (NO_INT32, "an integer from 1 to 2147483647"),
    "max_inflight_bytes": ([*NO_COUNT, str(2**63)], "an integer from 1 to 9223372036854775807"),
    "max_stream_bytes": ([*NO_COUNT, str(2**63)], "an integer from 1 to 9223372036854775807"),
    "max_streams": ([*NO_COUNT, "100001"], "an integer from 1 to 100000"),
    "workers": ([*NO_COUNT, "100001"], "an integer from 1 to 100000"),
    "max_waiting": ([v for v in NO_INT32 if v != "0"], "an integer from 0 to 2147483647"),
    "max_connections": (NO_INT32, "an integer from 1 to 2147483647"),
    "receive_s": (NO_SECONDS, "seconds from 0 to 2147483647"),
    "silent_peer_s": ([*NO_SECONDS, "0"], "seconds from 0.1 to 2147483647"),
    "stream_idle_s": (NO_SECONDS, "seconds from 0 to 2147483647"),
    "max_connection_age_s": (NO_SECONDS, "seconds from 0 to 2147483647"),
    "max_connection_age_grace_s": (NO_SECONDS, "seconds from 0 to 2147483647"),
    "grace_s": (NO_SECONDS, "seconds from 0 to 2147483647"),
    "reflection": (NO_SWITCH, "one of auto, on, off"),
    "shared_memory": (NO_SWITCH, "one of auto, on, off"),
    "shared_memory_prefix": (["", "/", "a/b", "a b", "a" * 201], NO_PREFIX),
    **dict.fromkeys(["tls_cert", "tls_key", "tls_client_ca", "token_file"], ([""], "a file")),
    "plaintext_tokens": (NO_ON_OR_OFF, "one of on, off"),
    "model_control": (NO_SWITCH, "one of none, poll, explicit"),
    "load_model": (["", "a,", ",a", "a,,b"], "names separated by commas"),
    "poll_s": ([*NO_SECONDS, "0"], "seconds from 0.01 to 2147483647"),
    "validation": (NO_ON_OR_OFF, "one of on, off"),
    "validation_s": ([*NO_SECONDS, "0"], "seconds from 0.01 to 2147483647"),
    "validation_bytes": ([*NO_COUNT, str(2**63)], "an integer from 1 to 9223372036854775807"),
    "log_level": (["", "INFO", "trace"], "one of debug, info, warning, error"),
    "access_log": (
        ["", "ON", "1", "2/3", "1/0", "1/-1", "1/x", "1/", "/2", "0.5", "1/2147483648"],
        "one of off, on, or 1/N with N from 1 to 2147483647",
    ),
    "slow_ms": (NO_INT32, "an integer from 1 to 2147483647"),
    "trace_otlp": (
        ["", "a", "a:", ":1", "http://a", "ftp://a:1", "a:1/v1", "a b:1", "a:x", "a:123456"],
        "HOST:PORT, http://HOST:PORT or https://HOST:PORT",
    ),
    "trace_rate": (
        ["", "on", "2", "-1", "1/0", "1/x", "0.1"],
        "one of 0, 1, or 1/N with N from 1 to 2147483647",
    ),
}


def flag(name):
    return "--" + name.replace("_", "-")


def variable(name):
    return "ARGMAX_SERVER_" + name.upper()


def usage_error(capsys, argv, environment=None):
    """The one line on stderr with which the arguments are refused."""
    with pytest.raises(SystemExit) as caught:
        parse(argv, environment or {})
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("argmax-server: error: ")
    assert err.endswith("\n")
    assert err.count("\n") == 1
    return err.removeprefix("argmax-server: error: ").rstrip("\n")


def given(name, text):
    """Arguments that set an option, with what is needed besides."""
    needed = [] if name == "models" else MODELS
    return [*needed, flag(name), text]


def test_every_option_is_tested_here():
    assert set(VALUES) == set(NAMES)
    # Of addresses the form is checked where the server listens.
    assert set(BAD) == set(NAMES) - {"address", "metrics_address"}


@pytest.mark.parametrize("name", NAMES)
def test_a_flag_comes_before_the_environment_before_the_default(name):
    (one, meant), (other, also_meant) = VALUES[name]
    needed = {variable("models"): "m"}
    environment = needed | {variable(name): other}
    assert getattr(parse([flag(name), one], environment), name) == meant
    assert getattr(parse([], environment), name) == also_meant
    default = getattr(parse([], needed), name)
    assert default == getattr(Config(models=Path("m")), name)
    assert default != also_meant


@pytest.mark.parametrize("name", NAMES)
def test_setting_one_option_leaves_the_others_alone(name):
    text, meant = VALUES[name][0]
    config = parse(given(name, text), {})
    for other in NAMES:
        wanted = meant if other == name else getattr(Config(models=Path("m")), other)
        assert getattr(config, other) == wanted


@pytest.mark.parametrize(
    ("name", "text"),
    [(name, text) for name in BAD for text in BAD[name][0]],
    ids=lambda text: ascii(text[:20]),
)
def test_a_bad_value_is_refused_in_one_line(capsys, name, text):
    wanted = BAD[name][1]
    line = usage_error(capsys, given(name, text))
    assert line == f"{flag(name)} got {text!r}, expected {wanted}"


@pytest.mark.parametrize("name", BAD)
def test_a_bad_value_in_the_environment_is_refused_in_one_line(capsys, name):
    (text, *_), wanted = BAD[name]
    environment = {variable("models"): "m", variable(name): text}
    line = usage_error(capsys, [], environment)
    assert line == f"{variable(name)} got {text!r}, expected {wanted}"


def test_an_entry_of_a_session_that_is_not_known_or_wrong_is_named(capsys):
    line = usage_error(capsys, [*MODELS, "--session-config", "session.optimized_model_filepath=/x"])
    assert "expected KEY=VALUE with one of these keys: session.intra_op.allow_spinning" in line
    line = usage_error(capsys, [*MODELS, "--session-config", "session.disable_prepacking=yes"])
    assert line.endswith("expected 0 or 1 as session.disable_prepacking")


def test_entries_of_sessions_may_be_repeated():
    entries = ("session.disable_prepacking=1", "session.qdqisint8allowed=0")
    config = parse([*MODELS, *(word for e in entries for word in ("--session-config", e))], {})
    assert config.session.entries == dict(entry.split("=") for entry in entries)


def test_names_of_models_may_be_repeated():
    config = parse([*MODELS, "--load-model", "a", "--load-model", "b,c"], {})
    assert config.load_model == ("a", "b", "c")


def test_of_another_flag_that_is_repeated_the_last_counts():
    assert parse([*MODELS, "--threads", "3", "--threads", "4"], {}).threads == 4


def test_a_good_flag_hides_a_bad_value_in_the_environment():
    assert parse([*MODELS, "--threads", "3"], {variable("threads"): "x"}).threads == 3


def test_a_value_of_several_lines_is_refused_in_one(capsys):
    line = usage_error(capsys, [*MODELS, "--log-level", "a\nb"])
    assert line.startswith(r"--log-level got 'a\nb', expected")


def test_the_models_are_needed(capsys):
    line = usage_error(capsys, [])
    assert line == "--models is required: model repository, laid out as NAME/VERSION/model.onnx"


def test_a_flag_that_does_not_exist_is_refused_in_one_line(capsys):
    assert "--frobnicate" in usage_error(capsys, [*MODELS, "--frobnicate", "1"])


def test_a_flag_without_a_value_is_refused_in_one_line(capsys):
    assert "--threads" in usage_error(capsys, [*MODELS, "--threads"])


def test_variables_of_others_are_not_read():
    config = parse(MODELS, {"THREADS": "x", "ARGMAX_SERVER_": "x", "argmax_server_threads": "x"})
    assert config == Config(models=Path("m"))


def test_help_tells_every_option_with_its_default(capsys):
    with pytest.raises(SystemExit) as caught:
        parse(["--help"], {})
    assert caught.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    defaults = Config(models=Path("m"))
    for option in fields(Config):
        assert option.metadata["help"]
        assert re.search(rf"{flag(option.name)} \S+ {re.escape(option.metadata['help'])}", text)
        if option.name != "models":
            default = getattr(defaults, option.name)
            shown = SHOWN.get(option.name, default)
            assert f"{option.metadata['help']} (default: {shown})" in text
    assert "ARGMAX_SERVER_NAME" in text


def test_executions_use_all_cores_unless_told():
    assert parse(MODELS, {}).threads == cores() >= 1


def test_a_config_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        parse(MODELS, {}).threads = 2


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1:8001", "127.8.9.10:0", "localhost:1", "[::1]:8001", "unix:/run/s", "unix:s"],
)
def test_an_address_of_this_machine_is_local_only(address):
    assert parse([*MODELS, "--address", address], {}).local_only


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0:8001",
        "[::]:8001",
        "10.0.0.1:8001",
        "192.168.127.1:1",
        "128.0.0.1:1",
        "example.com:8001",
        "127.example.com:8001",
        "localhost.example.com:1",
        "unixx:1",
        ":8001",
        "",
    ],
)
def test_an_address_that_others_reach_is_not_local_only(address):
    assert not parse([*MODELS, "--address", address], {}).local_only


def test_a_switch_without_a_value_is_on():
    assert parse(["--deterministic", *MODELS], {}).deterministic
    assert not parse(["--deterministic", "off", *MODELS], {}).deterministic


@pytest.mark.parametrize(
    ("option", "uri"),
    [("--models", "s3://bucket/m"), ("--tls-cert", "gs://b/c"), ("--token-file", "file:///t")],
)
def test_an_address_of_something_elsewhere_is_no_path(option, uri, capsys):
    with pytest.raises(SystemExit) as ended:
        parse([*MODELS, option, uri], {})
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"argmax-server: error: {option} got {uri!r}, expected a ")
    assert "path" in line


def test_a_misspelt_option_gets_a_suggestion(capsys):
    with pytest.raises(SystemExit):
        parse(["--modles", "m"], {})
    assert capsys.readouterr().err == (
        "argmax-server: error: unrecognized argument --modles: did you mean --models?\n"
    )


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("ARGMAX_SERVER_ADRESS", "ARGMAX_SERVER_ADDRESS"),
        ("ARGMAX_ADDRESS", "ARGMAX_SERVER_ADDRESS"),
        ("ARGMAX_SERVER_MAX_BATCH_ROW", "ARGMAX_SERVER_MAX_BATCH_ROWS"),
    ],
)
def test_a_misspelt_variable_gets_a_suggestion(variable, meant):
    assert list(unknown_variables({variable: "1", "ARGMAX_SERVER_MODELS": "m"})) == [
        f"the environment variable {variable} sets no option: did you mean {meant}?"
    ]


def test_variables_that_no_option_has_are_only_those_with_our_prefix():
    known = {f"ARGMAX_SERVER_{name.upper()}": "1" for name in NAMES}
    assert not list(unknown_variables({**known, "HOME": "/", "XARGMAX_SERVER": "1"}))
    # A service of Kubernetes called argmax-server brings these.
    service = {
        "ARGMAX_SERVER_SERVICE_HOST": "10.0.0.1",
        "ARGMAX_SERVER_SERVICE_PORT": "8001",
        "ARGMAX_SERVER_SERVICE_PORT_GRPC": "8001",
        "ARGMAX_SERVER_PORT": "tcp://10.0.0.1:8001",
        "ARGMAX_SERVER_PORT_8001_TCP_ADDR": "10.0.0.1",
    }
    assert not list(unknown_variables(service))
