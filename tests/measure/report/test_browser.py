import json

import chromium
import pytest
import report_records

from measure.report import kinds, page

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
# Of every figure: what is cut off at its edge, or lies on what else is to be read.
CROWDED = """[...document.querySelectorAll('figure')].flatMap(figure => {
    const one = name => [...figure.querySelectorAll(name)].filter(e => e.textContent.trim()
        && getComputedStyle(e).visibility !== 'hidden' && e.getBoundingClientRect().width);
    const title = figure.querySelector('.gtitle').textContent;
    const edge = figure.getBoundingClientRect();
    const bar = [...figure.querySelectorAll('.modebar-group')].filter(
        e => e.getBoundingClientRect().width);
    const read = [one('.gtitle'), one('.legend'), one('.xtitle'), one('.ytitle'),
        [...one('.xtick text'), ...one('.ytick text')], bar];
    const found = read.flat().map(e => [e, e.getBoundingClientRect()]).filter(([e, at]) =>
        at.left < edge.left || at.right > edge.right || at.top < edge.top || at.bottom > edge.bottom
    ).map(([e]) => `${title}: cut: ${e.textContent}`);
    read.forEach((some, i) => read.slice(i + 1).flat().forEach(b => some.forEach(a => {
        const [p, q] = [a.getBoundingClientRect(), b.getBoundingClientRect()];
        const wide = Math.min(p.right, q.right) - Math.max(p.left, q.left);
        const high = Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top);
        if (wide > 2 && high > 2)
            found.push(`${title}: ${a.textContent || 'icons'} on ${b.textContent || 'icons'}`);
    })));
    return found;
})"""
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


@pytest.mark.slow
def test_a_phone_shows_the_page_in_either_scheme_without_scrolling_sideways(tab, html):
    tab.emulate(PHONE, dark=True, touch=True)
    tab.open(html)
    assert tab.evaluate("innerWidth") == PHONE
    assert tab.evaluate(FITS)
    assert tab.evaluate(BOXED)
    back, ink = tab.evaluate(PAGE_AND_INK)
    assert (back < 100, ink > 200) == (True, True)
    tab.emulate(PHONE)
    assert tab.evaluate(FITS)
    assert tab.evaluate(CROWDED) == []
    back, ink = tab.evaluate(PAGE_AND_INK)
    assert (back > 200, ink < 100) == (True, True)
    assert tab.errors == []


@pytest.mark.slow
def test_a_banner_leads_to_what_explains_it(tab, tmp_path):
    path = tmp_path / "load.html"
    content = report_records.load()
    content["environment"]["load_average_start"] = [9.0, 1.0, 1.0]
    path.write_text(page.render([kinds.section(content)]))
    tab.emulate(DESK)
    tab.open(path)
    led = tab.evaluate("[...document.querySelectorAll('.verdict a')].map(a => a.hash.slice(1))")
    assert led == ["result-1-checks", "result-1-environment"]
    for name in led:
        assert tab.evaluate(f"!!document.getElementById('{name}')")
    clicked = "document.querySelector('.verdict a').click()"
    opened = "document.getElementById('result-1-checks').open"
    assert not tab.evaluate(opened)
    waited = "new Promise(f => addEventListener('hashchange', () => setTimeout(f)))"
    tab.evaluate(f"(() => {{ const seen = {waited}; {clicked}; return seen; }})()")
    assert tab.evaluate(opened)


def test_the_page_draws_everything_and_loads_nothing_but_itself(tab, html):
    tab.emulate(DESK)
    tab.open(html)
    assert tab.requests == [html.resolve().as_uri()]
    assert tab.errors == []
    drawn = "'.main-svg .scatterlayer .trace, .main-svg .barlayer .trace'"
    figures = "[...document.querySelectorAll('figure')]"
    assert tab.evaluate(f"{figures}.length") > 20
    assert tab.evaluate(f"{figures}.filter(f => !f.querySelector({drawn})).length") == 0
    assert tab.evaluate(CROWDED) == []
    assert json.loads(tab.evaluate(DOWNLOAD)) == report_records.load()
    # On paper everything is there but what is folded, whatever the scheme.
    tab.call("Emulation.setEmulatedMedia", media="print")
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert tab.evaluate("getComputedStyle(document.querySelector('details')).display") == "none"
    # The others would print as well, but take seconds.
    tab.evaluate("[...document.querySelectorAll('figure')].slice(1).forEach(f => f.remove())")
    assert tab.pdf().startswith(b"%PDF")
