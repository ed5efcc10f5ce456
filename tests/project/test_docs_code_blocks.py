"""Every command and every Python block of README.md and docs/ runs in a fresh environment.

That takes minutes, so `make test` runs what README.md begins with, in the tests' own environment,
and checks that the options of all commands exist.
"""

import contextlib
import json
import re
import shlex
from collections.abc import Iterator

import docs_substitutions
import pytest
from docs_blocks import RUN, BadBlock, Block, blocks, commands
from docs_environment import ROOT, Environment
from docs_runner import ENTER, BlockFailed, Page
from google.protobuf import text_format

from client.errors import UsageError
from measure.__main__ import parser_for
from protos import model_config_pb2

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]

# Headings of README.md whose blocks run in every test run.
FIRST = ("## Serve", "## Call")

# What ends a command, and what a shell would replace within one.
SEPARATED = re.compile(r"\s(?:\||>|>>|&&|;)\s|\n|; ")
PLACEHOLDER = re.compile(r"[$`]")

# A mark is for a block that no machine of ours can run, not for one that is inconvenient.
MOST_MARKED = 0.25


def of_page(name: str) -> list[Block]:
    return blocks(name, (ROOT / name).read_text())


def runnable(name: str) -> list[Block]:
    return [block for block in of_page(name) if block.language in RUN]


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """An environment that is installed from an index of packages."""
    return Environment.fresh(tmp_path_factory.mktemp("fresh") / "argmax-serving")


def below(name: str, headings: tuple[str, ...]) -> list[Block]:
    """Blocks of a page that stand below these of its headings."""
    lines = (ROOT / name).read_text().splitlines()
    found = []
    for block in runnable(name):
        above = [line for line in lines[: block.line] if line.startswith("## ")]
        if above and above[-1] in headings:
            found.append(block)
    return found


def ours(block: Block) -> Iterator[list[str]]:
    """The words behind `python -m client` of each such command in a block."""
    if block.language != "sh" or "python -m client" not in block.source:
        return
    for command in commands(block.source):
        for part in SEPARATED.split(command.replace("\\\n", " ")):
            words = in_words(part) if part.lstrip().startswith("python -m client") else []
            if len(words) > 3 and not PLACEHOLDER.search(part):
                yield words[3:]


def in_words(command: str) -> list[str]:
    return shlex.split(command.replace("\\\n", " "), comments=True)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", NAMES)
def test_the_blocks_of_a_page_run_in_order(name, request, tmp_path):
    run = [block for block in runnable(name) if block.reason is None]
    if not run:
        return
    checkout = tmp_path / "argmax-serving"
    request.getfixturevalue("environment").checkout(checkout)
    with Page(checkout, entered=name != "README.md") as page:
        for block in run:
            page.run(block)


def test_a_model_is_served_and_called_as_readme_says(tmp_path):
    checkout = tmp_path / "argmax-serving"
    Environment.of_tests().checkout(checkout)
    run = [block for block in below("README.md", FIRST) if block.reason is None]
    assert {"sh", "python"} <= {block.language for block in run}
    with Page(checkout, entered=True) as page:
        for block in run:
            page.run(block)


def test_few_blocks_are_marked_as_not_run():
    every = [block for name in NAMES for block in runnable(name)]
    marked = [block.where for block in every if block.reason is not None]
    assert len(every) > 15
    assert len(marked) <= MOST_MARKED * len(every), marked


@pytest.mark.parametrize("name", NAMES)
def test_the_options_of_every_command_exist(name):
    for block in runnable(name):
        for words in ours(block):
            # What --help ends with.
            with contextlib.suppress(SystemExit):
                try:
                    parser_for(words).parse_args([word.replace("PORT", "8001") for word in words])
                except UsageError as error:
                    pytest.fail(f"{block.where}: {error}")


def test_commands_of_ours_are_found_on_the_pages():
    found = {words[0] for name in NAMES for block in runnable(name) for words in ours(block)}
    assert found >= {"predict", "sweep", "load", "slo", "plan", "compare", "diff", "report"}


def test_every_substitution_is_of_some_page():
    assert (
        docs_substitutions.unused(
            [block.source for name in NAMES for block in runnable(name) if block.reason is None]
        )
        == []
    )


# The runner itself, on pages made up for it.


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made_up") / "argmax-serving"
    Environment.of_tests().checkout(folder)
    return folder


@pytest.fixture
def follow(scratch):
    """Run a page of this text as the pages are run, in the tests' environment."""

    def follow(text):
        with Page(scratch, entered=True) as page:
            for block in blocks("made-up.md", text):
                if block.language in RUN and block.reason is None:
                    page.run(block)

    return follow


def fenced(language, *lines):
    return "\n".join(["Some words.", "", f"```{language}", *lines, "```", ""])


def test_a_wrong_option_fails_the_page_with_its_place_and_words(follow):
    page = fenced("sh", "echo fine", "python -m model export --oot models  # a slip")
    with pytest.raises(BlockFailed) as failed:
        follow(page)
    text = str(failed.value)
    assert text.startswith("made-up.md:3: got exit code 2, expected (0,)\n")
    assert "$ python -m model export" in text
    assert "--oot" in text.split("\n", 2)[2]


def test_python_that_raises_fails_the_page(follow):
    page = fenced("python", "from client import Client", "Client.predicted")
    with pytest.raises(BlockFailed, match=r"made-up.md:3: [^$]*\$ python block_3.py\n(.|\n)*Attri"):
        follow(page)


def test_a_command_of_several_that_fails_within_a_loop_fails_the_page(follow):
    page = fenced("sh", "for i in 1 2; do", "  ls nowhere-$i", "  true", "done")
    with pytest.raises(BlockFailed, match="nowhere-1"):
        follow(page)


def test_a_server_that_does_not_start_fails_the_page(follow):
    page = fenced("sh", "python -m server --models nowhere --address 127.0.0.1:8001")
    with pytest.raises(BlockFailed, match=r"the server does not listen(.|\n)*nowhere"):
        follow(page)


def test_an_exception_is_a_failure_where_the_machine_may_decide_the_exit_code(follow, monkeypatch):
    table = (docs_substitutions.MayFail("^python", "the test says so"),)
    monkeypatch.setattr(docs_substitutions, "MAY_FAIL", table)
    follow(fenced("sh", "python -c 'raise SystemExit(1)'"))
    with pytest.raises(BlockFailed, match=r"made-up\.md:3: it raised"):
        follow(fenced("sh", "python -c 'raise ValueError'"))


def test_files_folders_variables_and_a_server_are_there_for_later_blocks(follow):
    follow(
        fenced("sh", "python -m model export --out models", "mkdir -p sub", "cd sub")
        + fenced("sh", "export NAME=later", "touch here", "cd ..", "ls sub/here")
        + fenced("sh", "python -m server --models models --address 127.0.0.1:8001")
        + fenced("sh", "test $NAME = later")
        + fenced(
            "python",
            "from client import Client",
            'with Client("127.0.0.1:8001") as client:',
            "    assert client.metadata().name == 'linear_argmax'",
        )
    )


def test_nothing_is_sent_to_another_machine(follow):
    page = fenced("sh", "python -m client load --address 198.51.100.7:8001 --rate 10")
    with pytest.raises(BlockFailed, match=r"made-up.md:3: got the address 198.51.100.7:\d+, exp"):
        follow(page)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (fenced("", "ls"), r"p.md:3: got language '', expected one of sh, python, "),
        (fenced("bash", "ls"), r"p.md:3: got language 'bash', expected one of sh, python, "),
        ("```sh\nls\n", "p.md:1: the block has no closing fence"),
        ("<!-- not run: -->\n```sh\nls\n```\n", "p.md:2: the mark `not run` has no reason"),
        ("<!-- not run: why -->\n```text\nls\n```\n", "p.md:2: a block of text never runs"),
    ],
    ids=["no language", "an unknown language", "no end", "no reason", "a mark without need"],
)
def test_a_block_that_cannot_be_judged_is_refused_by_page_and_line(text, why):
    with pytest.raises(BadBlock, match=re.escape(why) if "(" not in why else why):
        blocks("p.md", text)


def test_blocks_have_their_place_language_source_and_reason():
    text = (
        "Words\n\n```python\nx = [\n    1,\n]\n```\n"
        "- in a list:\n\n  <!-- not run: needs a GPU -->\n  ```sh\n  a \\\n    b\n  ```\n"
        "~~~~text\n```sh\n```\n~~~~\n"
    )
    assert blocks("p.md", text) == [
        Block("p.md", 3, "python", "x = [\n    1,\n]\n", None),
        Block("p.md", 11, "sh", "a \\\n  b\n", "needs a GPU"),
        Block("p.md", 15, "text", "```sh\n```\n", None),
    ]


def test_commands_are_split_where_the_shell_finds_them_complete():
    source = (
        "# a comment\na --b \\\n  'c\n\nd'  # why\n\nfor i in 1 2; do\n  e $i\ndone\n"
        "(cd f && g)\nh 'never ends\n"
    )
    assert list(commands(source)) == [
        "a --b \\\n  'c\n\nd'  # why",
        "for i in 1 2; do\n  e $i\ndone",
        "(cd f && g)",
        "h 'never ends",
    ]


def test_readme_enters_the_environment_as_the_other_pages_take_for_done():
    assert any(ENTER in block.source for block in runnable("README.md"))


def test_configuration_that_is_shown_can_be_read():
    for name in NAMES:
        for block in of_page(name):
            if block.language == "json":
                json.loads(block.source)
            elif block.language == "protobuf":
                text_format.Parse(block.source, model_config_pb2.ModelConfig())
