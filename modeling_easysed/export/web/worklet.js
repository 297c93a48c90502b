// The microphone's samples in blocks of a tenth of a second, its channels as one.
registerProcessor(
  "blocks",
  class extends AudioWorkletProcessor {
    block = new Float32Array(Math.round(sampleRate / 10));
    filled = 0;

    process([channels]) {
      for (let at = 0; at < (channels[0]?.length ?? 0); at++) {
        let sum = 0;
        for (const channel of channels) sum += channel[at];
        this.block[this.filled++] = sum / channels.length;
        if (this.filled < this.block.length) continue;
        this.port.postMessage(this.block.slice());
        this.filled = 0;
      }
      return true;
    }
  },
);
