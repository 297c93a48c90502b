import { ask } from "./client.js";
import { decodeFile } from "./files.js";

const field = document.querySelector("#file");
field.addEventListener("change", async () => {
  const { channels, rate } = await decodeFile(field.files[0]);
  const result = await ask("detect", { channels, rate, file: field.files[0].name });
  document.querySelector("#out").textContent = JSON.stringify(result.detection, null, 2);
});
