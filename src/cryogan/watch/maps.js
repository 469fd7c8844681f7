// The half maps of a page: surfaces and central slices, at a time and a level that the reader chooses.

import { makeSurface } from "./surface.js";

export const HALVES = [1, 2];
const FRAME_MS = 50;
const at = (id) => document.getElementById(id);
const style = getComputedStyle(document.documentElement);
export const COLOURS = HALVES.map((half) => style.getPropertyValue(`--half${half}`).trim());

let listed = [], maps = {}, shown = "", angle = 0.6, tilt = 0.35, dirty = true, before = 0;

const surfaces = HALVES.map((half, i) => {
  const rgb = COLOURS[i].match(/[0-9a-f]{2}/gi).map((value) => parseInt(value, 16) / 255);
  return makeSurface(at(`surface${half}`), rgb);
});
if (!surfaces[0]) document.querySelectorAll("figcaption").forEach((text) => { text.append(": no WebGL 2 here"); });

/** Show the last of the maps, [{ name, label, version }], unless the reader went back. */
export function showMaps(all) {
  listed = all;
  const time = at("time"), last = listed.length - 1;
  const latest = Number(time.value) === Number(time.max);
  at("nomaps").hidden = last >= 0;
  time.disabled = last < 1;
  time.max = Math.max(last, 0);
  if (latest) time.value = time.max;
  loadMaps();
}

async function loadMaps() {
  const chosen = listed[at("time").value];
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
requestAnimationFrame(frame);
