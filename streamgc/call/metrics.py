"""The snapshot as Prometheus metrics, on loopback."""

from collections.abc import Iterator
from dataclasses import fields

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from streamgc.errors import InputError
from streamgc.rtc.statistics import Received, Sent, Statistics

LOOPBACK = "127.0.0.1"


class MetricsEndpoint:
    """Serves the newest snapshot at http://127.0.0.1:PORT/metrics; raises `InputError` for a busy port."""

    def __init__(self, port: int) -> None:
        self._collector = _Newest()
        registry = CollectorRegistry()
        registry.register(self._collector)
        try:
            self._server, self._thread = start_http_server(port, LOOPBACK, registry)
        except OSError as error:
            raise InputError(f"cannot listen on {LOOPBACK}:{port}: {error.strerror or error}") from error
        self.port: int = self._server.server_port

    def update(self, statistics: Statistics) -> None:
        """Serve this from now on."""
        self._collector.statistics = statistics

    def close(self) -> None:
        """Stop serving and end the thread."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Newest(Collector):
    """Every number of the snapshot is a gauge; what is counted by cause or stage has a label."""

    statistics: Statistics | None = None

    def collect(self) -> Iterator[GaugeMetricFamily]:
        statistics = self.statistics
        if statistics is None:
            return
        for side, part in (("sent", statistics.sent), ("received", statistics.received)):
            yield from _gauges(side, part)
        if statistics.rtt_ms is not None:
            yield GaugeMetricFamily("streamgc_rtt_ms", "Round-trip time", statistics.rtt_ms)
        stages = GaugeMetricFamily("streamgc_stage_ms", "Latency by stage", labels=["stage", "percentile"])
        for stage, times in statistics.stages.items():
            for percentile, milliseconds in times.items():
                stages.add_metric([stage, percentile], milliseconds)
        yield stages
        about = GaugeMetricFamily("streamgc_call", "What runs", labels=["state", "codec", "model", "engine"])
        about.add_metric([statistics.state, statistics.codec, statistics.model, statistics.engine], 1)
        yield about


def _gauges(side: str, part: Sent | Received) -> Iterator[GaugeMetricFamily]:
    for one in fields(part):
        value = getattr(part, one.name)
        if value is None:
            continue
        name = f"streamgc_{side}_{one.name}"
        if isinstance(value, dict):
            family = GaugeMetricFamily(name, f"{side}: {one.name}", labels=["cause"])
            for cause, count in value.items():
                family.add_metric([cause], count)
            yield family
        else:
            yield GaugeMetricFamily(name, f"{side}: {one.name}", value)
