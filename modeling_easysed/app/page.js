// The page around recording.js: a chosen event's panel opens below its row.
function closePanels(section) {
  for (const row of section.querySelectorAll("tr.panel-row")) {
    const panel = row.querySelector(".panel");
    panel.hidden = true;
    section.append(panel);
    row.remove();
  }
  for (const row of section.querySelectorAll("tr[aria-selected]")) row.removeAttribute("aria-selected");
}

function openPanel(row) {
  const section = row.closest("section.recording");
  const wasOpen = row.hasAttribute("aria-selected");
  closePanels(section);
  const panel = [...section.querySelectorAll(".panel")].find(
    (one) => one.dataset.onset === row.dataset.onset && one.dataset.label === row.dataset.label);
  if (wasOpen || !panel) return;
  const below = document.createElement("tr");
  below.className = "panel-row";
  const cell = below.insertCell();
  cell.colSpan = row.cells.length;
  cell.append(panel);
  row.after(below);
  row.setAttribute("aria-selected", "true");
  panel.hidden = false;
}

// In the capturing phase: recording.js sorts in the bubbling one and must not meet the panel's row.
document.addEventListener("click", (event) => {
  const sort = event.target.closest?.(".recording button.sort");
  if (sort) return closePanels(sort.closest("section.recording"));
  const row = event.target.closest?.(".recording tr[data-onset]");
  if (row && getSelection().isCollapsed) openPanel(row);
}, true);

// The browser's own processing of a microphone is made for speech: it takes steady sounds away.
const media = navigator.mediaDevices;
if (media?.getUserMedia) {
  const original = media.getUserMedia.bind(media);
  media.getUserMedia = (wanted) => {
    const audio = wanted?.audio;
    if (!audio) return original(wanted);
    const plain = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
    return original({ ...wanted, audio: { ...(audio === true ? {} : audio), ...plain } });
  };
}
