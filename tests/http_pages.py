"""Read pages of a server's management port."""

import http.client
import json

from prometheus_client.parser import text_string_to_metric_families

PATIENCE_S = 30


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
    """The samples of a text in Prometheus's format."""
    return Samples(
        ((sample.name, tuple(sorted(sample.labels.items()))), sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    )


def scrape(address):
    """The samples that a server shows now."""
    status, _, body = get(address, "/metrics")
    assert status == 200
    return parse(body.decode())
