import { drawLines } from "./charts.js";
import { COLOURS, showMaps } from "./maps.js";
import { follow } from "./news.js";

const CELLS = 768, RARE = 0.25; // directions, as in physics/pose_distribution.py; hardly sampled is less
const at = (id) => document.getElementById(id);
const LINES = COLOURS.map((color, i) => ({ color, dash: i === 0 ? "solid" : "dashed" }));
const STATES = {
  "input away": "The collection's folder is not there. What was taken up stays, and the page goes on when it is back.",
  stopped: "Not running. The same command goes on where it was.", unreadable: "The folder cannot be read.",
};

let status = {};

function show(news) {
  status = news;
  const state = status.busy || status.state === "finished" ? status.state : "stopped";
  document.title = `${state}: ${status.folder}`;
  at("title").textContent = `${status.title ?? ""} → ${status.folder}`;
  at("state").textContent = state;
  at("state").dataset.state = status.busy ? "running" : state;
  at("task").textContent = status.busy ? status.task : "";
  at("note").textContent = STATES[state] ?? "";
  at("stop").disabled = !status.busy;
  at("facts").textContent = facts();
  at("verdict").textContent = status.verdict || `The first map is made of ${status.first ?? "the first"} particles.`;
  at("verdict").dataset.good = status.supported ? "yes" : "";
  at("views").textContent = views();
  at("enough").textContent = status.enough ?? "";
  at("changed").textContent = status.changed ?? "";
  fill(at("alerts"), status.alerts, (alert) => {
    const item = document.createElement("li");
    item.dataset.severity = alert.severity;
    item.textContent = `${clock(alert.time)}  ${alert.sentence}`;
    return item;
  }, "None.");
  showMaps(status.maps);
  drawCharts();
  drawSphere();
  for (const name of ["squares", "micrographs"]) fill(at(name), status[name], row, "None was judged yet.");
}

function facts() {
  const { particles = 0, waiting = 0, per_hour = 0, last_arrival: last } = status;
  const parts = [`${particles} particles`];
  if (per_hour) parts.push(`${per_hour} in an hour`);
  if (waiting) parts.push(`${waiting} wait`);
  if (last) parts.push(`the last at ${clock(last)}`);
  return parts.join(", ");
}

function views() {
  if (!status.views) return "Not known yet: it takes a map that held-out particles support.";
  const share = `${Math.round(100 * status.views.missing)} %`;
  return status.views.missing >= 0.05 ? `No: ${share} of the directions are hardly sampled; see the alerts.`
    : `Yes: ${share} of the directions are hardly sampled.`;
}

function clock(seconds) {
  return new Date(1000 * seconds).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
}

function fill(element, items, make, nothing) {
  element.replaceChildren(...items.map(make));
  if (!items.length) element.textContent = nothing;
}

function row({ name, count, share }) {
  const line = document.createElement("tr");
  for (const text of [name, `${count}`, `${Math.round(100 * share)} %`]) line.insertCell().textContent = text;
  return line;
}

// ---- charts ----

function drawCharts() {
  const made = status.course.filter((map) => map.verdict !== null);
  const course = (name, key, look) => ({
    name, ...look, x: made.map((map) => map.particles), y: made.map((map) => map[key] ?? null),
  });
  const lines = [course("held-out", "held_out_A", LINES[0]), course("half maps", "half_maps_A", LINES[1])];
  drawLines(at("resolution"), ascending(lines), { x: "particles", levels: status.target ? [status.target] : [] });
  const portions = status.portions, start = portions[0]?.arrived ?? 0;
  const hours = portions.map((portion) => (portion.arrived - start) / 3600);
  let sum = 0;
  const counts = portions.map((portion) => (sum += portion.particles));
  const line = (name, y, look = LINES[0]) => ({ name, ...look, x: hours, y: y.map((value) => value ?? null) });
  const of = (get) => portions.map((portion) => (portion.share == null ? null : get(portion)));
  drawLines(at("share"), [line("share", of((one) => 100 * one.share))], { x: "hours", range: [0, 105] });
  drawLines(at("defocus"), [
    line("median", of((one) => one.defocus_A / 1e4)), line("5 %", of((one) => one.defocus_range_A[0] / 1e4), LINES[1]),
    line("95 %", of((one) => one.defocus_range_A[1] / 1e4), LINES[1]),
  ], { x: "hours" });
  const most = Math.max(0, ...portions.map((portion) => portion.snr ?? 0));
  drawLines(at("snr"), [line("variance of the signal", of((one) => one.snr))], { x: "hours", range: [0, 1.2 * most || 1] });
  drawLines(at("count"), [line("taken up", counts)], { x: "hours" });
}

/** Of maps with as many particles the later: a chart's x ascends. */
function ascending(lines) {
  return lines.map((line) => {
    const last = new Map(line.x.map((x, i) => [x, line.y[i]]));
    const x = [...last.keys()].sort((a, b) => a - b);
    return { ...line, x, y: x.map((each) => last.get(each)) };
  });
}

function drawSphere() {
  const canvas = at("sphere"), side = Math.round(canvas.clientWidth * devicePixelRatio) || 300;
  canvas.width = canvas.height = side;
  const context = canvas.getContext("2d"), half = side / 2, radius = 0.92 * half;
  context.strokeStyle = "#777";
  context.beginPath();
  context.arc(half, half, radius + 6, 0, 2 * Math.PI);
  context.stroke();
  if (!status.views) return;
  const place = ([x, y, z]) => { // Lambert's azimuthal projection of the half sphere z >= 0
    const scale = radius / Math.sqrt(1 + z);
    return [half + scale * x, half - scale * y];
  };
  const { coverage, missing, missing_about: worst } = status.views;
  coverage.forEach((value, i) => {
    const z = 1 - (2 * (i + 0.5)) / CELLS, azimuth = Math.PI * (1 + Math.sqrt(5)) * (i + 0.5);
    if (z < 0) return; // k and -k are one
    const ring = Math.sqrt(1 - z * z), [u, v] = place([ring * Math.cos(azimuth), ring * Math.sin(azimuth), z]);
    const grey = Math.round(225 - 190 * Math.min(value, 1));
    context.fillStyle = value < RARE ? "#c00000" : `rgb(${grey} ${grey} ${grey})`;
    context.beginPath();
    context.arc(u, v, 0.032 * side, 0, 2 * Math.PI);
    context.fill();
  });
  if (missing < 0.01) return;
  context.strokeStyle = COLOURS[1];
  context.lineWidth = 3 * devicePixelRatio;
  context.beginPath();
  context.arc(...place(worst), 0.08 * side, 0, 2 * Math.PI);
  context.stroke();
}

window.addEventListener("resize", drawSphere);
at("stop").onclick = async () => {
  at("stop").disabled = true;
  const answer = await fetch("stop", { method: "POST" });
  if (!answer.ok) at("note").textContent = await answer.text();
};

follow(show, () => { at("state").textContent = "no connection"; });
