"""The microphone, live: blocks of samples come through a WebSocket, events and a moving band go back.

    visitor: {"rate": 48000, "model": ..., "size": ...}, then float32 blocks
    server:  {"latency_s": ..., "labels": [...]}, then {"time", "line", "events", "soon", "hears"} after every block

Events come from an `EventStream`, each once, when it is over and enough is known. The line and the events to come
("soon") are ahead of it: the last seconds are heard again with every block, their end without knowledge of what
follows, so both may still change."""

import asyncio
import json
import math
import threading
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from fastapi import FastAPI, WebSocket, WebSocketDisconnect

from modeling_easysed.app.analysis import RefusedError, Settings, make_settings
from modeling_easysed.app.catalogue import Entry
from modeling_easysed.audio_easysed import resampler_of_blocks
from modeling_easysed.detection_easysed import Event
from modeling_easysed.evidence_easysed import find_candidates
from modeling_easysed.recording_easysed import (
    FrameLine,
    RecordingSamples,
    frame_line,
    mean_probabilities,
    sample_recording,
    window_sizes,
)
from modeling_easysed.stream_easysed import EventStream

MAX_SESSIONS, MAX_SECONDS = 4, 600.0
MAX_BLOCK_BYTES = 4 * 48000 * 5  # five seconds
HEARD_AGAIN_S = 6.0  # for the line
SENT_S = 3.4  # of it, its end; what is older does not change any more
STEP_S = 0.5  # between windows of the stream: events come sooner, for more work
BAND_DEVIATIONS = 1.645  # as in the picture
HEARS = 0.5
SOUNDS_S = 0.3  # an event that ended less than so long ago still sounds


class LiveSession:
    """One microphone.

    Args:
        entry, settings: what listens, and how.
        rate: Hz of the blocks.

    Raises:
        RefusedError: for a rate or settings that cannot be used.
    """

    def __init__(self, entry: Entry, settings: Settings, rate: int) -> None:
        self.entry, self.settings = entry, settings
        self.pipe = entry.pipe
        self.rate = self.pipe.feature_extractor.sampling_rate
        hop_s = self.pipe.feature_extractor.hop_length_samples / self.rate
        longest, context = window_sizes(self.pipe.model)
        window_s = min(longest * hop_s, 2 * context * hop_s + STEP_S)
        goal = {name: value for name, value in vars(settings.goal).items() if value is not None}
        try:
            self.stream = EventStream(
                self.pipe,
                rate,
                exit=None if settings.exit == "auto" else settings.exit,
                uncertainty=settings.uncertainty,
                passes=settings.passes,
                shifts=settings.shifts,
                window_s=window_s,
                **goal,
            )
        except ValueError as error:
            raise RefusedError(str(error)) from error
        self.resampler = resampler_of_blocks(rate, self.rate)
        self.recent, self.first = np.zeros(0, np.float32), 0  # and the number of its first sample
        self.frame_samples = self.pipe.feature_extractor.hop_length_samples * self.pipe.model.config.frame_stride
        self.judge = self.pipe.judge(settings.exit, settings.sampling, 0, settings.goal)
        self.told: list[Event] = []

    @property
    def labels(self) -> list[str]:
        config = self.pipe.model.config
        return [config.id2label[index] for index in range(config.num_labels)]

    def hear(self, block: np.ndarray, with_line: bool = True) -> dict[str, Any]:
        """The next samples (samples,); returns what is told."""
        events = self.stream.push(block)
        self._remember(block)
        heard_from = self.first / self.rate
        self.told = [one for one in self.told + events if one.offset > heard_from]
        told: dict[str, Any] = {"time": round(self.stream.duration, 3), "events": [one.to_dict() for one in events]}
        if with_line and len(self.recent) >= self.rate // 2:
            told |= self._line()
        return told

    def close(self) -> dict[str, Any]:
        """The microphone is off."""
        return {"time": round(self.stream.duration, 3), "events": [event.to_dict() for event in self.stream.close()]}

    def _remember(self, block: np.ndarray) -> None:
        """Keeps the last seconds at the model's rate, from a frame's beginning on."""
        samples = block if self.resampler is None else self.resampler.resample_chunk(block)
        self.recent = np.concatenate([self.recent, samples.astype(np.float32)])
        too_many = len(self.recent) - round(HEARD_AGAIN_S * self.rate)
        if too_many > 0:
            cut = -(-too_many // self.frame_samples) * self.frame_samples
            self.recent, self.first = self.recent[cut:], self.first + cut

    def _line(self) -> dict[str, Any]:
        """Probability and band of every class over the last seconds, in hundredths, what is heard now, what is soon."""
        pipe, exit = self.pipe, self.settings.exit
        number = None if exit == "auto" else exit
        extractor = pipe.feature_extractor
        recording = sample_recording(pipe.model, extractor, self.recent, self.settings.sampling, 0, exit_index=number)
        temperatures = None if pipe.calibration is None else pipe.calibration.temperatures(recording.frame_exits)
        raw, line = mean_probabilities(recording), frame_line(recording, temperatures)
        num_sent = min(len(line.probabilities), round(SENT_S * self.rate / self.frame_samples))
        middle, reach = line.probabilities[-num_sent:], BAND_DEVIATIONS * line.spread[-num_sent:]
        shown = np.flatnonzero(middle.max(axis=0) >= 0.02)
        lanes = {
            self.labels[index]: [
                _hundredths(one[:, index])
                for one in (middle, np.clip(middle - reach, 0, 1), np.clip(middle + reach, 0, 1))
            ]
            for index in shown
        }
        first_frame = self.first // self.frame_samples + len(line.probabilities) - num_sent
        now = middle[-round(0.4 * self.rate / self.frame_samples) :].max(axis=0)
        return {
            "line": {"first": first_frame, "count": num_sent, "lanes": lanes},
            "hears": [self.labels[index] for index in np.argsort(-now) if now[index] >= HEARS],
            "soon": self._soon(recording, raw, line),
        }

    def _soon(self, recording: RecordingSamples, raw: np.ndarray, line: FrameLine) -> list[dict[str, Any]]:
        """Events of the last seconds as they stand now, without those that were told and those not believed."""
        pipe, duration = self.pipe, len(self.recent) / self.rate
        decoding, floor = pipe.decoding(self.settings.exit), self.judge.floor
        found = find_candidates(recording, raw, line, decoding, duration, floor, pipe.feature_extractor)
        soon = []
        for event in self.judge.events(found, [], math.inf):
            own = event.to_dict()
            onset, offset = (event.onset + self.first / self.rate, event.offset + self.first / self.rate)
            is_told = any(one.label == event.label and one.onset < offset and onset < one.offset for one in self.told)
            if not is_told and event.decision != "reject":
                sounds = event.offset > duration - SOUNDS_S
                soon.append({**own, "onset": round(onset, 3), "offset": round(offset, 3), "sounds": sounds})
        return soon


def _hundredths(values: np.ndarray) -> list[int]:
    return np.round(100 * values).astype(int).tolist()


# ---- the WebSocket ---------------------------------------------------------------------------------------------------


@dataclass
class _Places:
    """How many microphones are open."""

    taken: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self) -> bool:
        with self.lock:
            if self.taken >= MAX_SESSIONS:
                return False
            self.taken += 1
            return True

    def leave(self) -> None:
        with self.lock:
            self.taken -= 1


def add_live(app: FastAPI, catalogue: dict[str, Entry]) -> None:
    """Adds the WebSocket /live."""
    places = _Places()

    @app.websocket("/live")
    async def live(socket: WebSocket) -> None:
        await socket.accept()
        if not places.take():
            await socket.send_json({"error": f"{MAX_SESSIONS} microphones are open already: try again in a minute"})
            await socket.close()
            return
        try:
            session = await asyncio.to_thread(_open, catalogue, await socket.receive_text())
            await _talk(socket, session)
        except RefusedError as error:
            await socket.send_json({"error": str(error)})
            await socket.close()
        except (WebSocketDisconnect, RuntimeError):  # RuntimeError: sent to one who had left
            pass
        finally:
            places.leave()


def _open(catalogue: dict[str, Entry], text: str) -> LiveSession:
    try:
        asked = json.loads(text)
        entry, rate = catalogue[asked.get("model", next(iter(catalogue)))], int(asked["rate"])
        size = str(asked.get("size", "auto"))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise RefusedError('live needs a first message like {"rate": 48000, "model": "easysed-cnn"}') from None
    settings = make_settings(entry, size, "mc", 20, 0, "default", None)
    return LiveSession(entry, settings, rate)


async def _talk(socket: WebSocket, session: LiveSession) -> None:
    """Blocks in, news out. Blocks that came while the last ones were heard are heard together."""
    frame_s = session.frame_samples / session.rate
    about = {"latency_s": round(session.stream.latency_s, 2), "frame_s": frame_s, "labels": session.labels}
    await socket.send_json({**about, "warnings": session.stream.warnings})
    waiting: asyncio.Queue[np.ndarray | None] = asyncio.Queue()
    reader = asyncio.create_task(_read(socket, waiting))
    try:
        while True:
            blocks = [await waiting.get()]
            while not waiting.empty():
                blocks.append(waiting.get_nowait())
            samples = [block for block in blocks if block is not None]
            if samples:
                await socket.send_json(await asyncio.to_thread(session.hear, np.concatenate(samples)))
            if len(samples) < len(blocks) or session.stream.duration > MAX_SECONDS:
                await socket.send_json({**await asyncio.to_thread(session.close), "is_over": True})
                await socket.close()
                return
    finally:
        reader.cancel()


async def _read(socket: WebSocket, waiting: asyncio.Queue) -> None:
    """Puts blocks into the queue, and None when the visitor stops or leaves."""
    num_samples = 0
    try:
        while True:
            message = await socket.receive()
            content = message.get("bytes")
            if not content or len(content) > MAX_BLOCK_BYTES or len(content) % 4 != 0:
                break  # a text: stop; anything else has no place here
            block = np.frombuffer(content, "<f4")
            num_samples += len(block)
            await waiting.put(np.nan_to_num(block, nan=0.0, posinf=0.0, neginf=0.0))
    except (WebSocketDisconnect, RuntimeError):
        pass
    await waiting.put(None)


__all__ = ["LiveSession", "add_live"]
