// The network on onnxruntime-web: WebAssembly, one thread, files beside this one.
import * as ort from "./ort.wasm.min.js";

const OUTPUTS = ["frame_logits", "exit_frame_logits", "embeddings", "log_mel"];

// Resolves to run(waveform, edges, masks) -> one window's outputs, see recording.js.
export async function loadNetwork(description, address = new URL("./", import.meta.url).href) {
  const content = async (name) => (await fetch(new URL(name, address))).arrayBuffer();
  const [wasm, graph] = await Promise.all(["ort-wasm-simd-threaded.wasm", "easysed.onnx"].map(content));
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmBinary = wasm;
  ort.env.wasm.wasmPaths = { mjs: new URL("ort-wasm-simd-threaded.js", address).href };
  const session = await ort.InferenceSession.create(graph, { executionProviders: ["wasm"] });
  const { sites, width } = description.masks;
  const { edge_samples: edge, mels } = description.audio;
  return async (waveform, edges, masks) => {
    const passes = masks.length / sites / width;
    const outputs = await session.run(
      {
        waveform: new ort.Tensor("float32", waveform, [1, waveform.length]),
        edges: new ort.Tensor("float32", edges, [1, 2, edge]),
        masks: new ort.Tensor("float32", masks, [passes, sites, width]),
      },
      OUTPUTS,
    );
    const [logits, exits, embeddings, logMel] = OUTPUTS.map((name) => outputs[name]);
    const [numExits, , frames, numClasses] = exits.dims;
    return {
      logits: logits.data,
      exits: exits.data,
      embeddings: embeddings.data,
      logMel: logMel.data,
      passes,
      numExits,
      frames,
      numClasses,
      width,
      mels,
    };
  };
}
