"""Opening DriveStores on the server that speaks as Drive, and looking into it as people do."""

from __future__ import annotations

from pathlib import Path

from fake_drive import FOLDER, ROOT, FakeDrive

from evergreen.backends.store.remote import drive
from evergreen.backends.store.remote.drive import DriveStore
from evergreen.core.config import store_at
from evergreen.core.plugins import make


def opened(folder: Path, url: str = "gdrive:///Ever Green/models") -> DriveStore:
    store: DriveStore = make("stores", store_at(url), home=folder, state=folder / "state")
    return store


def elsewhere(folder: Path, url: str = "gdrive:///Ever Green/models") -> DriveStore:
    """Return a store as another machine has it: it knows nothing of what this process did."""
    store = opened(folder, url)
    store.objects._known = drive._Known()  # type: ignore[attr-defined]
    return store


def shown(server: FakeDrive) -> list[str]:
    """Return the paths of all files as people see them."""

    def path(id: str) -> str:
        return "" if id == ROOT else f"{path(server.files[id].parents[0])}/{server.files[id].name}"

    return sorted(path(file.id) for file in server.files.values() if file.kind != FOLDER and not file.trashed)
