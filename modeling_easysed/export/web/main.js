// The page: a recording or the microphone, and what the network says of it. All work is done in the worker.
import { ask } from "./client.js";
import { decisionMark, element } from "./elements.js";
import { decodeFile } from "./files.js";
import { tidy } from "./lanes.js";
import { Live } from "./live.js";
import { resultSection } from "./result.js";

const [field, listen, main, line, about] = ["#file", "#listen", "#main", "#status", "#about"].map((name) =>
  document.querySelector(name),
);
let live = null;
let words = null;
let model = "";

function say(text, isError = false) {
  line.textContent = text;
  line.classList.toggle("refused", isError);
}

async function load() {
  say("Loading the network …");
  const loaded = await ask("load");
  words = loaded.words;
  const { model: own, labels } = loaded.description;
  model = `${own.name}, exit ${own.exit}`;
  const size = `${(own.parameters / 1e6).toFixed(2)} M parameters, licence ${own.license ?? "unknown"}`;
  about.textContent = `${model} of ${own.num_exits}, ${size}. It knows: ${labels.map(tidy).join(", ")}.`;
  document.querySelector("#marks").replaceChildren(...marks());
  field.disabled = listen.disabled = false;
  say("Ready.");
}

// What the decisions mean, with their marks.
function marks() {
  const decisions = Object.keys(words.decisions).filter((name) => name !== "unjudged");
  return decisions.map((name) => element("li", {}, decisionMark(name, words), ` ${words.decisions[name].meaning}`));
}

async function open(file) {
  await stop();
  main.replaceChildren();
  say(`Listening to ${file.name} …`);
  try {
    const { channels, rate } = await decodeFile(file);
    const begun = performance.now();
    const onProgress = (done, total) => say(`Listening to ${file.name}: ${Math.round((100 * done) / total)} %`);
    const answer = await ask("detect", { channels, rate, file: file.name }, { onProgress });
    const seconds = (performance.now() - begun) / 1000;
    main.replaceChildren(resultSection({ ...answer, seconds, sound: file, words, model }));
    say("");
  } catch (error) {
    say(
      error.name === "EncodingError"
        ? `${file.name} is no sound that this browser can read: check that it plays, or convert it to WAV.`
        : error.message,
      true,
    );
  }
}

async function stop() {
  if (live === null) return;
  const own = live;
  live = null;
  listen.textContent = "Listen";
  try {
    await own.stop();
  } catch (error) {
    say(error.message, true);
  }
}

async function toggle() {
  if (live !== null) return stop();
  listen.textContent = "Stop";
  main.replaceChildren();
  const own = (live = new Live(main.appendChild(document.createElement("section")), say, words));
  own.place.className = "recording listening";
  own.place.setAttribute("aria-label", "live");
  try {
    await own.start();
  } catch (error) {
    own.isOpen = false;
    own.release();
    if (live === own) live = null;
    listen.textContent = "Listen";
    say(error.message, true);
  }
}

field.addEventListener("change", () => {
  if (field.files.length > 0) open(field.files[0]);
  field.value = ""; // so that the same file can be opened again
});
listen.addEventListener("click", toggle);
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  const [file] = event.dataTransfer.files;
  if (file !== undefined && !field.disabled) open(file);
});
addEventListener("pagehide", () => live?.release());

async function keepOffline() {
  const state = document.querySelector("#offline");
  if (!navigator.serviceWorker) {
    state.textContent = "Works without a network only where it is opened by https or from localhost.";
    return;
  }
  await navigator.serviceWorker.register("sw.js");
  await navigator.serviceWorker.ready;
  state.textContent = "Kept on this device: works without a network, and can be installed from the browser's menu.";
  document.documentElement.dataset.offline = "ready";
}

load().catch((error) => say(`The network cannot be loaded: ${error.message}`, true));
keepOffline().catch((error) => {
  document.querySelector("#offline").textContent = `Not kept offline: ${error.message}`;
});
