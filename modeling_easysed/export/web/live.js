// The microphone: blocks to the worker, lanes on a canvas, events in a table as they end.
import { ask } from "./client.js";
import { element } from "./elements.js";
import { AXIS, drawAxis, drawLane, LANE, prepare, shownClasses, SMALL, tidy } from "./lanes.js";
import { joinArrays } from "./numbers.js";
import { downloads, eventRow, eventTable } from "./result.js";

const SHOWN_S = 16;
const PLAIN = { echoCancellation: false, noiseSuppression: false, autoGainControl: false }; // made for speech alone
const PRELIMINARY = "preliminary: its class has not fallen silent yet";
const GLIDE_S = 0.5; // the picture glides on between two answers

// One microphone at a time. `place`: the element that it fills; `say(text, isError)`; `words`: see words.json.
export class Live {
  constructor(place, say, words) {
    Object.assign(this, {
      place,
      say,
      words,
      blocks: [],
      frames: new Map(),
      events: [],
      provisional: [],
      time: 0,
      isOpen: true,
      isBusy: false,
    });
    this.canvas = element("canvas", { class: "live-canvas", role: "img" });
    this.table = eventTable({ events: [], duration: 0, file: "the microphone" }, words, false);
    this.table.hidden = true;
    this.clock = element("p", { class: "clock" }); // changes all the time: nothing for a screen reader to say
    this.note = element("p", { class: "note" });
    place.replaceChildren(this.clock, this.canvas, this.note, this.table);
  }

  async start() {
    this.say("Opening the microphone …");
    if (!navigator.mediaDevices?.getUserMedia)
      throw new Error("The microphone needs https or localhost: open the page there.");
    try {
      this.stream = await navigator.mediaDevices.getUserMedia({ audio: PLAIN });
    } catch (error) {
      throw new Error(`The microphone cannot be used (${error.name}): allow it in the browser, or open a file.`);
    }
    if (!this.isOpen) return this.release(); // stopped while the browser asked
    this.context = new AudioContext({ latencyHint: "interactive" });
    await this.context.audioWorklet.addModule(new URL("./worklet.js", import.meta.url));
    this.about = await ask("open", { rate: this.context.sampleRate });
    if (!this.isOpen) return;
    const { latency_s, context_s } = this.about;
    const context = context_s.toFixed(0);
    this.note.textContent =
      `The network hears ${context} s of what follows before it is sure: so long the curves may still move, and ` +
      `events are preliminary. They are final at most ${latency_s.toFixed(1)} s after their class has fallen silent.`;
    this.node = new AudioWorkletNode(this.context, "blocks", { numberOfOutputs: 0 });
    this.node.port.onmessage = ({ data }) => this.take(data);
    this.context.createMediaStreamSource(this.stream).connect(this.node);
    await this.context.resume();
    this.say("Listening.");
    requestAnimationFrame(() => this.draw());
  }

  // Blocks that come while the last ones are heard are heard together.
  async take(block) {
    this.begun ??= this.context.currentTime - block.length / this.context.sampleRate;
    this.blocks.push(block);
    if (this.isBusy || !this.isOpen) return;
    this.isBusy = true;
    while (this.blocks.length > 0 && this.isOpen) {
      const joined = joinArrays(this.blocks.splice(0));
      try {
        this.show(await ask("hear", { block: joined }, { transfer: [joined.buffer] }));
      } catch (error) {
        this.say(error.message, true);
        this.isOpen = false;
        this.release();
      }
    }
    this.isBusy = false;
    this.whenIdle?.();
  }

  // Resolves when all is told.
  async stop() {
    if (!this.isOpen) return;
    this.isOpen = false;
    this.release();
    if (this.isBusy)
      await new Promise((resolve) => {
        this.whenIdle = resolve;
      });
    if (this.about === undefined) return;
    if (this.blocks.length > 0) this.show(await ask("hear", { block: joinArrays(this.blocks.splice(0)) }));
    const { detection, ...told } = await ask("close");
    this.show(told);
    this.say(`Over: ${this.events.length} event${this.events.length === 1 ? "" : "s"} in ${this.time.toFixed(1)} s.`);
    this.place.append(downloads(detection, "microphone"));
    new ResizeObserver(() => this.draw()).observe(this.canvas);
  }

  release() {
    for (const track of this.stream?.getTracks() ?? []) track.stop();
    this.node?.port.close();
    if (this.context?.state !== "closed") this.context?.close();
  }

  show({ time, events, provisional, line, hears }) {
    this.time = time;
    this.at = performance.now();
    if (line !== undefined) this.keep(line);
    if (provisional !== undefined || events.length > 0) this.tell(events, provisional ?? []);
    if (hears === undefined) return;
    const delay = this.context.currentTime - this.begun - this.time;
    this.canvas.dataset.delay = delay.toFixed(2);
    const named = hears.map((index) => tidy(this.about.labels[index])).join(", ");
    const hearing = named || "nothing it knows";
    this.clock.textContent = `${time.toFixed(1)} s · hears ${hearing} · ${delay.toFixed(1)} s behind the microphone`;
  }

  // Final events stay in the table; above them stand those that may still change.
  tell(events, provisional) {
    const [body] = this.table.tBodies;
    for (const row of body.querySelectorAll(".provisional")) row.remove();
    for (const event of events) body.prepend(eventRow(event, 0, this.words, false));
    this.events.push(...events);
    const named = events.map(
      (one) => `${tidy(one.label)} at ${one.onset.toFixed(1)} s, ${one.decision ?? "not judged"}`,
    );
    if (named.length > 0 && this.isOpen) this.say(`Heard: ${named.join("; ")}.`);
    this.provisional = provisional.map((event) => ({
      ...event,
      isProvisional: true,
      reasons: [PRELIMINARY, ...(event.reasons ?? [])],
    }));
    for (const event of this.provisional) {
      const row = eventRow(event, 0, this.words, false);
      row.classList.add("provisional");
      body.prepend(row);
    }
    this.table.hidden = body.rows.length === 0;
  }

  keep({ first, count, probabilities, spread }) {
    const numClasses = probabilities.length / count;
    for (let at = 0; at < count; at++) {
      const cut = (table) => table.subarray(at * numClasses, (at + 1) * numClasses);
      this.frames.set(first + at, [cut(probabilities), cut(spread)]);
    }
    const oldest = (this.time - SHOWN_S - 4) / this.about.frame_s;
    for (const frame of this.frames.keys()) if (frame < oldest) this.frames.delete(frame);
  }

  // The newest sound is at the right edge.
  draw() {
    const { labels, frame_s } = this.about;
    const now = this.isOpen
      ? this.time + Math.min(GLIDE_S, (performance.now() - (this.at ?? performance.now())) / 1000)
      : this.time;
    const frames = [...this.frames].sort((a, b) => a[0] - b[0]);
    const peaks = labels.map((_, index) => frames.reduce((peak, [, [values]]) => Math.max(peak, values[index]), 0));
    const recent = [...this.events, ...this.provisional].filter((event) => event.offset > now - SHOWN_S);
    const chosen = shownClasses(
      peaks,
      labels.map((label) => recent.some((event) => event.label === label)),
    );
    const bottom = Math.max(1, chosen.length) * LANE;
    const { g, width, colour } = prepare(this.canvas, bottom + AXIS);
    const look = {
      g,
      width,
      colour,
      words: this.words,
      across: (second) => width - (now - second) * (width / SHOWN_S),
    };
    chosen.forEach((index, number) => {
      const points = frames.map(([frame, [values, spread]]) => [frame * frame_s, values[index], spread[index]]);
      drawLane(
        look,
        tidy(labels[index]),
        number * LANE,
        points,
        recent.filter((event) => event.label === labels[index]),
      );
    });
    if (chosen.length === 0) {
      g.font = SMALL;
      g.fillStyle = colour("muted");
      g.textAlign = "center";
      g.fillText("nothing it knows comes near sounding", width / 2, LANE / 2);
    }
    drawAxis(look, Math.max(0, now - SHOWN_S), now, bottom + 15);
    const said = `lanes of ${chosen.map((index) => tidy(labels[index])).join(", ") || "no class"}`;
    if (this.canvas.getAttribute("aria-label") !== said) this.canvas.setAttribute("aria-label", said);
    if (this.isOpen) requestAnimationFrame(() => this.draw());
  }
}
