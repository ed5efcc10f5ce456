"""Read the options of the server from its arguments and its environment."""

import argparse
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any

from command_line.parser import Parser, group, suggestion
from server.app.config import Config
from server.app.options import values as option_values
from server.app.options.of_sessions import SessionOptions

_PREFIX = "ARGMAX_"
_ENVIRONMENT_PREFIX = f"{_PREFIX}SERVER_"
_KUBERNETES = re.compile(r"_SERVICE_(HOST|PORT(_.*)?)$|_PORT(_\d+_(TCP|UDP|SCTP)(_.*)?)?$")
# A switch without a value.
_BARE_IS_ON: Mapping[str, Any] = {"nargs": "?", "const": "on"}


def parse(
    argv: Sequence[str] | None,
    environment: Mapping[str, str],
    list_ep: Callable[[], str] = str,
) -> Config:
    """Config from flags, else environment variables, else defaults.

    Exits with 2 and one line on stderr for a bad value, with 0 after printing the text of `list_ep`
    for --list-ep.
    """

    class ListProviders(argparse.Action):
        def __call__(self, *_: Any) -> None:
            print(list_ep())
            parser.exit()

    parser = Parser(
        prog="argmax-server",
        description="Serve ONNX models over gRPC by the Open Inference Protocol.",
        epilog=f"Each option can also be set as {_ENVIRONMENT_PREFIX}NAME in the environment. "
        "Exit codes: 0: drained after SIGTERM or SIGINT, or stopped by one before it served. "
        "2: the server could not start. 14: it hung, and was ended after the grace period.",
    )
    # Those of sessions come last in their group.
    inherited = {option.name for option in fields(SessionOptions)}
    for option in sorted(fields(Config), key=lambda option: option.name in inherited):
        shown = option.default_factory() if callable(option.default_factory) else option.default
        if shown in (None, "", {}):
            shown = option.metadata["unset"]
        elif shown == ():
            shown = "none"
        elif isinstance(shown, bool):
            shown = "on" if shown else "off"
        suffix = "" if shown is MISSING else f" (default: {shown})"
        group(parser, option.metadata["group"]).add_argument(
            _flag(option.name),
            action="append",
            metavar=option.metadata["unit"],
            **(_BARE_IS_ON if option.metadata["parse"] is option_values.on_or_off else {}),
            help=option.metadata["help"] + suffix,
        )
    (ep,) = (option for option in fields(Config) if option.name == "ep")
    group(parser, ep.metadata["group"]).add_argument(
        "--list-ep",
        action=ListProviders,
        nargs=0,
        default=argparse.SUPPRESS,
        help="show execution providers, their devices and options, and exit",
    )
    arguments = vars(parser.parse_args(argv))
    values: dict[str, Any] = {}
    for option in fields(Config):
        variable = _variable(option.name)
        texts, source = arguments[option.name], _flag(option.name)
        if texts is None and variable in environment:
            texts, source = [environment[variable]], variable
        if texts is None:
            if option.default is MISSING and option.default_factory is MISSING:
                parser.error(f"{source} is required: {option.metadata['help']}")
            continue
        text = ",".join(texts) if option.metadata["many"] else texts[-1]
        try:
            values[option.name] = option.metadata["parse"](text)
        except ValueError as error:
            parser.error(f"{source} got {text!r}, expected {error}")
    return Config(**values)


def unknown_variables(environment: Mapping[str, str]) -> Iterator[str]:
    """Warn of each ARGMAX_* variable that sets no option; it may be misspelt.

    Variables that Kubernetes sets for a service called argmax-* are not options.
    """
    known = [_variable(option.name) for option in fields(Config)]
    for name in sorted(environment):
        if name.startswith(_PREFIX) and name not in known and not _KUBERNETES.search(name):
            yield f"the environment variable {name} sets no option{suggestion(name, known)}"


def _variable(name: str) -> str:
    return _ENVIRONMENT_PREFIX + name.upper()


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
