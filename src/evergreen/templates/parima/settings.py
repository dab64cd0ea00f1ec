"""The six options under `parima.training` in config.json, read as PARIMA has always written them, comments included."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from evergreen.core.errors import ConfigError

_KEY = "parima.training"
#: Strings, which are kept, or comments.
_STRING_OR_COMMENT = re.compile(r'"(?:\\.|[^"\\\n])*"|//[^\n]*|/\*.*?\*/', re.DOTALL)
#: Strings, which are kept, or a comma with nothing behind it.
_STRING_OR_COMMA = re.compile(r'"(?:\\.|[^"\\\n])*"|,(?=\s*[}\]])')


class TrainingSettings(BaseModel):
    """When to train, on what, and where to write it down. Descriptions say what is allowed."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    auto_train: bool = Field(False, alias="autoTrain", description="true or false")
    auto_train_interval_hours: float = Field(
        24, alias="autoTrainIntervalHours", gt=0, le=87600, description="a number of hours above 0, up to 87600"
    )
    min_samples_for_training: int = Field(
        100, alias="minSamplesForTraining", ge=1, description="a whole number from 1 up"
    )
    log_file: str = Field(
        "./data/training_logs/parima_decisions_log.csv", alias="logFile", min_length=1, description="a path"
    )
    model_type: Literal["random_forest", "svm", "logistic", "gradient_boosting", "auto"] = Field(
        "random_forest", alias="modelType", description="random_forest, svm, logistic, gradient_boosting or auto"
    )
    training_log_file: str = Field(
        "./data/training_logs/training_history.log", alias="trainingLogFile", min_length=1, description="a path"
    )


#: What is allowed, by the key in the file.
_ALLOWED = {str(field.alias): field.description for field in TrainingSettings.model_fields.values()}


def read(path: Path) -> TrainingSettings:
    """Read config.json; every option that is not there, or the whole file, has its default.

    Raises `ConfigError` that names every wrong key, its value and what is allowed, or the line and column where
    the file is not JSON.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return TrainingSettings()
    except UnicodeDecodeError as e:
        raise ConfigError(f"{path} is not UTF-8 (byte {e.start + 1})", hint="Save it as UTF-8.") from e
    except OSError as e:
        raise ConfigError(f"{path} cannot be read: {e.strerror}") from e
    return parse(text, str(path))


def parse(text: str, place: str = "config.json") -> TrainingSettings:
    """Read the text of config.json; `place` is what errors call it."""
    raw = _section(_section(_load(text, place), "parima", place), _KEY, place)
    try:
        return TrainingSettings.model_validate(raw)
    except ValidationError as e:
        keys = [str(err["loc"][0]) for err in e.errors()]
        raise ConfigError(
            f"{place}: " + "; ".join(_mistake(key, raw[key]) for key in keys), field=f"{_KEY}.{keys[0]}"
        ) from e


def overlay(settings: TrainingSettings) -> dict[str, Any]:
    """Return what the settings mean for the loop, in the words of evergreen.toml."""
    return {
        "trigger": {
            "auto": settings.auto_train,
            "every": f"{max(settings.auto_train_interval_hours * 3600, 0.001):.15g}s",
            "min_size": settings.min_samples_for_training,
        },
        "recipe": {"model": settings.model_type},
        "collect": {"sources": [{"use": "csv", "path": settings.log_file}]},
    }


def _load(text: str, place: str) -> dict[str, Any]:
    """Read JSON with `//` and `/* */` comments and trailing commas, which are blanked so that positions stay true."""
    plain = _STRING_OR_COMMENT.sub(_blank, text)
    plain = _STRING_OR_COMMA.sub(_blank, plain)
    try:
        raw = json.loads(plain)
    except json.JSONDecodeError as e:
        raise ConfigError(f"{place}, line {e.lineno}, column {e.colno}: {e.msg}") from e
    except RecursionError as e:
        raise ConfigError(f"{place}: it is nested too deeply") from e
    if not isinstance(raw, dict):
        raise ConfigError(f"{place}: the file must hold one JSON object")
    return raw


def _blank(found: re.Match[str]) -> str:
    return found[0] if found[0].startswith('"') else re.sub(r"[^\n]", " ", found[0])


def _section(parent: dict[str, Any], key: str, place: str) -> dict[str, Any]:
    """Return the object at the last part of `key`; empty if it is not there."""
    found = parent.get(key.rpartition(".")[2], {})
    if isinstance(found, dict):
        return found
    raise ConfigError(f"{place}: {key} is {json.dumps(found)}; it must be an object", field=key)


def _mistake(key: str, value: Any) -> str:
    if key in _ALLOWED:
        return f"{_KEY}.{key} is {json.dumps(value)}; allowed is {_ALLOWED[key]}"
    return f"{_KEY}.{key} is not known; the options are {', '.join(_ALLOWED)}"
