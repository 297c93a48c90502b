// Live: the microphone through an AudioWorklet and a WebSocket; lanes on a canvas, events in a table.
const WORKLET = `registerProcessor("blocks", class extends AudioWorkletProcessor {
  constructor() { super(); this.block = []; this.count = 0; }
  process(inputs) {
    const channel = inputs[0][0];
    if (channel) { this.block.push(channel.slice()); this.count += channel.length; }
    if (this.count >= sampleRate / 5) {
      const joined = new Float32Array(this.count);
      let at = 0;
      for (const one of this.block) { joined.set(one, at); at += one.length; }
      this.port.postMessage(joined, [joined.buffer]);
      this.block = []; this.count = 0;
    }
    return true;
  }
});`;
const SHOWN_S = 16;
const SYMBOLS = { accept: "✓", review: "?", reject: "✗" };
let live = null;

function liveText(text, isError = false) {
  const line = document.querySelector("#live-status");
  line.textContent = text;
  line.classList.toggle("refused", isError);
}

async function startLive() {
  const button = document.querySelector("#live-start");
  button.textContent = "Stop";
  document.querySelector("#live-told").replaceChildren();
  liveText("Opening the microphone …");
  document.querySelector("#live-soon").replaceChildren();
  const own = live = { lanes: new Map(), events: [], soon: [], time: 0, frame_s: 0.04, closing: false };
  try {
    own.stream = await navigator.mediaDevices.getUserMedia({ audio: true });
  } catch (error) {
    endLive(own);
    return liveText(`The microphone cannot be used (${error.name}): allow it in the browser, or upload a file.`, true);
  }
  own.context = new AudioContext();
  const address = URL.createObjectURL(new Blob([WORKLET], { type: "text/javascript" }));
  await own.context.audioWorklet.addModule(address);
  URL.revokeObjectURL(address);
  const url = new URL("live", document.baseURI);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  url.search = "";
  own.socket = new WebSocket(url);
  own.socket.onopen = () => {
    const [model, size] = document.querySelector("#live-model").value.split("|");
    own.socket.send(JSON.stringify({ rate: own.context.sampleRate, model, size }));
    own.node = new AudioWorkletNode(own.context, "blocks", { channelCount: 1, channelCountMode: "explicit" });
    own.node.port.onmessage = (message) => {
      own.begun ??= own.context.currentTime - message.data.length / own.context.sampleRate;
      if (own.socket.readyState === WebSocket.OPEN && !own.closing) own.socket.send(message.data);
    };
    own.context.createMediaStreamSource(own.stream).connect(own.node);
    requestAnimationFrame(() => drawLive(own));
  };
  own.socket.onmessage = (message) => hearLive(own, JSON.parse(message.data));
  own.socket.onclose = () => endLive(own);
}

function stopLive() {
  if (!live || live.closing) return;
  live.closing = true;
  if (live.socket?.readyState === WebSocket.OPEN) live.socket.send("stop");
  else endLive(live);
}

function endLive(own) {
  own.stream?.getTracks().forEach((track) => track.stop());
  if (own.context && own.context.state !== "closed") own.context.close();
  if (own.socket?.readyState === WebSocket.OPEN) own.socket.close();
  if (live !== own) return;
  live = null;
  const button = document.querySelector("#live-start");
  if (button) button.textContent = "Listen";
}

function hearLive(own, told) {
  if (told.error) return liveText(told.error, true);
  if (told.labels) {
    own.frame_s = told.frame_s;
    own.latency_s = told.latency_s;
  }
  if (told.time !== undefined) {
    own.time = told.time;
    own.at = performance.now();
  }
  if (told.line) keepLine(own, told.line);
  for (const event of told.events ?? []) {
    own.events.push(event);
    showLiveEvent("#live-told", event);
  }
  own.soon = told.soon ?? [];
  document.querySelector("#live-soon").replaceChildren();
  for (const event of own.soon) showLiveEvent("#live-soon", event);
  if (told.is_over) return liveText(`Over: ${own.events.length} events in ${own.time.toFixed(1)} s.`);
  const hears = (told.hears ?? []).map((one) => one.replaceAll("_", " ")).join(", ");
  liveText(`${own.time.toFixed(1)} s · hears ${hears || "nothing it knows"} · an event shows at once, and is final ` +
    `${(own.latency_s ?? 0).toFixed(1)} s after its sound has fallen silent`);
  // How far the picture is behind the microphone, seconds.
  const delay = own.begun === undefined ? 0 : own.context.currentTime - own.begun - own.time;
  document.querySelector("#live-canvas").dataset.delay = delay.toFixed(2);
}

function keepLine(own, { first, count, lanes }) {
  const oldest = Math.floor((own.time - SHOWN_S - 4) / own.frame_s);
  for (const label of new Set([...own.lanes.keys(), ...Object.keys(lanes)])) {
    if (!own.lanes.has(label)) own.lanes.set(label, new Map());
    const frames = own.lanes.get(label);
    for (let index = 0; index < count; index++) {
      const values = lanes[label];
      frames.set(first + index, values ? values.map((one) => one[index] / 100) : [0, 0, 0]);
    }
    for (const frame of frames.keys()) if (frame < oldest) frames.delete(frame);
  }
}

function showLiveEvent(body, event) {
  const row = document.querySelector(body).insertRow(0);
  const decision = event.decision ?? "unjudged";
  const confidence = event.confidence ?? event.score;
  const offset = event.sounds ? "now" : `${event.offset.toFixed(2)} s`;
  for (const text of [`${event.onset.toFixed(2)} – ${offset}`, event.label.replaceAll("_", " "),
    confidence.toFixed(2)]) row.insertCell().textContent = text;
  const mark = document.createElement("span");
  mark.className = `decision ${decision}`;
  mark.textContent = `${SYMBOLS[decision] ?? ""} ${decision}`;
  row.insertCell().append(mark);
  const stage = event.sounds === undefined ? [] : ["not final yet"];
  row.insertCell().textContent = [...stage, ...(event.reasons ?? [])].join("; ");
}

function drawLive(own) {
  const canvas = document.querySelector("#live-canvas");
  if (!canvas) return;
  const style = getComputedStyle(document.body);
  const colour = (name) => style.getPropertyValue(`--${name}`).trim();
  const near = (label) => [...own.lanes.get(label).values()].some(([middle]) => middle >= 0.2) ||
    own.events.some((event) => event.label === label && event.offset > own.time - SHOWN_S);
  const labels = [...own.lanes.keys()].filter(near).sort();
  const ratio = window.devicePixelRatio || 1;
  const width = canvas.clientWidth;
  const lane = 64;
  const height = Math.max(1, labels.length) * lane + 24;
  canvas.style.height = `${height}px`;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const g = canvas.getContext("2d");
  g.setTransform(ratio, 0, 0, ratio, 0, 0);
  g.clearRect(0, 0, width, height);
  g.font = "13px system-ui, sans-serif";
  // The newest sound is at the right edge; between two messages the picture glides on.
  const now = own.closing || !own.at ? own.time : own.time + Math.min(0.5, (performance.now() - own.at) / 1000);
  const across = (second) => width - (now - second) * (width / SHOWN_S);
  g.fillStyle = colour("muted");
  g.textAlign = "center";
  for (let second = Math.max(0, Math.ceil(now - SHOWN_S)); second <= now; second += 1) {
    if (second % 2 === 0) g.fillText(`${second} s`, across(second), height - 6);
  }
  labels.forEach((label, number) => drawLane(g, own, label, number * lane, { across, colour, width }));
  if (labels.length === 0) g.fillText("nothing it knows comes near sounding", width / 2, lane / 2);
  canvas.setAttribute("aria-label", `lanes of ${labels.join(", ").replaceAll("_", " ") || "no class"}`);
  if (live === own) requestAnimationFrame(() => drawLive(own));
}

function drawLane(g, own, label, top, { across, colour, width }) {
  const [ceiling, floor, bar] = [top + 6, top + 40, top + 44];
  const y = (probability) => floor - (floor - ceiling) * probability;
  g.strokeStyle = colour("line");
  g.strokeRect(0, ceiling, width, floor - ceiling);
  const frames = [...own.lanes.get(label).entries()].sort((a, b) => a[0] - b[0]);
  const line = (index) => frames.map(([frame, values]) => [across(frame * own.frame_s), y(values[index])]);
  const [middle, low, high] = [line(0), line(1), line(2)];
  g.beginPath();
  [...high, ...low.reverse()].forEach(([x, at], index) => (index === 0 ? g.moveTo(x, at) : g.lineTo(x, at)));
  g.fillStyle = colour("band");
  g.fill();
  g.beginPath();
  middle.forEach(([x, at], index) => (index === 0 ? g.moveTo(x, at) : g.lineTo(x, at)));
  g.strokeStyle = colour("curve");
  g.lineWidth = 1.5;
  g.stroke();
  g.lineWidth = 1;
  for (const event of [...own.events, ...own.soon].filter((one) => one.label === label)) {
    const [left, right] = [across(event.onset), across(event.offset)];
    if (right < 0) continue;
    const decision = event.decision ?? "unjudged";
    const fill = colour(`${decision}-fill`);
    g.globalAlpha = event.sounds === undefined ? 1 : 0.6;
    g.setLineDash(decision === "review" ? [4, 2] : []);
    g.fillStyle = fill;
    if (fill !== "transparent") g.fillRect(left, bar, right - left, 15);
    g.strokeStyle = colour(`${decision}-edge`);
    g.strokeRect(left, bar, right - left, 15);
    g.setLineDash([]);
    if (right - left > 50) {
      g.fillStyle = colour(`${decision}-ink`);
      const number = (event.confidence ?? event.score).toFixed(2);
      g.fillText(`${SYMBOLS[decision] ?? ""} ${number}`, (left + right) / 2, bar + 12);
    }
    g.globalAlpha = 1;
  }
  g.textAlign = "left";
  g.fillStyle = colour("ink");
  g.fillText(label.replaceAll("_", " "), 4, top + 18);
  g.textAlign = "center";
}

document.addEventListener("click", (event) => {
  if (!event.target.closest?.("#live-start")) return;
  if (live) stopLive();
  else startLive();
});
addEventListener("pagehide", stopLive);
