"""ONNX models from strangers: surveyed, checked against what is allowed, and brought into one form."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from evergreen.core.plugins import missing
from evergreen.core.recipe import Interface, PluginOptions


class OnnxFormat:
    """Reads `.onnx`: a classifier of texts or of rows of figures that gives a probability for each label."""

    Options = PluginOptions
    suffixes: Sequence[str] = (".onnx",)

    def __init__(self, options: PluginOptions | None = None) -> None:
        """Import all that reading needs, before the lock is closed."""
        try:
            from evergreen.backends.format.onnx.reading import read
        except ModuleNotFoundError as e:
            raise missing('format "onnx"', e, extra="intent") from e
        self.options, self._read = options or PluginOptions(), read

    def read(self, file: Path, out: Path) -> Interface:
        """Check a file, write `out/model.onnx` that gives the same probabilities, say what it asks for.

        Raises `InvalidInput` for whatever is not plainly harmless and well-formed.
        """
        return self._read(file, out)
