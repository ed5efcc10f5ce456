"""Write a sweep's record with the views made from it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from measure.core.record import read, write_bytes_atomically, write_record, write_text_atomically
from measure.report import page
from measure.report.sections import sweep
from measure.sweep import plots, record


def write(folder: Path, content: Mapping[str, Any]) -> list[Path]:
    """Write sweep.json, sweep.csv, latency.png, throughput.png, report.html; their paths.

    Each file is replaced as a whole. Raises OSError.
    """
    points = read(content, record.SweepRecord).points
    folder.mkdir(parents=True, exist_ok=True)
    paths = [
        folder / name
        for name in ("sweep.json", "sweep.csv", "latency.png", "throughput.png", "report.html")
    ]
    json_path, csv_path, latency_path, throughput_path, html_path = paths
    write_record(json_path, content)
    record.write_csv(csv_path, points)
    write_bytes_atomically(latency_path, plots.latency_png(points))
    write_bytes_atomically(throughput_path, plots.throughput_png(points))
    write_text_atomically(html_path, page.render([sweep.section(content)]))
    return paths
