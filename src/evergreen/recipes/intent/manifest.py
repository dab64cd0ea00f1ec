"""What an artifact says of itself, written last and read first: answers, who votes, and a digest of every file."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from evergreen.core.errors import Corrupt
from evergreen.core.records import Json

MANIFEST = "intent.json"
FORMAT = 1


def read(artifact: Path) -> dict[str, Any]:
    """Read what an artifact says of itself. Raises `Corrupt` if it is none of ours."""
    try:
        manifest = msgspec.json.decode((artifact / MANIFEST).read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.DecodeError) as e:
        raise Corrupt(f"the artifact {artifact.name} is not whole: {e}", hint="Roll back, or train again.") from e
    if manifest.get("recipe") != "intent" or manifest.get("format") != FORMAT:
        raise Corrupt(f"{artifact.name} is no artifact of the intent recipe, format {FORMAT}")
    return manifest


def whole(artifact: Path, name: str, manifest: dict[str, Any]) -> bytes:
    try:
        data = (artifact / name).read_bytes()
    except OSError as e:
        raise Corrupt(f"the artifact {artifact.name} is not whole: {e}", hint="Roll back, or train again.") from e
    if sha256(data).hexdigest() != manifest["files"].get(name):
        raise Corrupt(f"{artifact.name}/{name} is not the file that was written", hint="Roll back, or train again.")
    return data


def write(artifact: Path, more: dict[str, Json]) -> None:
    """Finish an artifact whose other files are written: the digest of each goes into the manifest."""
    files = {
        path.relative_to(artifact).as_posix(): sha256(path.read_bytes()).hexdigest()
        for path in sorted(artifact.rglob("*"))
        if path.is_file()
    }
    manifest = {"recipe": "intent", "format": FORMAT, **more, "files": files}
    (artifact / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")
