import json

import chromium
import pytest
import report_records

from client.reporting import kinds, page

PHONE, DESK = 390, 1280
FITS = "document.documentElement.scrollWidth <= innerWidth"
# What does not fit scrolls in a box of its own.
BOXED = (
    "[...document.querySelectorAll('table, figure, pre')].every("
    "e => e.closest('.table, figure, details').getBoundingClientRect().right <= innerWidth)"
)
PAGE_AND_INK = (
    "[[document.body, 'backgroundColor'], [document.querySelector('.gtitle'), 'fill']].map("
    "([e, name]) => Number(getComputedStyle(e)[name].match(/\\d+/)[0]))"
)
# A download would end the page; what it would hold is enough.
DOWNLOAD = """new Promise(done => {
    URL.createObjectURL = blob => { blob.text().then(done); return '#'; };
    document.querySelector('button[data-name="load.json"]').click();
})"""


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    records = [make() for make in report_records.EVERY.values()]
    path.write_text(page.render([kinds.section(content) for content in records]))
    return path


@pytest.fixture(scope="module")
def tab():
    if chromium.program() is None:
        pytest.skip(f"no browser: looked for {', '.join(chromium.NAMES)}")
    with chromium.running() as opened:
        yield opened


def test_a_phone_shows_the_page_in_either_scheme_without_scrolling_sideways(tab, html):
    tab.emulate(PHONE, dark=True, touch=True)
    tab.open(html)
    assert tab.evaluate("innerWidth") == PHONE
    assert tab.evaluate(FITS)
    assert tab.evaluate(BOXED)
    back, ink = tab.evaluate(PAGE_AND_INK)
    assert (back < 100, ink > 200) == (True, True)
    tab.emulate(PHONE, touch=True)
    assert tab.evaluate(FITS)
    back, ink = tab.evaluate(PAGE_AND_INK)
    assert (back > 200, ink < 100) == (True, True)
    assert tab.errors == []


def test_the_page_draws_everything_and_loads_nothing_but_itself(tab, html):
    tab.emulate(DESK)
    tab.open(html)
    assert tab.requests == [html.resolve().as_uri()]
    assert tab.errors == []
    drawn = "'.main-svg .scatterlayer .trace, .main-svg .barlayer .trace'"
    figures = "[...document.querySelectorAll('figure')]"
    assert tab.evaluate(f"{figures}.length") > 20
    assert tab.evaluate(f"{figures}.filter(f => !f.querySelector({drawn})).length") == 0
    assert json.loads(tab.evaluate(DOWNLOAD)) == report_records.load()
    # On paper everything is there but what is folded, whatever the scheme.
    tab.call("Emulation.setEmulatedMedia", media="print")
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert tab.evaluate("getComputedStyle(document.querySelector('details')).display") == "none"
    assert tab.pdf().startswith(b"%PDF")
