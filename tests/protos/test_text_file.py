import codecs

import pytest

from protos.errors import InvalidText
from protos.text_file import decode

TEXT = "# größer als π\r\nmax_batch_size: 8\r\n"
SAVED = {
    "UTF-8": TEXT.encode(),
    "UTF-8 with a mark": codecs.BOM_UTF8 + TEXT.encode(),
    "UTF-16, little end first": codecs.BOM_UTF16_LE + TEXT.encode("utf-16-le"),
    "UTF-16, big end first": codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"),
}


@pytest.mark.parametrize("data", SAVED.values(), ids=SAVED)
def test_text_of_every_editor_is_the_same(data):
    assert decode(data) == TEXT
    assert decode(b"") == ""


@pytest.mark.parametrize(
    ("data", "position", "byte"),
    [
        ("name: café".encode("latin-1"), 9, "e9"),
        (codecs.BOM_UTF8 + b"ab\xff", 5, "ff"),
        ("max".encode("utf-16-le"), 1, "00"),
        ("max".encode("utf-16-be"), 0, "00"),
        ("max".encode("utf-32"), 2, "00"),
        (codecs.BOM_UTF16_LE + "ab".encode("utf-16-le") + b"c", 6, "63"),
        (b"\x1f\x8b\x08\x00", 1, "8b"),
        (b"abc\0", 3, "00"),
    ],
)
def test_anything_else_is_refused_with_its_position(data, position, byte):
    with pytest.raises(
        InvalidText, match=f"^byte {position} is 0x{byte}; expected UTF-8, or UTF-16"
    ):
        decode(data)
