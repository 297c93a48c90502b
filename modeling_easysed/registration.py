"""Tells transformers about EasySED: Auto classes and the task "sound-event-detection"."""

import functools


@functools.cache
def register() -> None:
    """Registers configuration, models, feature extractor and pipeline, once per process."""
    from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoModelForAudioClassification
    from transformers.pipelines import PIPELINE_REGISTRY

    from modeling_easysed.configuration_easysed import EasySEDConfig
    from modeling_easysed.feature_extraction_easysed import EasySEDFeatureExtractor
    from modeling_easysed.modeling_easysed import EasySEDForSoundEventDetection, EasySEDModel
    from modeling_easysed.pipeline_easysed import SoundEventDetectionPipeline

    AutoConfig.register(EasySEDConfig.model_type, EasySEDConfig, exist_ok=True)
    AutoFeatureExtractor.register(EasySEDConfig, EasySEDFeatureExtractor, exist_ok=True)
    AutoModel.register(EasySEDConfig, EasySEDModel, exist_ok=True)
    AutoModelForAudioClassification.register(EasySEDConfig, EasySEDForSoundEventDetection, exist_ok=True)
    PIPELINE_REGISTRY.register_pipeline(
        "sound-event-detection",
        pipeline_class=SoundEventDetectionPipeline,
        pt_model=(AutoModelForAudioClassification,),
        type="audio",
    )
