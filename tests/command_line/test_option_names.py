"""Options are in groups, and end in the unit of their value; former names are still accepted."""

import argparse

import pytest

from command_line.parser import Parser, add_renamed, group
from measure.__main__ import parser_for
from model.__main__ import _parser as model_parser

FORMER = [
    ("load", ["--rate", "1"], "--warm-up", "warm_up_s"),
    ("load", ["--rate", "1"], "--window", "window_s"),
    ("load", ["--rate", "1"], "--timeout", "timeout_s"),
    ("slo", ["--p99-ms", "1"], "--warm-up", "warm_up_s"),
    ("slo", ["--p99-ms", "1"], "--window", "window_s"),
    ("slo", ["--p99-ms", "1"], "--timeout", "timeout_s"),
    ("plan", ["--rate", "1", "--p99-ms", "1"], "--timeout", "timeout_s"),
    ("loadgen", [], "--timeout", "timeout_s"),
    ("predict", ["--address", "a:1", "--input", "x"], "--deadline", "deadline_s"),
]
GROUPED = ["sweep", "load", "slo", "compare", "plan", "limits", "loadgen"]


def commands(parser):
    """Parsers by command."""
    (action,) = (each for each in parser._actions if isinstance(each.choices, dict))
    return action.choices


@pytest.mark.parametrize(("command", "needed", "former", "name"), FORMER)
def test_a_former_name_is_accepted_but_not_shown(command, needed, former, name):
    parser = parser_for([command])
    new = "--" + name.replace("_", "-")
    for spelling in (former, new):
        assert getattr(parser.parse_args([command, *needed, spelling, "7"]), name) == 7.0
    shown = commands(parser)[command].format_help().split()
    assert new in shown
    assert former not in shown


@pytest.mark.parametrize(("command", "needed", "former", "name"), FORMER)
def test_without_either_name_the_default_counts(command, needed, former, name):
    values = vars(parser_for([command]).parse_args([command, *needed]))
    assert values[name] in (None, 1.0, 30.0)
    assert former.removeprefix("--").replace("-", "_") not in values


def test_a_former_name_is_not_suggested(capsys):
    parser = Parser(prog="p")
    add_renamed(parser, "--delay-s", "--delayed", type=float)
    with pytest.raises(SystemExit):
        parser.parse_args(["--delaye", "1"])
    assert capsys.readouterr().err.endswith("did you mean --delay-s?\n")


@pytest.mark.parametrize("name", GROUPED)
def test_a_command_with_many_options_shows_them_in_groups(name):
    check_groups(commands(parser_for([name]))[name])


def test_the_options_of_export_are_in_groups():
    check_groups(commands(model_parser())["export"])


def check_groups(parser):
    """Only --help is outside of a named group."""
    groups = {made.title: made._group_actions for made in parser._action_groups}
    assert [action.dest for action in groups.pop("options")] == ["help"]
    assert not groups.pop("positional arguments")
    assert len(groups) >= 4


def test_a_group_is_made_once():
    parser = argparse.ArgumentParser()
    assert group(parser, "server") is group(parser, "server")
