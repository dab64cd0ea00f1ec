"""How much a training stands back where settings do not say."""

from __future__ import annotations

from pathlib import Path

import pytest

from evergreen.core.config import Use
from evergreen.core.errors import ConfigError
from evergreen.core.plugins import make


@pytest.mark.parametrize("said", ["very", "20", "-1", "1.5"])
def test_a_variable_that_says_nothing_of_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    monkeypatch.setenv("EVERGREEN_NICE", said)
    with pytest.raises(ConfigError, match="and not a whole number from 0 to 19") as e:
        make("runners", Use(use="process"), ledger=None, store=None, store_use={}, home=tmp_path, state=tmp_path)
    assert e.value.field == "EVERGREEN_NICE"
