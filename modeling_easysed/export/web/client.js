// The worker as functions that return promises.
const worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
const waiting = new Map();
let count = 0;

worker.onmessage = ({ data: { id, result, error, done, total } }) => {
  const { resolve, reject, onProgress } = waiting.get(id);
  if (done !== undefined) return onProgress?.(done, total);
  waiting.delete(id);
  if (error === undefined) resolve(result);
  else reject(new Error(error));
};
worker.onerror = (event) => {
  for (const { reject } of waiting.values()) reject(new Error(event.message));
};

export function ask(name, values = {}, { transfer = [], onProgress } = {}) {
  return new Promise((resolve, reject) => {
    waiting.set(++count, { resolve, reject, onProgress });
    worker.postMessage({ id: count, name, values }, transfer);
  });
}
