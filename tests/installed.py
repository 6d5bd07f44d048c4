"""Distributions with entry points, really installed: a module and its metadata in a folder."""

from __future__ import annotations

from pathlib import Path


def install(site: Path, distribution: str, group: str, entries: str, code: str = "") -> str:
    """Write a distribution that `importlib.metadata` finds once `site` is on `sys.path`.

    Args:
        site: the folder.
        distribution: its name; that of its module has underscores instead of hyphens.
        group: entry-point group.
        entries: lines `name = module:object`; `{module}` stands for the module's name.
        code: of the module.

    Returns:
        the module's name.
    """
    module = distribution.replace("-", "_")
    info = site / f"{module}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{entries.format(module=module)}\n")
    (site / f"{module}.py").write_text(code)
    return module
