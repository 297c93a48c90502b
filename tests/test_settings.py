"""What a YAML file and the command line may say, and one clear error for everything that they may not."""

import pytest
import yaml
from settings import Settings, load_settings
from tiny_training import ROOT, TINY

CONFIG = {**TINY, "clips": "somewhere", "validation": "somewhere", "folds": [1]}


@pytest.fixture
def config(tmp_path) -> str:
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(CONFIG))
    return str(path)


def test_overrides(config):
    settings, options = load_settings(
        ["--config", config, "--seed", "5", "--dropout", "0.3", "--recipe.max_polyphony", "2", "--folds", "[1,2]"]
    )
    assert (settings.seed, settings.model["dropout"], settings.folds) == (5, 0.3, ["1", "2"])
    assert settings.recipe["max_polyphony"] == 2
    assert options == (False, None)


def test_resume_and_push_are_no_settings(config):
    _, options = load_settings(["--config", config, "--resume", "--push_to_hub", "me/sounds"])
    assert options.resume and options.push_to_hub == "me/sounds"


def test_null_is_a_value_where_a_setting_may_be_left_open(config):
    settings, _ = load_settings(
        ["--config", config, "--folds", "null", "--validation", "null", "--num_threads", "null"]
    )
    assert (settings.folds, settings.validation, settings.num_threads) == (None, None, None)


def test_numbers_without_a_dot_are_numbers(config):
    # YAML 1.1 reads 3e-3 as text
    settings, _ = load_settings(["--config", config, "--learning_rate", "3e-3", "--max_gradient_norm", "2"])
    assert settings.learning_rate == pytest.approx(0.003)
    assert isinstance(settings.max_gradient_norm, float)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stepz", "3"], "unknown setting --stepz: name a field"),
        (["--nonsense.steps", "3"], "unknown setting --nonsense.steps"),
        (["--steps"], "overrides must be pairs of --key value"),
        (["--steps", "[1"], "--steps must be YAML"),
        (["--steps", "many"], "steps must be a whole number, got 'many'"),
        (["--steps", "1.5"], "steps must be a whole number, got 1.5"),
        (["--steps", "true"], "steps must be a whole number, got True"),
        (["--steps", "null"], "steps must be a whole number, got None"),
        (["--learning_rate", "fast"], "learning_rate must be a number, got 'fast'"),
        (["--learning_rate", ".nan"], "learning_rate must be a number, got nan"),
        (["--learning_rate", "true"], "learning_rate must be a number, got True"),
        (["--folds", "1"], "folds must be a list, got 1"),
        (["--clips", "[a]"], r"clips must be text, got \['a'\]"),
        (["--streaming", "1"], "streaming must be true or false, got 1"),
        (["--model", "cnn"], "model must be a mapping, got 'cnn'"),
        (["--mixed_precision", "fp8"], "mixed_precision must be no, bf16 or auto, got 'fp8'"),
        (["--weak_fraction", "2"], r"weak_fraction must be in \[0, 1\], got 2"),
        (["--scene_fraction", "-0.5"], r"scene_fraction must be in \[0, 1\], got -0.5"),
        (["--ema_decay", "1"], r"ema_decay must be in \[0, 1\), got 1"),
        (["--learning_rate", "0"], "learning_rate must be more than 0, got 0"),
        (["--max_gradient_norm", "0"], "max_gradient_norm must be more than 0, got 0"),
        (["--early_stop_patience", "2", "--validation", "null"], "early_stop_patience needs a validation folder"),
        (["--model.depth", "3"], "model has no setting depth: see EasySEDConfig"),
        (["--recipe.loudness", "3"], "recipe has no setting loudness: see Recipe"),
        (["--features.bands", "3"], "features has no setting bands: see EasySEDFeatureExtractor"),
        (["--dropout", "1.5"], r"model: dropout must be in \[0, 1\), got 1.5"),
        (["--dropout", "much"], "model: "),
        (["--features.feature_size", "64"], "features.feature_size must be model.num_mel_bins=32, got 64"),
        (["--features.sampling_rate", "8000"], "features.sampling_rate must be model.sampling_rate=16000, got 8000"),
        (["--features.hop_length_samples", "80"], "features.hop_length_samples must be model.hop_length_samples=160"),
    ],
)
def test_bad_settings(config, arguments, message):
    with pytest.raises(ValueError, match=message):
        load_settings(["--config", config, *arguments])


@pytest.mark.parametrize(
    ("name", "minimum"),
    [
        ("seed", 0),
        ("synthetic_outside", 0),
        ("steps", 1),
        ("batch_size", 1),
        ("gradient_accumulation", 1),
        ("warmup_steps", 0),
        ("weight_decay", 0),
        ("num_threads", 1),
        ("num_workers", 0),
        ("validate_every", 1),
        ("checkpoint_every", 1),
        ("log_every", 1),
        ("early_stop_patience", 1),
    ],
)
def test_smallest_values(name, minimum):
    assert getattr(Settings(**{name: minimum, "validation": "somewhere"}), name) == minimum
    with pytest.raises(ValueError, match=f"{name} must be at least {minimum}, got {minimum - 1}"):
        Settings(**{name: minimum - 1, "validation": "somewhere"})


def test_unknown_key_in_the_file(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text(yaml.safe_dump({**CONFIG, "stepz": 3}))
    with pytest.raises(ValueError, match="unknown settings \\['stepz'\\] in .*bad.yaml"):
        load_settings(["--config", str(path)])


@pytest.mark.parametrize(
    ("text", "message"), [("- a\n", "must hold settings as key: value, got list"), ("a: [", "YAML")]
)
def test_a_file_that_is_no_mapping(tmp_path, text, message):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        load_settings(["--config", str(path)])


def test_no_such_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.yaml"):
        load_settings(["--config", str(tmp_path / "nowhere.yaml")])


def test_shipped_configs_are_valid():
    for name in ("cnn", "cnn_plain", "transformer"):
        settings, _ = load_settings(["--config", str(ROOT / "training" / "configs" / f"{name}.yaml")])
        assert settings.folds == ["1", "2", "3"], "fold 4 tunes, fold 5 is never seen"
