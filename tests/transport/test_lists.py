"""Lists of servers are read from files and pages, or refused in one line."""

import pytest

from transport.calling import lists
from transport.calling.lists import finder, servers
from transport.calling.resolving import Server

LIST = "# managed\n\n127.0.0.1:1\n [::1]:2 \r\nunix:/run/a b\n127.0.0.1:1\n"


def test_each_line_of_a_list_is_a_server():
    assert servers(LIST) == (
        Server(("127.0.0.1:1",)),
        Server(("[::1]:2",)),
        Server(("unix:/run/a b",)),
    )


def test_the_certificate_of_a_listed_server_has_its_own_address():
    assert [server.host for server in servers(LIST)] == ["127.0.0.1", "::1", "localhost"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no servers"),
        ("# none\n", "no servers"),
        ("127.0.0.1:1\nname:2\n", "line 2 of the list: got 'name:2', expected IP:PORT"),
        ("127.0.0.1\n", "line 1"),
        ("<html>" + "x" * 5000, "line 1 of the list: got '<html>xxx"),
    ],
)
def test_a_list_without_servers_or_with_others_is_refused_as_a_whole(text, says):
    with pytest.raises(OSError, match=says) as caught:
        servers(text)
    assert len(str(caught.value)) < 150


@pytest.mark.parametrize("form", ["file:{}", "file://{}"])
def test_a_file_is_read_each_time(tmp_path, form):
    file = tmp_path / "servers"
    find = finder(form.format(file))
    with pytest.raises(OSError, match="cannot read the list of servers: No such file"):
        find()
    file.write_text("127.0.0.1:1\n")
    assert find() == (Server(("127.0.0.1:1",)),)
    file.write_text("unix:/a\n127.0.0.1:2")
    assert find() == (Server(("unix:/a",)), Server(("127.0.0.1:2",)))


def test_a_list_without_end_is_refused(monkeypatch):
    monkeypatch.setattr(lists, "_MOST_BYTES", 100)
    with pytest.raises(OSError, match="over 100 bytes"):
        finder("file:/dev/zero")()


@pytest.mark.parametrize("address", ["127.0.0.1:1", "name:1", "dns:///name:1", "unix:/a"])
def test_other_addresses_are_no_lists(address):
    assert finder(address) is None
    assert not lists.is_list(address)


@pytest.mark.parametrize(
    ("address", "page"),
    [
        ("ray://10.0.0.1:8000/argmax", ("10.0.0.1", 8000, "/argmax")),
        ("ray://name:8000", ("name", 8000, "/")),
        ("ray://[::1]:8000/a/b", ("::1", 8000, "/a/b")),
    ],
)
def test_an_application_on_ray_has_its_list_at_its_route(address, page):
    assert lists.page(address) == page
