"""Read pages of a server's management port."""

import http.client
import json
import re

PATIENCE_S = 30
_SAMPLE = re.compile(r"(\w+)(?:\{(.*)\})? (\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def get(address, path, *, method="GET", **headers):
    """Ask for a page: status, headers, body."""
    connection = http.client.HTTPConnection(address, timeout=PATIENCE_S)
    try:
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


def get_json(address, path, **headers):
    """Status and content of a page of JSON."""
    status, _, body = get(address, path, **headers)
    return status, json.loads(body)


class Samples(dict):
    """The values of a scrape, by name and labels."""

    def value(self, name, **labels):
        """The sum of all samples of a name that have these labels."""
        return sum(
            value
            for (other, found), value in self.items()
            if other == name and labels.items() <= dict(found).items()
        )

    @property
    def names(self):
        """The names of all samples."""
        return {name for name, _ in self}


def parse(text):
    """The samples of a text in Prometheus's format; the names as they are written."""
    samples = Samples()
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, labels, value = _SAMPLE.fullmatch(line).groups()
            pairs = sorted((key, _unescaped(found)) for key, found in _LABEL.findall(labels or ""))
            key = (name, tuple(pairs))
            assert key not in samples, line
            samples[key] = float(value)
    return samples


def _unescaped(text):
    return re.sub(r"\\(.)", lambda found: "\n" if found[1] == "n" else found[1], text)


def scrape(address):
    """The samples that a server shows now."""
    status, _, body = get(address, "/metrics")
    assert status == 200
    return parse(body.decode())
