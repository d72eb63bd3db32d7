"""The worker's own pages, read over real HTTP."""

import json
import socket
import urllib.error
import urllib.request
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.waiting import PATIENCE_SECONDS

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def free_port() -> int:
    """A free port of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def page(port: int, path: str, *, seconds: float = PATIENCE_SECONDS) -> tuple[int, str]:
    """The status and the body of a page; 0 if there is no answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=seconds) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


def ready(port: int) -> tuple[int, dict[str, Any]]:
    """The answer of `/readyz`."""
    status, body = page(port, "/readyz")
    return status, json.loads(body) if body else {}


class Metrics:
    """One reading of `/metrics`."""

    def __init__(self, port: int) -> None:
        status, body = page(port, "/metrics")
        assert status == 200
        self.families = list(text_string_to_metric_families(body))
        self._samples: Samples = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in self.families
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float:
        """The value of a sample; 0 if it is missing, as a counter is before its first event."""
        return self._samples.get((name, frozenset({"queue": "arq:queue", **labels}.items())), 0.0)

    def by(self, name: str, *labels: str) -> dict[tuple[str, ...], float]:
        """The samples of a name, by the values of these labels; summed over all other labels."""
        found: dict[tuple[str, ...], float] = {}
        for (sample, pairs), value in self._samples.items():
            if sample == name:
                key = tuple(dict(pairs).get(label, "") for label in labels)
                found[key] = found.get(key, 0.0) + value
        return found
