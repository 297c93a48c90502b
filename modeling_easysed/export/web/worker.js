// All that takes time, beside the page: the network and what follows it.
import { Detector } from "./detector.js";
import { loadNetwork } from "./network.js";

const json = async (name) => (await fetch(new URL(name, import.meta.url))).json();
const ready = load();

async function load() {
  const [description, words] = await Promise.all(["easysed.json", "words.json"].map(json));
  const detector = new Detector(description, words, await loadNetwork(description));
  await detector.run(new Float32Array(detector.rate), new Float32Array(2 * description.audio.edge_samples), detector.masks);
  return detector;
}

const answers = {
  async load() {
    await ready;
    return {};
  },
  async detect({ channels, rate, file }, onProgress) {
    return (await ready).detect(channels, rate, file, onProgress);
  },
};

onmessage = async ({ data: { id, name, values } }) => {
  try {
    const result = await answers[name](values, (done, total) => postMessage({ id, done, total }));
    postMessage({ id, result });
  } catch (error) {
    postMessage({ id, error: error.message ?? String(error) });
  }
};
