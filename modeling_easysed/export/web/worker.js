// All that takes time, beside the page: the network and what follows it.
import { Detector } from "./detector.js";
import { affordableStep, LiveSession } from "./live_session.js";
import { loadNetwork } from "./network.js";

const json = async (name) => (await fetch(new URL(name, import.meta.url))).json();
const ready = load();
let session = null;

async function load() {
  const [description, words] = await Promise.all(["easysed.json", "words.json"].map(json));
  const detector = new Detector(description, words, await loadNetwork(description));
  return { detector, step_s: await affordableStep(detector) };
}

const answers = {
  async load() {
    const { detector } = await ready;
    return { description: detector.description, words: detector.words };
  },
  async detect({ channels, rate, file }, onProgress) {
    return (await ready).detector.detect(channels, rate, file, onProgress);
  },
  async open({ rate }) {
    const { detector, step_s } = await ready;
    session = new LiveSession(detector, rate, step_s);
    return session.about;
  },
  hear: ({ block }) => session.hear(block),
  close: () => session.close(),
};

onmessage = async ({ data: { id, name, values } }) => {
  try {
    const result = await answers[name](values, (done, total) => postMessage({ id, done, total }));
    postMessage({ id, result });
  } catch (error) {
    postMessage({ id, error: error.message ?? String(error) });
  }
};
