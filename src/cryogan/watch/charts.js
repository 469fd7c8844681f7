// Line charts with uPlot, which the page loads as a global.

const DASHES = { solid: [], dashed: [8, 5], dashdot: [8, 4, 2, 4], dotted: [2, 4] };
const FONT = "12px system-ui, sans-serif";

/**
 * Draw lines in an element, or change those that are there.
 *
 * lines: [{ name, x, y, color, dash }], each with its own ascending x; a y of null leaves a gap open.
 * options: x, the label of the axis below; log, a logarithmic axis; range, [low, high] of y; levels, y of dotted lines.
 */
export function drawLines(element, lines, options) {
  const data = lines.length ? uPlot.join(lines.map((line) => [line.x, line.y])) : [[]];
  const kind = JSON.stringify(lines.map((line) => [line.name, line.color, line.dash]));
  if (element.plot && element.kind === kind) {
    element.plot.setData(data);
    return;
  }
  element.plot?.destroy();
  element.kind = kind;
  element.plot = new uPlot(setup(element, lines, options), data, element);
  element.plot.setSize(sizeOf(element)); // now that the legend's lines are known
  element.resizing ??= new ResizeObserver(() => element.plot.setSize(sizeOf(element)));
  element.resizing.observe(element);
}

/** What the legend below leaves of an element. */
function sizeOf(element) {
  const legend = Math.ceil(element.querySelector(".u-legend")?.getBoundingClientRect().height ?? 0);
  return { width: element.clientWidth, height: element.clientHeight - legend };
}

function setup(element, lines, { x, log, range, levels = [] }) {
  const axis = { font: FONT, labelFont: FONT, labelSize: 20, stroke: "#222", grid: { stroke: "#e6e6e6", width: 1 } };
  const ticks = { ticks: { stroke: "#999", width: 1, size: 5 } };
  return {
    ...sizeOf(element),
    scales: { x: { time: false }, y: { distr: log ? 3 : 1, ...(range ? { range } : {}) } },
    axes: [{ ...axis, ...ticks, label: x, size: 34 }, { ...axis, ...ticks, size: 56 }],
    series: [
      { label: x, value: (_, value) => shortly(value) },
      ...lines.map(({ name, color, dash }) => ({
        label: name, stroke: color, dash: DASHES[dash], width: 2, spanGaps: true, points: { show: false },
        value: (_, value) => shortly(value),
      })),
    ],
    // The lines have x of their own: the cursor takes the nearest value of each.
    cursor: { hover: { skip: [null, undefined] } },
    legend: { markers: { width: 3, dash: (_, i) => (i > 0 && lines[i - 1].dash !== "solid" ? "dashed" : "solid") } },
    hooks: { drawAxes: [(plot) => levels.forEach((level) => drawLevel(plot, level))] },
  };
}

function shortly(value) {
  return value == null ? "–" : Number(value.toPrecision(3)).toString();
}

function drawLevel(plot, level) {
  const { ctx, bbox } = plot, y = plot.valToPos(level, "y", true);
  ctx.save();
  ctx.strokeStyle = "#777";
  ctx.lineWidth = devicePixelRatio;
  ctx.setLineDash([2 * devicePixelRatio, 4 * devicePixelRatio]);
  ctx.beginPath();
  ctx.moveTo(bbox.left, y);
  ctx.lineTo(bbox.left + bbox.width, y);
  ctx.stroke();
  ctx.restore();
}
