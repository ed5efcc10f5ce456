import argparse

import pytest

from command_line.parser import Parser, add_option, exit_codes, suggestion


@pytest.fixture
def parser():
    whole = Parser(prog="program")
    commands = whole.add_subparsers(required=True, metavar="COMMAND")
    sweep = commands.add_parser("sweep")
    sweep.add_argument("--address", required=True)
    sweep.add_argument("--batch-sizes")
    sweep.add_argument("--dtype", choices=("float32", "float64"))
    commands.add_parser("load")
    return whole


def refused(parser, capsys, *argv):
    with pytest.raises(SystemExit) as ended:
        parser.parse_args(argv)
    out, err = capsys.readouterr()
    assert ended.value.code == 2
    assert not out
    assert err.count("\n") == 1
    return err


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["sweep", "--adress", "x"], "unrecognized argument --adress: did you mean --address?"),
        (["sweep", "--adress=x"], "unrecognized argument --adress: did you mean --address?"),
        (["sweep", "--addr", "x"], "unrecognized argument --addr: did you mean --address?"),
        (["sweep", "--batch_sizes", "1"], "did you mean --batch-sizes?"),
        (["sweep", "--wholly-other", "1"], "unrecognized argument --wholly-other\n"),
        (["swep"], "invalid choice: 'swep' (choose from "),
        (["swep"], "did you mean sweep?"),
        (["sweep", "--address", "x", "--dtype", "float23"], "did you mean float32?"),
        (["sweep", "--address", "x", "rest"], "unrecognized argument rest"),
        (["sweep", "--address", "x", "a", "b"], "unrecognized arguments a b"),
        (["sweep"], "the following arguments are required: --address"),
    ],
)
def test_a_near_miss_gets_a_suggestion(parser, capsys, argv, text):
    assert text in refused(parser, capsys, *argv)


def test_help_comes_before_complaints(parser, capsys):
    with pytest.raises(SystemExit) as ended:
        parser.parse_args(["sweep", "--adress", "x", "--help"])
    assert ended.value.code == 0
    assert "--batch-sizes" in capsys.readouterr().out


def test_values_that_look_like_options_are_left_alone(parser):
    parsed = parser.parse_args(["sweep", "--address", "--with a space", "--dtype=float32"])
    assert parsed.address == "--with a space"


def test_what_comes_after_two_dashes_is_no_option(capsys):
    parser = Parser(prog="program")
    parser.add_argument("names", nargs="*")
    assert parser.parse_args(["--", "--adress"]).names == ["--adress"]


def test_the_rest_of_the_line_may_be_for_another_program():
    parser = Parser(prog="program")
    parser.add_argument("count", type=int)
    parser.add_argument("options", nargs=argparse.REMAINDER)
    assert parser.parse_args(["3", "--threads", "1"]).options == ["--threads", "1"]


@pytest.mark.parametrize(
    ("text", "found"),
    [("--hlp", ""), ("-", ""), ("--", ""), ("ARGMAX_MODELS", "ARGMAX_SERVER_MODELS")],
)
def test_a_suggestion_is_of_what_is_alike(text, found):
    known = ["--help", "--address", "ARGMAX_SERVER_MODELS", "ARGMAX_SERVER_THREADS"]
    assert suggestion(text, known) == (f": did you mean {found}?" if found else "")


def test_exit_codes_are_told_of_commands_that_keep_what_they_measured():
    assert "1: wrong labels" in exit_codes("wrong labels")
    assert "1:" not in exit_codes(None).replace("130", "")
    assert "marked as partial" in exit_codes(None, keeps=True)
    assert "partial" not in exit_codes(None)


def declared(text, default, **former):
    """The option of `--rate-qps`, and the help of a parser that has it."""
    parser = Parser(prog="p")
    add_option(parser, "--rate-qps", float, default, "R", text, **former)
    return parser, " ".join(parser.format_help().split())


@pytest.mark.parametrize(
    ("text", "default", "shown"),
    [
        ("rate", 2.0, "--rate-qps R rate (default: 2.0)"),
        ("rate (default: that of a warm-up)", 2.0, "rate (default: that of a warm-up)"),
        ("rate", None, "--rate-qps R rate"),
        ("rate", (), "--rate-qps R rate"),
    ],
)
def test_help_gives_a_default_once_and_only_if_there_is_one(text, default, shown):
    parser, told = declared(text, default)
    assert told.endswith(shown)
    assert parser.parse_args([]).rate_qps == default
    assert parser.parse_args(["--rate-qps", "3"]).rate_qps == 3.0


def test_an_option_may_have_a_former_name():
    parser, told = declared("rate", 2.0, former="--rate")
    assert parser.parse_args(["--rate", "3"]).rate_qps == 3.0
    assert "--rate " not in told
