"""The configuration: round trip, derived values, and one clear error for every rule."""

import json

import pytest
from tiny import tiny_config
from transformers import AutoConfig

from modeling_easysed import EasySEDConfig
from modeling_easysed.configuration_easysed import AST_GEOMETRY


def test_round_trip_keeps_every_value(tmp_path):
    config = tiny_config(decoding={"method": "boxes"}, provenance={"seed": 3}, exit_layers=(1, 2))
    config.save_pretrained(tmp_path)
    loaded = EasySEDConfig.from_pretrained(tmp_path)
    ignored = {"transformers_version", "_name_or_path", "auto_map"}
    first, second = config.to_dict(), loaded.to_dict()
    assert {k: v for k, v in first.items() if k not in ignored} == {k: v for k, v in second.items() if k not in ignored}
    assert loaded.id2label == {0: "dog_bark", 1: "rain", 2: "rooster"} and loaded.num_labels == 3


def test_auto_map_names_every_class(tmp_path):
    tiny_config().save_pretrained(tmp_path)
    auto_map = json.loads((tmp_path / "config.json").read_text())["auto_map"]
    assert set(auto_map) == {"AutoConfig", "AutoModel", "AutoModelForAudioClassification"}
    assert isinstance(AutoConfig.from_pretrained(tmp_path), EasySEDConfig)


def test_frame_duration():
    assert EasySEDConfig().frame_duration_s == pytest.approx(0.04)
    assert EasySEDConfig(frame_stride=2).frame_duration_s == pytest.approx(0.02)


def test_number_of_exits():
    assert EasySEDConfig().kept_exits == 4
    assert EasySEDConfig(temporal_channels=0).kept_exits == 3
    assert EasySEDConfig(num_exits=2).kept_exits == 2
    assert EasySEDConfig(backbone="transformer").kept_exits == 3
    assert EasySEDConfig(backbone="ast", **AST_GEOMETRY).kept_exits == 4


def test_the_original_ast(tmp_path):
    config = EasySEDConfig(backbone="ast", **AST_GEOMETRY)
    assert (config.num_patch_rows, config.num_patch_columns) == (12, 101)
    assert config.frame_duration_s == pytest.approx(0.1)
    config.save_pretrained(tmp_path)
    assert EasySEDConfig.from_pretrained(tmp_path).padding_value == config.padding_value
    # a log-mel value of 0 under AudioSet's mean and twice its deviation
    assert config.padding_value == pytest.approx(4.2677393 / (2 * 4.5689974), abs=1e-5)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"backbone": "rnn"}, "backbone must be one of .*got 'rnn'"),
        ({"clip_pooling": "max"}, "clip_pooling must be one of .*got 'max'"),
        ({"frame_stride": 8}, "frame_stride must be 2 or 4 log-mel frames, got 8"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
        ({"distillation_weight": 1.5}, r"distillation_weight must be in \[0, 1\], got 1.5"),
        ({"distillation_temperature": 0.0}, "distillation_temperature must be > 0, got 0.0"),
        ({"stem_channels": 0}, "stem_channels must be at least 1, got 0"),
        ({"stage_channels": [8], "stage_depths": [1, 1]}, "stage_channels and stage_depths must have the same length"),
        ({"num_mel_bins": 40}, "num_mel_bins must be a multiple of 16 for 3 stages, got 40"),
        ({"window_s": 4.0, "context_s": 2.0}, "window_s must be more than twice context_s"),
        ({"hidden_size": 20, "num_attention_heads": 4}, "hidden_size must be a multiple of 2 x num_attention_heads=4"),
        (
            {"exit_layers": [3, 14]},
            r"increasing and between 1 and num_hidden_layers=6, got \[3, 14\]",
        ),
        ({"exit_layers": [3, 2]}, "exit_layers must be increasing"),
        ({"exit_layers": []}, "exit_layers must be increasing"),
        ({"num_exits": 5}, "num_exits must be between 1 and 4, got 5"),
    ],
)
def test_every_rule_has_an_error(values, message):
    with pytest.raises(ValueError, match=message):
        EasySEDConfig(**values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"patch_size": 0}, "patch_size must be between 1 and 128, .*got 0: AST_GEOMETRY"),
        ({"patch_size": 129}, "the smaller one of num_mel_bins=128 and max_length_frames=1024, got 129"),
        ({"frame_stride": 17}, "frame_stride must be between 1 and patch_size=16 .*leave no gap, got 17"),
        ({"frame_stride": 0}, "frame_stride must be between 1 and patch_size=16 .*got 0"),
        ({"frequency_stride": 17}, "frequency_stride must be between 1 and patch_size=16 .*got 17"),
        ({"num_attention_heads": 7}, "hidden_size must be a multiple of num_attention_heads=7, got 768"),
        ({"exit_hidden_size": 96}, "exit_hidden_size must be hidden_size=768 for backbone 'ast', .*got 96"),
        ({"exit_layers": [3, 6]}, r"exit_layers must end with num_hidden_layers=12 .*got \[3, 6\]"),
        ({"exit_layers": [6, 13]}, r"between 1 and num_hidden_layers=12, got \[6, 13\]"),
        ({"window_s": 10.24}, "window_s must be at most 10.2 s .*max_length_frames=1024, got 10.24"),
    ],
)
def test_every_rule_of_the_ast_has_an_error(values, message):
    with pytest.raises(ValueError, match=message) as caught:
        EasySEDConfig(backbone="ast", **{**AST_GEOMETRY, **values})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("num_stages", [-1, 4])
def test_more_stem_stages_than_stages(num_stages):
    with pytest.raises(ValueError, match="num_stem_stages must be between 0 and the 3 stages"):
        EasySEDConfig(backbone="transformer", num_stem_stages=num_stages)


def test_unknown_distillation_target():
    with pytest.raises(ValueError, match="distillation_target must be one of"):
        EasySEDConfig(distillation_target="shallowest")
