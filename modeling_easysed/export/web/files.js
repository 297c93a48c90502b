// A sound file to its channels at its own rate.
import { sniffRate } from "./audio.js";

// Resolves to {channels, rate}. Browsers decode to the rate of the context, so that it gets the file's own.
export async function decodeFile(file) {
  const content = await file.arrayBuffer();
  const rate = sniffRate(new Uint8Array(content));
  const context = contextOf(rate);
  const sound = await context.decodeAudioData(content);
  const channels = Array.from({ length: sound.numberOfChannels }, (_, index) => sound.getChannelData(index).slice());
  return { channels, rate: context.sampleRate };
}

function contextOf(rate) {
  for (const one of [rate, 48000]) {
    try {
      return new OfflineAudioContext(1, 1, one);
    } catch {
      continue; // a rate that this browser has no context for
    }
  }
  throw new Error("OfflineAudioContext");
}
