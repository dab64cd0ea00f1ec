"""What a notebook needs around a worker: its secrets, and what machine it was given. Says everything in plain words."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from evergreen.core.errors import ConfigError

#: Which secrets open which kind of store, by the scheme of its URL; groups of which one whole group is enough.
SECRETS: Mapping[str, Sequence[Sequence[str]]] = {
    "dropbox": [("DROPBOX_APP_KEY", "DROPBOX_APP_SECRET", "DROPBOX_REFRESH_TOKEN")],
    "gdrive": [
        ("GOOGLE_CLIENT_ID", "GOOGLE_CLIENT_SECRET", "GOOGLE_REFRESH_TOKEN"),
        ("GOOGLE_SERVICE_ACCOUNT",),
    ],
    "s3": [("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")],
}
#: What may be set besides, and is no secret.
ALSO: Mapping[str, Sequence[str]] = {
    "s3": ("AWS_REGION", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
}

_WHERE = {
    "colab": "In Colab: the key symbol on the left, `Add new secret`, and switch `Notebook access` on.",
    "kaggle": "In Kaggle: `Add-ons`, `Secrets`, and tick it for this notebook.",
    "here": "Set it in the environment of this notebook.",
}


def names(store_url: str) -> list[str]:
    """List every variable that may help to open a store.

    >>> names("dropbox:///app")
    ['DROPBOX_APP_KEY', 'DROPBOX_APP_SECRET', 'DROPBOX_REFRESH_TOKEN']
    """
    scheme = store_url.partition("://")[0]
    return [name for group in SECRETS.get(scheme, ()) for name in group] + list(ALSO.get(scheme, ()))


def folder(said: str, say: Callable[[str], None] = print) -> str:
    """Return the URL of the shared folder (the secret EVERGREEN_STORE, if nothing is said), with all it needs in reach.

    Raises `ConfigError` that names what is missing and where to put it.
    """
    place, look = _keeper()
    url = said or os.environ.get("EVERGREEN_STORE") or look("EVERGREEN_STORE")
    if not url:
        raise ConfigError("which folder? There is no secret EVERGREEN_STORE", field="EVERGREEN_STORE",
                          hint=f"Its value is a URL, like dropbox:///my-app. {_WHERE[place]}")  # fmt: skip
    say(f"The shared folder is {url}.")
    os.environ["EVERGREEN_STORE"] = url
    secrets(url, say)
    return url


def secrets(store_url: str, say: Callable[[str], None] = print) -> None:
    """Take what opens the store from the notebook's own secrets into the environment; never show it.

    What is in the environment already stays. Raises `ConfigError` that names what is missing and where to put it.
    """
    place, look = _keeper()
    for name in names(store_url):
        if not os.environ.get(name) and (value := look(name)):
            os.environ[name] = value
    groups = SECRETS.get(store_url.partition("://")[0], ())
    if not groups:
        say("This store needs no secrets.")
        return
    for group in groups:
        if all(os.environ.get(name) for name in group):
            say(f"Found {', '.join(group)} (their values are not shown).")
            return
    missing = [name for name in groups[0] if not os.environ.get(name)]
    other = "".join(f" Or instead: {', '.join(group)}." for group in groups[1:])
    raise ConfigError(
        f"not found among the secrets: {', '.join(missing)}", field=missing[0], hint=_WHERE[place] + other
    )


def machine(say: Callable[[str], None] = print) -> str | None:
    """Say which graphics card there is; return its name, or None."""
    command = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
    with suppress(OSError, subprocess.SubprocessError):
        found = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.strip()
        if found:
            say(f"Graphics card: {found.splitlines()[0]}.")
            return found.splitlines()[0].partition(",")[0]
    say("No graphics card: fine for small models. For large ones: Runtime, Change runtime type, T4 GPU.")
    return None


def _keeper() -> tuple[str, Callable[[str], str | None]]:
    """Find where this notebook keeps secrets, and how to ask for one."""
    with suppress(ImportError):
        from google.colab import userdata

        return "colab", lambda name: _asked(userdata.get, name)
    with suppress(ImportError):
        from kaggle_secrets import UserSecretsClient  # type: ignore[import-not-found]

        client = UserSecretsClient()
        return "kaggle", lambda name: _asked(client.get_secret, name)
    return "here", lambda _: None


def _asked(ask: Callable[[str], str | None], name: str) -> str | None:
    """Ask for one secret; each platform has its own error for one that is not there or not allowed."""
    try:
        return ask(name)
    except Exception:  # noqa: BLE001 - whatever it is called, the secret cannot be had; `secrets` says so
        return None
