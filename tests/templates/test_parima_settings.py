"""config.json of PARIMA is read as it is, and mistakes in it are explained."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evergreen.core.config import CollectConfig, TriggerConfig
from evergreen.core.errors import ConfigError
from evergreen.templates.parima.settings import TrainingSettings, overlay, parse, read

SEED = """{
  "parima": {
    "training": {
      "autoTrain": true,                    // Enable automatic training
      "autoTrainIntervalHours": 24,         // Check every 24 hours
      "minSamplesForTraining": 100,         // Minimum samples required
      "logFile": "./data/training_logs/parima_decisions_log.csv",
      "modelType": "random_forest",         // Model type to train
      "trainingLogFile": "./data/training_logs/training_history.log"
    }
  }
}
"""
KEYS = "autoTrain, autoTrainIntervalHours, minSamplesForTraining, logFile, modelType, trainingLogFile"


def given_options(**options) -> str:
    return json.dumps({"parima": {"training": options}})


def test_the_file_as_it_is(tmp_path):
    (tmp_path / "config.json").write_text(SEED)
    assert read(tmp_path / "config.json") == TrainingSettings(autoTrain=True)


@pytest.mark.parametrize(
    "text", ["{}", '{"parima": {}}', '{"parima": {"training": {}}, "viewer": {"x": 1}}', '{"server": 1}']
)
def test_what_is_not_there_has_its_default(text):
    assert parse(text).model_dump(by_alias=True) == {
        "autoTrain": False,
        "autoTrainIntervalHours": 24,
        "minSamplesForTraining": 100,
        "logFile": "./data/training_logs/parima_decisions_log.csv",
        "modelType": "random_forest",
        "trainingLogFile": "./data/training_logs/training_history.log",
    }


def test_a_missing_file_is_all_defaults(tmp_path):
    assert read(tmp_path / "config.json") == TrainingSettings()


def test_comments_and_trailing_commas_but_not_inside_text():
    text = r"""// first
    {/* one
        two */ "other": "// kept, \" /* kept */ ,}",
      "parima": {"training": {"logFile": "http://x/a.csv,]", /**/ "minSamplesForTraining": 5, },}, // last }
    }"""
    settings = parse(text)
    assert (settings.log_file, settings.min_samples_for_training) == ("http://x/a.csv,]", 5)


def test_a_byte_order_mark_is_no_mistake(tmp_path):
    (tmp_path / "config.json").write_text(SEED, encoding="utf-8-sig")
    assert read(tmp_path / "config.json").auto_train


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("autoTrain", "yes", "true or false"),
        ("autoTrain", 1, "true or false"),
        ("autoTrainIntervalHours", 0, "a number of hours above 0"),
        ("autoTrainIntervalHours", "24", "a number of hours above 0"),
        ("autoTrainIntervalHours", True, "a number of hours above 0"),
        ("autoTrainIntervalHours", float("nan"), "a number of hours above 0"),
        ("autoTrainIntervalHours", 1e9, "a number of hours above 0"),
        ("minSamplesForTraining", 0, "a whole number from 1 up"),
        ("minSamplesForTraining", 1.5, "a whole number from 1 up"),
        ("minSamplesForTraining", None, "a whole number from 1 up"),
        ("logFile", "", "a path"),
        ("modelType", "lstm", "random_forest, svm, logistic, gradient_boosting or auto"),
        ("trainingLogFile", ["x"], "a path"),
    ],
)
def test_a_wrong_value_is_told_with_what_is_allowed(key, value, allowed):
    with pytest.raises(ConfigError) as e:
        parse(given_options(**{key: value}))
    assert f"config.json: parima.training.{key} is {json.dumps(value)}; allowed is {allowed}" in str(e.value)
    assert e.value.field == f"parima.training.{key}"


def test_an_unknown_key_is_told_with_the_known_ones():
    with pytest.raises(ConfigError) as e:
        parse(given_options(auto_train=True))
    assert str(e.value) == f"config.json: parima.training.auto_train is not known; the options are {KEYS}"


def test_all_mistakes_at_once():
    with pytest.raises(ConfigError) as e:
        parse(given_options(autoTrain="no", modelType="x", minSamples=3))
    assert str(e.value).count("parima.training.") == 3


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('{\n  "parima": {\n    "training": oops\n  }\n}', "line 3, column 17"),
        ('{ // one\n /* two\n three */ "parima" 1}', "line 3, column 20"),
        ('{"parima": /* never closed }', "line 1, column 12"),
        ("", "line 1, column 1"),
    ],
)
def test_broken_json_is_told_with_line_and_column(tmp_path, text, place):
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(ConfigError) as e:
        read(path)
    assert str(e.value).startswith(f"{path}, {place}: ")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "the file must hold one JSON object"),
        ('{"parima": 3}', "parima is 3; it must be an object"),
        ('{"parima": {"training": [1]}}', "parima.training is [1]; it must be an object"),
        ("[" * 100_000, "it is nested too deeply"),
    ],
)
def test_other_shapes_are_refused(text, said):
    with pytest.raises(ConfigError) as e:
        parse(text)
    assert said in str(e.value)


def test_a_file_that_cannot_be_read_says_why(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        read(tmp_path)
    (tmp_path / "config.json").write_bytes(b'{"x": "\xff"}')
    with pytest.raises(ConfigError, match="not UTF-8"):
        read(tmp_path / "config.json")


@given(st.text(alphabet='{}[]",:/*\\\n aparima1.', max_size=60))
def test_any_text_is_read_or_explained(text):
    try:
        parse(text)
    except ConfigError as e:
        assert "config.json" in str(e)  # noqa: PT017 - either way is fine


def test_overlay_is_in_the_words_of_evergreen_toml():
    assert overlay(parse(SEED)) == {
        "trigger": {"auto": True, "every": "86400s", "min_size": 100},
        "recipe": {"model": "random_forest"},
        "collect": {"sources": [{"use": "csv", "path": "./data/training_logs/parima_decisions_log.csv"}]},
    }


@given(st.floats(0, 87600, exclude_min=True))
def test_any_interval_is_one_that_the_trigger_reads(hours):
    made = overlay(TrainingSettings(autoTrainIntervalHours=hours))
    every = TriggerConfig.model_validate(made["trigger"]).every
    assert every is not None
    assert every > timedelta(0)
    assert every.total_seconds() == pytest.approx(max(hours * 3600, 0.001), rel=1e-3)
    CollectConfig.model_validate(made["collect"])
