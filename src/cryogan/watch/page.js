import { drawLines } from "./charts.js";
import { makeSurface } from "./surface.js";

const HALVES = [1, 2];
const CHARTS = ["critic_gap", "map_change", "signal_scale", "noise_scale"];
const FRAME_MS = 50;
const at = (id) => document.getElementById(id);
const style = getComputedStyle(document.documentElement);
const LINES = HALVES.map((half) => ({
  color: style.getPropertyValue(`--half${half}`).trim(), dash: half === 1 ? "solid" : "dashed",
}));
const STATES = {
  running: "", comparing: "Both halves are trained; they are aligned and compared, which takes a minute or two.",
  stopping: "The halves write their checkpoints.", unreadable: "The run's folder cannot be read; see the log.",
};

let status = {}, records = [], maps = {}, shown = "", angle = 0.6, tilt = 0.35, dirty = true;

// The address holds the token; the cookie has it now.
history.replaceState(null, "", location.pathname);

// ---- news ----

let stream = null;
function connect() {
  stream = new EventSource("events");
  stream.onmessage = (event) => show(JSON.parse(event.data));
  stream.onerror = () => { at("state").textContent = "no connection"; };
}
// A browser gives few connections to a server: a tab that nobody sees holds none.
document.addEventListener("visibilitychange", () => {
  stream?.close();
  if (!document.hidden) connect();
});

function show(news) {
  status = news;
  records.length = news.first;
  records.push(...news.records);
  document.title = `${status.state}: ${status.folder}`;
  at("title").textContent = `${status.title} → ${status.folder}`;
  at("facts").textContent = status.facts;
  at("state").textContent = status.state;
  at("state").dataset.state = status.state;
  at("note").textContent = status.state === "stopped"
    ? `Not running, and not finished. Go on with: cryogan reconstruct --resume ${status.folder}`
    : STATES[status.state] ?? "";
  for (const half of HALVES) {
    const { step = 0, done = 0 } = status.halves[half] ?? {};
    at(`done${half}`).value = done;
    at(`step${half}`).textContent = `${step} of ${status.total_steps} steps`;
  }
  at("left").textContent = timeLeft();
  at("stop").disabled = status.state !== "running";
  for (const name of ["gallery", "power_spectra", "views"]) {
    const written = status.figures[name], image = at(name), source = `figures/${name}?v=${written}`;
    image.hidden = !written;
    if (written && image.getAttribute("src") !== source) image.src = source;
  }
  at("noviews").textContent = status.figures.views ? ""
    : `No poses yet: a finished run gets them by cryogan refine ${status.folder}, or cryogan poses ${status.folder}.`;
  for (const text of document.querySelectorAll(".unlearned")) {
    text.textContent = status.learns_scales ? "" : "Not learned in this run.";
  }
  const log = at("log"), atEnd = log.scrollTop + log.clientHeight > log.scrollHeight - 20;
  const text = status.log || "This run has written no log.";
  if (log.textContent !== text) {
    log.textContent = text;
    if (atEnd) log.scrollTop = log.scrollHeight;
  }
  drawCharts();
  drawFsc();
  followTime();
}

function timeLeft() {
  const halves = Object.values(status.halves);
  if (!halves.length) return "";
  const spent = `${Math.max(...halves.map((half) => half.minutes)).toFixed(1)} min`;
  if (status.state !== "running") return `${spent} of training`;
  const limit = status.max_minutes ? ` (--max-minutes ${status.max_minutes})` : "";
  return `${spent}, about ${Math.max(...halves.map((half) => half.left)).toFixed(1)} min left${limit}`;
}

at("stop").onclick = async () => {
  at("stop").disabled = true;
  const answer = await fetch("stop", { method: "POST" });
  if (!answer.ok) at("note").textContent = await answer.text();
};

// ---- charts ----

function drawCharts() {
  // Of a step that was run twice, in a resumed run, the later.
  const halves = HALVES.map((half) => {
    const last = new Map(records.filter((record) => record.half === half).map((record) => [record.step, record]));
    return [...last.values()].sort((a, b) => a.minutes - b.minutes);
  });
  for (const name of CHARTS) {
    const log = name === "map_change";
    const lines = halves.map((course, i) => ({
      name: `half ${i + 1}`, ...LINES[i], x: course.map((record) => record.minutes),
      y: course.map((record) => (log && !(record[name] > 0) ? null : record[name] ?? null)),
    }));
    drawLines(at(name), lines, { x: "minutes", log });
  }
}

function drawFsc() {
  const fsc = status.fsc;
  at("fsc").hidden = !fsc;
  at("fsctext").textContent = fsc?.text ?? "Once both halves have kept a map.";
  if (!fsc) return;
  const looks = [["#000000", "solid"], ["#00457c", "dashed"], ["#d55e00", "dashdot"], ["#8a8a8a", "dotted"]];
  const lines = Object.entries(fsc.curves).map(([name, y], i) => ({
    name, x: fsc.frequency, y, color: looks[i][0], dash: looks[i][1],
  }));
  drawLines(at("fsc"), lines, { x: "1/Å", range: [-0.1, 1.05], levels: [0.143, 0.5] });
}

// ---- maps ----

const surfaces = HALVES.map((half, i) => {
  const rgb = LINES[i].color.match(/[0-9a-f]{2}/gi).map((value) => parseInt(value, 16) / 255);
  return makeSurface(at(`surface${half}`), rgb);
});
if (!surfaces[0]) document.querySelectorAll("figcaption").forEach((text) => { text.append(": no WebGL 2 here"); });

/** Stay at the latest map, unless the user went back. */
function followTime() {
  const time = at("time"), last = status.maps.length - 1;
  const latest = Number(time.value) === Number(time.max);
  at("nomaps").hidden = last >= 0;
  time.disabled = last < 1;
  time.max = Math.max(last, 0);
  if (latest) time.value = time.max;
  loadMaps();
}

async function loadMaps() {
  const chosen = status.maps?.[at("time").value];
  if (!chosen) return;
  at("when").textContent = chosen.label;
  const wanted = `${chosen.name}?v=${chosen.version}`;
  if (wanted === shown) return;
  shown = wanted;
  const loaded = await Promise.all(HALVES.map(async (half) => {
    const answer = await fetch(`maps/${half}/${wanted}`);
    if (!answer.ok) return null;
    const [box, low, high] = ["X-Box", "X-Low", "X-High"].map((name) => Number(answer.headers.get(name)));
    const voxels = new Uint8Array(await answer.arrayBuffer());
    return { box, low, high, voxels, share: shares(voxels) };
  }));
  if (wanted !== shown || loaded.includes(null)) return; // the slider has moved on, or the file is gone
  HALVES.forEach((half, i) => {
    maps[half] = loaded[i];
    surfaces[i]?.load(loaded[i].voxels, loaded[i].box);
    drawSlices(half, loaded[i]);
  });
  sayLevels();
}

/** The byte below which a share of the voxels is. */
function shares(voxels) {
  const counts = new Uint32Array(256);
  for (const value of voxels) counts[value] += 1;
  return (share) => {
    let below = 0, value = -1;
    while (value < 255 && below < share * voxels.length) below += counts[value += 1];
    return Math.max(value, 0);
  };
}

/** In bytes: 0 % is the solvent, 100 % the brightest hundredth of the voxels. */
function levelOf(map) {
  const solvent = map.share(0.5);
  return solvent + (at("level").value / 100) * (map.share(0.99) - solvent);
}

function sayLevels() {
  dirty = true;
  const levels = HALVES.filter((half) => maps[half]).map((half) => {
    const { low, high } = maps[half];
    return (low + (levelOf(maps[half]) / 255) * (high - low)).toPrecision(3);
  });
  at("levels").textContent = `${at("level").value} % (density ${levels.join(" and ")})`;
}

function drawSlices(half, { box, voxels, share }) {
  const middle = box >> 1, black = share(0.002), white = Math.max(share(0.998), black + 1);
  const index = {
    z: (row, column) => (middle * box + row) * box + column,
    y: (row, column) => (row * box + middle) * box + column,
    x: (row, column) => (row * box + column) * box + middle,
  };
  for (const axis of "zyx") {
    const canvas = at(`slice${half}${axis}`), image = new ImageData(box, box);
    canvas.width = canvas.height = box;
    for (let row = 0; row < box; row += 1) {
      for (let column = 0; column < box; column += 1) {
        const grey = (255 * (voxels[index[axis](box - 1 - row, column)] - black)) / (white - black); // first row below
        image.data.set([grey, grey, grey, 255], 4 * (row * box + column));
      }
    }
    canvas.getContext("2d").putImageData(image, 0, 0);
  }
}

at("time").oninput = loadMaps;
at("level").oninput = sayLevels;
at("turn").checked = !matchMedia("(prefers-reduced-motion: reduce)").matches;
window.addEventListener("resize", () => { dirty = true; });
for (const half of HALVES) {
  at(`surface${half}`).onpointermove = (event) => {
    if (!event.buttons) return;
    angle += event.movementX / 100;
    tilt = Math.max(-1.5, Math.min(1.5, tilt + event.movementY / 100));
    dirty = true;
  };
}

let before = 0;
function frame(now) {
  requestAnimationFrame(frame);
  if (now - before < FRAME_MS) return;
  const turning = at("turn").checked;
  if (turning) angle += Math.min(now - before, 200) * 4e-4;
  before = now;
  if (!turning && !dirty) return;
  dirty = false;
  HALVES.forEach((half, i) => { if (maps[half]) surfaces[i]?.draw(levelOf(maps[half]) / 255, angle, tilt); });
}

connect();
requestAnimationFrame(frame);
