"""CoreML specifications (`.mlmodel`): read with a table of fields, checked, and drawn anew as an ONNX graph.

What is understood: tree ensembles, generalised linear models, support vectors, nearest neighbours and neural networks
without recurrence that give a class label, alone or at the end of a pipeline of feature transformers.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from evergreen.core.errors import TooLarge
from evergreen.core.plugins import missing
from evergreen.core.recipe import Interface, PluginOptions

__all__ = ["CoremlFormat"]

#: A model file of a phone. Reading it takes about four times its size.
_MOST_BYTES = 64 << 20


class CoremlFormat:
    """Reads CoreML classifiers that phones trained; takes 40 MB and no coremltools."""

    Options = PluginOptions
    suffixes: Sequence[str] = (".mlmodel",)

    def __init__(self, _options: PluginOptions | None = None) -> None:
        """Import all that reading needs: where a file is read, nothing can be imported any more."""
        try:
            from evergreen.backends.format.coreml.model import convert
            from evergreen.backends.format.coreml.schema import parse
        except ModuleNotFoundError as e:
            raise missing('format "coreml"', e, extra="coreml") from e
        self._parse, self._convert = parse, convert

    def read(self, file: Path, out: Path) -> Interface:
        """Check a file, write `out/model.onnx` that decides the same, say what it asks for.

        Raises `InvalidInput` naming the part that is wrong or not supported.
        """
        if file.stat().st_size > _MOST_BYTES:
            raise TooLarge(f"the file is larger than {_MOST_BYTES >> 20} MiB", field="model")
        return self._convert(self._parse(file.read_bytes()), out / "model.onnx")
