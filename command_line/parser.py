"""Parse arguments: options are written out, and near misses get a suggestion."""

import argparse
import difflib
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

# Exit codes of every program; INTERRUPTED is 128 and the number of SIGINT.
DONE, WRONG, REFUSED, INTERRUPTED = 0, 1, 2, 130
# Below this similarity a suggestion is a guess.
_LEAST_ALIKE = 0.6
_HELP = ("-h", "--help")


class Parser(argparse.ArgumentParser):
    """A parser without abbreviations, whose errors are one line and exit code 2.

    An abbreviation that works today becomes ambiguous with a new option, so a near miss is an
    error that names the option.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse all of `args`: the parser of a subcommand rejects unknown options, too."""
        texts = sys.argv[1:] if args is None else list(args)
        # Before argparse reports a misspelt option as a missing required one.
        unknown = [] if asks_for_help(texts) else self._unknown_options(texts)
        if unknown:
            self.error(self._unrecognized(unknown))
        parsed, rest = super().parse_known_args(texts, namespace)
        if rest:
            self.error(self._unrecognized(rest))
        return parsed, rest

    def error(self, message: str) -> NoReturn:
        """Exit with 2 and one line on stderr; --help has the rest."""
        self.exit(REFUSED, f"{self.prog}: error: {' '.join(message.split())}\n")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            hint = suggestion(str(value), [str(choice) for choice in action.choices or ()])
            raise argparse.ArgumentError(action, error.message + hint) from None

    def _unknown_options(self, texts: Sequence[str]) -> list[str]:
        takes_rest = any(a.nargs in (argparse.PARSER, argparse.REMAINDER) for a in self._actions)
        unknown = []
        for text in texts:
            if text == "--" or (takes_rest and not text.startswith("-")):
                break
            name = text.partition("=")[0]
            # argparse takes a text with a space for a value.
            is_option = text.startswith("--") and " " not in text
            if is_option and name not in self._option_string_actions:
                unknown.append(name)
        return unknown

    def _unrecognized(self, unknown: Sequence[str]) -> str:
        first = unknown[0]
        text = "unrecognized " + ("argument " if len(unknown) == 1 else "arguments ")
        shown = [
            name
            for name, action in self._option_string_actions.items()
            if action.help != argparse.SUPPRESS
        ]
        hint = suggestion(first.partition("=")[0], shown)
        return text + " ".join(unknown) + hint


def group(parser: argparse.ArgumentParser, title: str) -> argparse._ArgumentGroup:
    """The group of options with that title in --help, made on its first use."""
    for made in parser._action_groups:
        if made.title == title:
            return made
    return parser.add_argument_group(title)


def add_option(
    options: argparse._ActionsContainer,
    name: str,
    kind: Callable[[str], Any],
    default: Any,
    metavar: str | None,
    text: str,
    *,
    former: str | None = None,
) -> None:
    """Declare an option with a value, which `kind` reads.

    --help gives the default after `text`, unless that is None, empty, or described in `text`.
    `former` is a name under which the option is also accepted.
    """
    if default not in (None, (), "") and "(default: " not in text:
        text += " (default: %(default)s)"
    declaration: dict[str, Any] = {"type": kind, "default": default, "metavar": metavar}
    if former is None:
        options.add_argument(name, **declaration, help=text)
    else:
        add_renamed(options, name, former, **declaration, help=text)


def add_renamed(
    options: argparse._ActionsContainer, name: str, former: str, **declaration: Any
) -> None:
    """Declare an option that is also accepted under its former name, which --help leaves out."""
    action = options.add_argument(name, **declaration)
    declaration |= {"dest": action.dest, "default": argparse.SUPPRESS, "help": argparse.SUPPRESS}
    options.add_argument(former, **declaration)


def suggestion(text: str, known: Iterable[str]) -> str:
    """`: did you mean NAME?` for the known name that `text` begins or resembles, else nothing."""
    names = [name for name in known if name not in _HELP or text in _HELP]
    longer = [name for name in names if len(text.lstrip("-")) > 1 and name.startswith(text)]
    alike = longer or difflib.get_close_matches(text, names, n=1, cutoff=_LEAST_ALIKE)
    return f": did you mean {alike[0]}?" if alike else ""


def asks_for_help(words: Sequence[str]) -> bool:
    """Whether --help is among the words; it is answered before any error is reported."""
    return bool(set(_HELP) & set(words))


def exit_codes(wrong: str | None, *, keeps: bool = False) -> str:
    """The end of a help text; `wrong` says when the code is 1, None if it never is.

    `keeps`: a signal that ends the command keeps its measurements, and the text says so.
    """
    codes = [f"{DONE}: done"]
    if wrong is not None:
        codes.append(f"{WRONG}: {wrong}")
    codes.append(f"{REFUSED}: a wrong option, or the command cannot be run here")
    kept = "; results so far are kept, marked as partial" if keeps else ""
    codes.append(f"{INTERRUPTED}: interrupted by Ctrl-C (143: by SIGTERM){kept}")
    return f"Exit codes: {'. '.join(codes)}."


def positionals(program: str, text: str | None, *names: str) -> list[str]:
    """Arguments of a program that another program starts; it has --help, too."""
    parser = Parser(prog=program, description=(text or "").partition("\n")[0])
    for name in names:
        parser.add_argument(name)
    return list(vars(parser.parse_args()).values())
