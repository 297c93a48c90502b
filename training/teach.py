"""Let trained checkpoints say what they hear in every training sample: soft targets for any number of students.

    python training/teach.py --config training/configs/cnn.yaml --sample_seed 7 --steps 2500 \\
        --teachers runs/cnn-0/model runs/transformer-0/model --out runs/targets
    accelerate launch training/train.py --config training/configs/cnn.yaml --sample_seed 7 --steps 2500 \\
        --soft_targets runs/targets

Both commands must name the same samples, best some that no teacher was trained on. A killed run goes on where it was;
about 5 kB a sample."""

import argparse
import sys
from pathlib import Path

import torch
from batches import TrainingBatches, fit_feature_extractor, prepared_ahead, read_sounds
from precision import has_bf16
from settings import Settings, load_settings
from soft_targets import SoftTargetWriter, samples_of
from teachers import Teachers
from tqdm import tqdm

from modeling_easysed import EasySEDConfig

FLUSH_EVERY = 50  # batches


def teach(settings: Settings, names: list[str], out: Path) -> int:
    """Writes soft targets of all samples of a run; returns how many.

    Raises:
        ValueError: when a teacher does not fit, or `out` holds other targets; OSError: when there is no such teacher.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if settings.num_threads is not None:
        torch.set_num_threads(settings.num_threads)
    sounds, _ = read_sounds(settings)
    extractor = fit_feature_extractor(settings, sounds)
    config = EasySEDConfig(**settings.model, id2label=dict(enumerate(sounds.labels)))
    teachers = Teachers(names, extractor, config).to(device)
    batches = TrainingBatches(sounds, extractor, config, settings)
    num_frames = len(batches.sample(0)["frame_labels"])
    about = {"samples": samples_of(settings, config), "teachers": teachers.provenance}
    num_samples = settings.steps * settings.batch_size
    writer = SoftTargetWriter(out, about, num_samples, num_frames, config.num_labels)
    first = writer.done // settings.batch_size
    writer.done = first * settings.batch_size  # whole batches, whatever their size was before
    todo = prepared_ahead(batches, first)
    with torch.autocast(device.type, torch.bfloat16, enabled=has_bf16(device)):
        for index, batch in enumerate(tqdm(todo, total=settings.steps, initial=first, disable=None)):
            logits, frame_logits = teachers(batch["input_values"].to(device))
            writer.add(logits.cpu(), frame_logits.cpu())
            if index % FLUSH_EVERY == FLUSH_EVERY - 1:
                writer.flush()
    writer.flush()
    return writer.done


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--teachers", nargs="+", required=True, metavar="MODEL", help="bundled names, folders, Hub ids")
    parser.add_argument("--out", type=Path, required=True, help="folder for the soft targets")
    arguments, rest = parser.parse_known_args(argv)
    try:
        settings, _ = load_settings(rest)
        done = teach(settings, arguments.teachers, arguments.out)
    except (ValueError, OSError) as error:
        print(f"teach.py: error: {error}", file=sys.stderr)
        return 2
    print(f"soft targets of {done} samples in {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
