"""Write the record of a comparison of execution providers with the views made from it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from measure.compare import plots as provider_plots
from measure.compare.analysis import analyse
from measure.compare.record import CompareRecord
from measure.core.record import read, write_bytes_atomically, write_record, write_text_atomically
from measure.report import page
from measure.report.sections import compare


def write(folder: Path, content: Mapping[str, Any]) -> list[Path]:
    """Write compare.json, compare.png, compare.html; their paths. Raises OSError."""
    analysis = analyse(read(content, CompareRecord).measured)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name for name in ("compare.json", "compare.png", "compare.html")]
    json_path, png_path, html_path = paths
    write_record(json_path, content)
    write_bytes_atomically(png_path, provider_plots.comparison_png(analysis))
    write_text_atomically(html_path, page.render([compare.section(content)]))
    return paths
