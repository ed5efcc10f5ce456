"""Make LoadGen's settings from a job."""

from typing import Any

from client.errors import UsageError
from command_line.extras import optional
from measure.loadgen.worker_job import Job

mlperf_loadgen = optional("mlperf_loadgen", "loadgen", "loadgen")

# The rules' value for larger data sets; LoadGen's configuration has it only for its own models.
OFFLINE_SAMPLES = 24_576
# LoadGen generates all queries before the run, and the run is invalid if they do not fill it: so it
# expects somewhat more than the warm-up measured.
_FASTER = 2.0
_OFFLINE_FASTER = 1.5
# Share of the warm-up's peak rate at which queries arrive: queues are short there.
_SERVER_SHARE = 0.5


def settings_of(job: Job, samples_per_s: float, latency_ns: float) -> Any:
    """Return LoadGen's built-in settings (seeds, durations, percentiles), overridden by the job's.

    `samples_per_s` and `latency_ns` are from the warm-up. UsageError if LoadGen rejects them.
    """
    settings = mlperf_loadgen.TestSettings()
    # An empty path and kind 0 select the configuration inside the library, which it reads only once
    # per process.
    if settings.FromConfig("", job.model, job.scenario, 0) != 0:
        raise UsageError(f"LoadGen has no built-in configuration for {job.scenario}")
    settings.scenario = getattr(mlperf_loadgen.TestScenario, job.scenario)
    settings.mode = (
        mlperf_loadgen.TestMode.AccuracyOnly
        if job.mode == "accuracy"
        else mlperf_loadgen.TestMode.PerformanceOnly
    )
    rules = job.rules
    if rules.quick_s is not None:
        settings.min_duration_ms = round(rules.quick_s * 1000)
    elif job.scenario == "Offline":
        settings.min_query_count = OFFLINE_SAMPLES
    settings.single_stream_expected_latency_ns = latency_ns / _FASTER
    settings.multi_stream_expected_latency_ns = latency_ns / _FASTER
    settings.server_target_latency_ns = round(rules.server_latency_ms * 1e6)
    settings.server_target_qps = rules.server_qps or samples_per_s * _SERVER_SHARE
    settings.offline_expected_qps = rules.offline_qps or samples_per_s * _OFFLINE_FASTER
    return settings
