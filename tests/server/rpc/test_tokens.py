import pytest

from server.errors import StartError
from server.rpc.security.tokens import Permission, parse, permissions

ONE, OTHER = "one-token-of-many-0001", "another/token+of~many.2="


def test_a_token_without_permissions_may_infer():
    assert permissions(parse(f"{ONE}\n"), ONE) == {Permission.INFER}


def test_each_token_has_its_own_permissions():
    tokens = parse(f"{ONE} control\n{OTHER}\tinfer,shared-memory\n")
    assert permissions(tokens, ONE) == {Permission.CONTROL}
    assert permissions(tokens, OTHER) == {Permission.INFER, Permission.SHARED_MEMORY}


@pytest.mark.parametrize("came", ["", ONE[:-1], f"{ONE}0", ONE.upper(), "#", "\u0663" * 20])
def test_any_other_token_is_none_of_them(came):
    assert permissions(parse(f"# a comment\n\n  \n{ONE}\n"), came) is None


def test_a_file_without_tokens_lets_nobody_in():
    assert permissions(parse("# nobody\n"), "") is None


def test_tokens_themselves_are_not_kept():
    assert ONE not in repr(parse(f"{ONE}\n"))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("tooshort", "does not start with a token"),
        ('a-token-with-a-qu"ote', "does not start with a token"),
        ("=====================", "does not start with a token"),
        (f"{OTHER} infer, control", "has 3 words"),
        (
            f"{OTHER} infer,",
            "has unknown permissions, expected some of infer, control, shared-memory",
        ),
        (f"{OTHER} Infer", "has unknown permissions"),
        (ONE, "repeats the token of another line"),
    ],
)
def test_a_line_that_is_none_is_named_and_not_told(line, reason):
    with pytest.raises(StartError) as caught:
        parse(f"# first\n{ONE}\n{line}\n")
    assert str(caught.value).startswith(f"line 3 {reason}")
    assert line.split()[0] not in str(caught.value)


@pytest.mark.parametrize("cut", range(len(f"{ONE} control\n")))
def test_a_file_that_is_not_written_to_its_end_is_none(cut):
    with pytest.raises(StartError, match="empty or truncated"):
        parse(f"{ONE} control\n"[:cut])
