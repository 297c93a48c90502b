"""`easysed detect ... --report FILE.html`: one page for people, with everything inside, the most doubtful first.

The page is the template `report.html` with markers in place of what is told: the parts of the recordings (see
report_part) are copied into it one after the other, so that memory does not grow with their number."""

import base64
import hashlib
import html
import importlib.resources
import importlib.util
import json
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from modeling_easysed.cli.errors import CommandError
from modeling_easysed.palette_easysed import DECISIONS, css_variables, duration_text, tidy_label

PARTS = ".easysed-report"  # in an --out folder
SUFFIXES = (".html", ".htm")
MARKER = re.compile(rb"@@([A-Z]+)@@")
DOUBT_JUDGED = (
    "Doubt is the expected number of wrong events among the accepted ones (the sum of 1 − confidence) plus the number "
    "of events for review. Rejected events do not count, and no number tells of sounds that were missed."
)
DOUBT_UNJUDGED = (
    "This checkpoint has no calibration: doubt is the sum of 1 − score over the events, which orders the recordings "
    "but is no expected number of errors."
)


def check_report(name: str) -> None:
    """Finds what would fail after hours of work.

    Raises:
        CommandError: a name that is no HTML file in a folder that is there, no matplotlib, no MP3 encoder.
    """
    path = Path(name).expanduser()
    if path.suffix.lower() not in SUFFIXES or path.is_dir():
        raise CommandError(f"--report {name}: the name must end in one of {', '.join(SUFFIXES)}")
    if not path.absolute().parent.is_dir():
        raise CommandError(f"--report {name}: its folder does not exist, create it first")
    if importlib.util.find_spec("matplotlib") is None:
        raise CommandError("--report needs matplotlib: pip install 'easysed[plot]'")
    import soundfile

    if "MP3" not in soundfile.available_formats():
        raise CommandError("--report needs libsndfile 1.1 or later, to write MP3: pip install --upgrade soundfile")


@dataclass
class Totals:
    """Sums over all recordings; nothing of a single one."""

    num_recordings: int = 0
    duration_s: float = 0.0
    wrong: float = 0.0
    counts: dict[str, int] = field(default_factory=dict)
    labels: set[str] = field(default_factory=set)
    decision_rule: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)  # about the model or the goal: the same for all

    def add(self, head: dict[str, Any]) -> None:
        """The head of one part."""
        self.num_recordings += 1
        self.duration_s += head["duration"]
        self.wrong += head["wrong"]
        for name, count in head["counts"].items():
            self.counts[name] = self.counts.get(name, 0) + count
        self.labels.update(head["labels"])
        self.decision_rule = self.decision_rule or head["decision_rule"]
        self.warnings += [one for one in head["warnings"] if one not in self.warnings]

    @property
    def is_judged(self) -> bool:
        return self.counts.get("", 0) == 0


def write_report(path: Path, parts: Iterable[Path], receipt: dict[str, Any], failures: Sequence[str]) -> None:
    """Puts the parts together; the file is whole or not touched.

    Args:
        path: the page.
        parts: files that `write_part` made, in any order.
        receipt: of the run.
        failures: one line for every input that could not be done.

    Raises:
        CommandError: when it cannot be written.
    """
    from modeling_easysed.formats.files import replacing

    totals, order = Totals(), []
    for part in parts:
        head = read_head(part)
        totals.add(head)
        order.append((-head["doubt"], head["file"], part))
    order.sort()
    sorted_parts = [part for _, _, part in order]
    try:
        with replacing(path, binary=True) as stream:
            _fill(stream, totals, sorted_parts, receipt, sorted(failures))
    except OSError as error:
        raise CommandError(f"--report {path} cannot be written: {error.strerror}") from error


def escaped(text: str) -> str:
    """User data as text of HTML or as an attribute in double or single quotes."""
    return html.escape(text, quote=True)


def read_head(part: Path) -> dict[str, Any]:
    """The first line of a part."""
    with part.open("rb") as stream:
        return json.loads(stream.readline())


def _fill(
    stream: BinaryIO, totals: Totals, parts: Sequence[Path], receipt: dict[str, Any], failures: Sequence[str]
) -> None:
    """Writes the template, and in place of each marker what it stands for; what is put in is not searched for more."""
    here = importlib.resources.files("modeling_easysed.cli")
    template = (here / "report.html").read_bytes().replace(b"@@LISTEN@@", (here / "recording.js").read_bytes())
    texts = {
        b"POLICY": lambda: [_policy(template)],
        b"COLOURS": lambda: [css_variables()],
        b"STYLE": lambda: [(here / "recording.css").read_text(encoding="utf-8")],
        b"TOTALS": lambda: _totals(totals, len(failures)),
        b"DOUBT": lambda: [DOUBT_JUDGED if totals.is_judged else DOUBT_UNJUDGED],
        b"RULE": lambda: (f"<li>{escaped(one)}</li>" for one in totals.decision_rule),
        b"WARNINGS": lambda: (f"<li>{escaped(one)}</li>" for one in totals.warnings),
        b"RECEIPT": lambda: (
            f"<div><dt>{escaped(name)}</dt><dd>{escaped(_value(value))}</dd></div>" for name, value in receipt.items()
        ),
        b"SOUND": lambda: [_sound_note()],
        b"DECISIONS": lambda: _decision_boxes(totals),
        b"CLASSES": lambda: (
            f'<option value="{escaped(one)}">{escaped(tidy_label(one))}</option>' for one in sorted(totals.labels)
        ),
        b"FAILURES": lambda: _failures(failures),
        b"INDEX": lambda: _index(parts),
    }
    position = 0
    for marker in MARKER.finditer(template):
        stream.write(template[position : marker.start()])
        position = marker.end()
        if marker[1] == b"SECTIONS":
            _copy_sections(stream, parts)
            continue
        for text in texts[marker[1]]():
            stream.write(text.encode("utf-8", "backslashreplace"))
    stream.write(template[position:])


def _copy_sections(stream: BinaryIO, parts: Sequence[Path]) -> None:
    for part in parts:
        with part.open("rb") as source:
            source.readline()
            shutil.copyfileobj(source, stream)


def _policy(template: bytes) -> str:
    """What a browser may do with the page: nothing from outside, no script but its own, whatever a file is called."""
    script = template[template.index(b"<script>") + len(b"<script>") : template.index(b"</script>")]
    digest = base64.b64encode(hashlib.sha256(script).digest()).decode("ascii")
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:; "
        "media-src data:; base-uri 'none'; form-action 'none'"
    )


def _totals(totals: Totals, num_failures: int) -> Iterator[str]:
    rows = [("recordings", str(totals.num_recordings)), ("sound", duration_text(totals.duration_s))]
    names = ("accept", "review", "reject") if totals.is_judged else ("",)
    words = {"accept": "accepted", "review": "for review", "reject": "rejected", "": "events"}
    rows += [(words[name], str(totals.counts.get(name, 0))) for name in names]
    if totals.is_judged:
        rows.append(("expected wrong among the accepted", f"{totals.wrong:.2f}"))
    if num_failures > 0:
        rows.append(("failed", str(num_failures)))
    return (f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in rows)


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {item}" for name, item in value.items()) or "default"
    return "none" if value is None else str(value)


def _sound_note() -> str:
    from modeling_easysed.cli.report_part import BUDGET_S, EVENT_S, SOUND_KBITS, SOUND_RATE, WHOLE_S

    return (
        f"Sound is embedded as mono MP3 at {SOUND_RATE // 1000} kHz and {SOUND_KBITS} kbit/s: whole recordings up to "
        f"{WHOLE_S:g} s; of longer ones up to {BUDGET_S:g} s around events, the most doubtful first, and of an event "
        f"at most its first {EVENT_S:g} s."
    )


def _decision_boxes(totals: Totals) -> Iterator[str]:
    for name in ("accept", "review", "reject") if totals.is_judged else ():
        look = DECISIONS[name]
        yield (
            f'<label><input type="checkbox" name="decision" value="{name}" checked> <span class="decision {name}">'
            f'<span aria-hidden="true">{look.symbol}</span> {look.word}</span> {look.meaning}</label>'
        )


def _failures(failures: Sequence[str]) -> list[str]:
    if not failures:
        return []
    items = "".join(f"<li>{escaped(one)}</li>" for one in failures)
    return [f'<section class="failures"><h2>Failed inputs</h2><ul>{items}</ul></section>']


def _index(parts: Sequence[Path]) -> Iterator[str]:
    """One row for every recording, in the order of the page."""
    for part in parts:
        head = read_head(part)
        counts = head["counts"]
        total = sum(counts.values())
        yield (
            f'<tr><th scope="row"><a href="#{head["id"]}">{escaped(head["file"])}</a></th><td>{head["doubt"]:.2f}</td>'
            f"<td>{total}</td><td>{counts['review']}</td></tr>"
        )


__all__ = ["PARTS", "check_report", "escaped", "write_report"]
