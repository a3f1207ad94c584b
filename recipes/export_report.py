"""The memory section of an export's report: sizes by part in each format, and what the load order saves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from base_model.export.checkpoint import Checkpoint

FORMATS = {"bf16": "bf16", "int4": "4-bit vLLM", "q4_0": "GGUF q4_0"}
"""Fields of ``PartSize``, and their headings."""


def memory_report(checkpoint: Checkpoint, group: int, context: int, *, measured: bool) -> dict[str, Any]:
    """Computed sizes of a checkpoint's parts and, for a vision-language model, measured peaks of both load orders.

    Args:
        checkpoint: the plain checkpoint.
        group: weights that share a scale in the 4-bit format.
        context: tokens whose keys and values count.
        measured: load the model twice, in processes of their own, to measure.
    """
    from base_model.export.load_order import measure

    report = computed_memory(checkpoint.skeleton(), group, context)
    if measured and checkpoint.has_vision:
        peaks = [measure(checkpoint.folder, "at once"), measure(checkpoint.folder, "in turn")]
        report["measured"] = {peak.order: peak.as_dict() for peak in peaks}
    return report


def computed_memory(model: Any, group: int, context: int) -> dict[str, Any]:
    """Sizes by part, and the memory of weights and cache in both load orders; the model may be on the meta device."""
    from dataclasses import asdict

    from base_model.export.sizes import key_value_bytes, loaded, part_sizes

    sizes = part_sizes(model, group=group)
    cache = key_value_bytes(model.config, context)
    return {
        "parts": {part: asdict(size) for part, size in sizes.items()},
        "context": context,
        "keys_and_values": cache,
        "loaded": {kind: loaded(sizes, kind, cache) for kind in FORMATS},
    }


def table(report: Mapping[str, Any]) -> list[str]:
    """The report as lines for the terminal."""
    lines = [_row("", "parameters", *FORMATS.values())]
    lines += [_line(part, size) for part, size in report["parts"].items()]
    total = {key: sum(size[key] for size in report["parts"].values()) for key in ("parameters", *FORMATS)}
    lines.append(_line("all", total))
    for order in ("at once", "in turn"):
        sums = [megabytes(report["loaded"][kind][order]) for kind in FORMATS]
        lines.append(_row(f"loaded {order}, {report['context']} tokens", "", *sums))
    for order, peak in report.get("measured", {}).items():
        lines.append(
            f"  measured {order}: {megabytes(peak['model'])} for weights and one image, above the "
            f"{megabytes(peak['start'])} of the libraries"
        )
    return lines


def _line(part: str, size: Mapping[str, int]) -> str:
    return _row(part, f"{size['parameters'] / 1e6:,.1f}M", *(megabytes(size[kind]) for kind in FORMATS))


def _row(first: str, *cells: str) -> str:
    return f"  {first:<28}" + "".join(f"{cell:>14}" for cell in cells)


def megabytes(size: int) -> str:
    """As a person reads it: MB below a gigabyte, GB above."""
    return f"{size / 1e9:,.2f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"
