import { drawLines } from "./charts.js";
import { COLOURS, HALVES, showMaps } from "./maps.js";
import { follow } from "./news.js";

const CHARTS = ["critic_gap", "map_change", "signal_scale", "noise_scale"];
const at = (id) => document.getElementById(id);
const LINES = COLOURS.map((color, i) => ({ color, dash: i === 0 ? "solid" : "dashed" }));
const STATES = {
  running: "", comparing: "Both halves are trained; they are aligned and compared, which takes a minute or two.",
  stopping: "The halves write their checkpoints.", unreadable: "The run's folder cannot be read; see the log.",
};

let status = {}, records = [];

// ---- news ----

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
  showMaps(status.maps);
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

follow(show, () => { at("state").textContent = "no connection"; });
