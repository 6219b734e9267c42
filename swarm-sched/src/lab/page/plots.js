"use strict";
// Draws the report that stands in the page: a chosen workload's summary, heat maps and curves.

const report = JSON.parse(document.getElementById("data").textContent);
const element = (id) => document.getElementById(id);
const escape = (text) => String(text).replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);

// After Okabe and Ito, told apart with every kind of colour blindness, on light and dark; dashes help.
const COLOURS = ["#1c83c4", "#d55e00", "#56b4e9", "#cc79a7", "#009e73", "#b8860b", "#7a8288", "#8c510a"];
const DASHES = ["", "7 4", "2 3", "9 3 2 3", "15 5", "4 4", "1 3", "8 2 1 2"];
const colour = (strategy) => COLOURS[report.strategies.indexOf(strategy) % COLOURS.length];
const dash = (strategy) => DASHES[report.strategies.indexOf(strategy) % DASHES.length];

// Numbers for people.
const percent = (part) => `${(100 * part).toFixed(part < 0.0995 ? 1 : 0)} %`;
const count = (number) => Math.round(number).toLocaleString("en");
const two = (number) => number.toFixed(2);
const clock = (seconds) => `${Math.floor(seconds / 60)}:${String(Math.round(seconds % 60)).padStart(2, "0")}`;
function nanos(time) {
  if (time < 1e3) return `${Math.round(time)} ns`;
  const [value, unit] = time < 1e6 ? [time / 1e3, "µs"] : time < 1e9 ? [time / 1e6, "ms"] : [time / 1e9, "s"];
  return `${value < 10 ? +value.toFixed(1) : Math.round(value)} ${unit}`;
}

// The tip that follows the pointer.
const tip = element("tip");
function showTip(event, html) {
  tip.innerHTML = html;
  tip.classList.add("on");
  const { width, height } = tip.getBoundingClientRect();
  const left = event.clientX + 16 + width > innerWidth ? event.clientX - width - 14 : event.clientX + 16;
  tip.style.left = `${Math.max(4, left)}px`;
  tip.style.top = `${Math.min(innerHeight - height - 6, event.clientY + 14)}px`;
}
const hideTip = () => tip.classList.remove("on");
const mark = (strategy) => `<i class="swatch" style="background:${colour(strategy)}"></i>`;
const tipRow = (name, value, sign = "") => `<div class="row"><span>${sign}${escape(name)}</span><b>${value}</b></div>`;

// Axes. Steps are 1, 2 or 5 times a power of ten, or sixty-fold for time.
function ticks(low, high, most, time = false) {
  const span = high - low || 1;
  const steps = time
    ? [10, 30, 60, 120, 300, 600, 1200, 3600]
    : [1, 2, 5].flatMap((s) => [s, s * 10]).sort((a, b) => a - b);
  const scale = time ? 1 : 10 ** Math.floor(Math.log10(span / most));
  const step = (steps.find((s) => span / (s * scale) <= most) ?? steps.at(-1)) * scale;
  const found = [];
  for (let at = Math.ceil(low / step) * step; at <= high + step * 1e-6; at += step) found.push(+at.toPrecision(10));
  return found;
}
function powers(low, high) {
  const found = [];
  for (let at = Math.ceil(Math.log10(low) - 1e-9); at <= Math.log10(high) + 1e-9; at++) found.push(10 ** at);
  return found;
}

// A frame with axes: returns the SVG's inside and the two scales.
function frame({ width, height = 260, x, y, logX = false, logY = false, xTicks, yTicks, xText, yText, xTitle, yTitle }) {
  const left = yTitle ? 76 : 58;
  const right = 22, top = 14, bottom = 42;
  const toLog = (value) => Math.log10(value);
  const scale = ([low, high], from, to, log) => (value) => {
    const part = log ? (toLog(value) - toLog(low)) / (toLog(high) - toLog(low)) : (value - low) / (high - low || 1);
    return from + part * (to - from);
  };
  const sx = scale(x, left, width - right, logX), sy = scale(y, height - bottom, top, logY);
  let svg = "";
  for (const at of yTicks) {
    svg += `<line class="grid-line" x1="${left}" x2="${width - right}" y1="${sy(at)}" y2="${sy(at)}"/>`;
    svg += `<text x="${left - 8}" y="${sy(at) + 4}" text-anchor="end">${yText(at)}</text>`;
  }
  for (const at of xTicks) {
    svg += `<line class="axis" x1="${sx(at)}" x2="${sx(at)}" y1="${height - bottom}" y2="${height - bottom + 4}"/>`;
    svg += `<text x="${sx(at)}" y="${height - bottom + 18}" text-anchor="middle">${xText(at)}</text>`;
  }
  svg += `<line class="axis" x1="${left}" x2="${width - right}" y1="${height - bottom}" y2="${height - bottom}"/>`;
  svg += `<text class="title" x="${(left + width - right) / 2}" y="${height - 5}" text-anchor="middle">${xTitle}</text>`;
  if (yTitle) svg += `<text class="title" transform="translate(12 ${(top + height - bottom) / 2}) rotate(-90)" text-anchor="middle">${yTitle}</text>`;
  return { svg, sx, sy, width, height, left, right, top, bottom };
}
const wrap = (f, extra = "") => `<svg viewBox="0 0 ${f.width} ${f.height}" width="${f.width}" height="${f.height}" role="img">${f.svg}${extra}</svg>`;

// What a figure has for its plot, inside of its padding.
const innerWidthOf = (figure) => Math.max(260, Math.floor(figure.clientWidth - 30));

// The names of the guides, in the figure's heading: beside their lines they would lie on others.
const guides = (lines) => lines.filter((line) => line.guide).map((line) =>
  `<span class="key"><svg width="24" height="8"><line class="guide" x1="0" x2="24" y1="4" y2="4" stroke-dasharray="${line.dash}"/></svg>${line.name}</span>`).join("");

// Curves over the workload's time or load, with the values of all of them where the pointer is.
function curves(id, caption, lines, options) {
  const figure = element(id), width = innerWidthOf(figure);
  const xs = options.xs, flat = lines.flatMap((line) => line.values).filter(Number.isFinite);
  const high = options.high ?? (Math.max(...flat, options.least ?? 0) * 1.06 || 1);
  const f = frame({
    width,
    x: [options.logX ? xs[0] * 0.8 : Math.min(0, xs[0]), xs.at(-1) * (options.logX ? 1.25 : 1)],
    y: [options.low ?? 0, high], logX: options.logX, logY: options.logY,
    xTicks: options.logX ? xs : ticks(0, xs.at(-1), width / 75, options.time),
    yTicks: options.logY ? powers(options.low, high) : ticks(0, high, 5),
    xText: options.xText, yText: options.yText, xTitle: options.xTitle, yTitle: options.yTitle,
  });
  // Dashed lines over full ones: where they are one, both are seen.
  for (const line of [...lines].sort((a, b) => !!a.dash - !!b.dash)) {
    const points = line.values.map((value, at) => `${f.sx(xs[at]).toFixed(1)},${f.sy(value).toFixed(1)}`).join(" ");
    f.svg += line.guide
      ? `<polyline class="guide" fill="none" stroke-dasharray="${line.dash}" points="${points}"/>`
      : `<polyline fill="none" stroke="${line.colour}" stroke-width="2" stroke-linejoin="round" stroke-dasharray="${line.dash}" points="${points}"/>`;
    if (options.dots && !line.guide) line.values.forEach((value, at) => {
      f.svg += `<circle cx="${f.sx(xs[at])}" cy="${f.sy(value)}" r="3.5" fill="${line.colour}"/>`;
    });
  }
  const cursor = `<line class="guide cursor" stroke-dasharray="3 3" y1="${f.top}" y2="${f.height - f.bottom}" visibility="hidden"/>`;
  if (options.none && Math.max(...flat) === 0) f.svg += `<text x="${f.sx(xs.at(-1) / 2)}" y="${f.height / 2 - 10}" text-anchor="middle">${options.none}</text>`;
  figure.innerHTML = `<figcaption><span>${caption}</span><small>${options.about ?? guides(lines)}</small></figcaption>${wrap(f, cursor)}`;
  const svg = figure.querySelector("svg"), line = figure.querySelector(".cursor");
  svg.onpointermove = (event) => {
    const box = svg.getBoundingClientRect();
    const at = ((event.clientX - box.left) / box.width) * f.width;
    const distance = (x) => Math.abs(f.sx(x) - at);
    const nearest = xs.reduce((best, x, index) => (distance(x) < distance(xs[best]) ? index : best), 0);
    line.setAttribute("x1", f.sx(xs[nearest]));
    line.setAttribute("x2", f.sx(xs[nearest]));
    line.setAttribute("visibility", "visible");
    const rows = lines.map((it) => tipRow(it.name, (options.tipText ?? options.yText)(it.values[nearest]), it.guide ? "" : mark(it.name)));
    showTip(event, `<b>${options.tipTitle(nearest)}</b>${rows.join("")}`);
  };
  svg.onpointerleave = () => { hideTip(); line.setAttribute("visibility", "hidden"); };
}

// The rows of the summary: a name, what it means, where the number is, how it is shown, and
// whether less is better (-1), more (1), or neither.
const ROWS = [
  ["Balance and spread"],
  ["Imbalance of tasks", "deviation between nodes ÷ mean", (r) => r.quality.taskImbalance, two, -1],
  ["Imbalance of load", "the same of what is reserved", (r) => r.quality.loadImbalance, two, -1],
  ["Crowded nodes", "with more tasks of a service than ⌈n/m⌉", (r) => r.quality.crowded, (n) => n.toFixed(1), -1],
  ["Packing"],
  ["Nodes in use", "÷ those that best fit offline needs", (r) => r.quality.packing, (n) => `${two(n)} ×`, -1, () => "1.00 ×"],
  ["Nodes in use", "÷ the volume bound, which nothing can be below", (r) => r.quality.overVolume, (n) => `${two(n)} ×`, -1, (r) => `${two(r.quality.overVolume / r.quality.packing)} ×`],
  ["Filled at most", "of the scarcer of CPU and memory", (r) => r.quality.filled, percent, 1, (r) => percent(Math.min(1, Math.max(...r.series.asked)))],
  ["First task without a node at", "of the cluster asked for", (r) => r.quality.fullAt ?? Infinity, (n) => (n === Infinity ? "never" : percent(n)), 1],
  ["Tasks without a node", "at most", (r) => r.quality.unplacedMost, count, -1, (r) => count(Math.max(...r.series.unplaceable))],
  ["Fragmentation", "of room for large tasks", (r) => r.quality.fragmentation, percent, -1],
  ["Stranded CPU", "free where memory has run out", (r) => r.quality.strandedCpus, percent, -1],
  ["Stranded memory", "free where CPU has run out", (r) => r.quality.strandedMemory, percent, -1],
  ["Change"],
  ["Tasks moved", "placed elsewhere than the one before", (r) => r.quality.moved, count, -1],
  ["Speed"],
  ["Decisions", "each second of the scheduler's work", (r) => r.speed.perSecond, count, 1],
  ["Answer, median", "for one group of tasks", (r) => r.speed.p50, nanos, -1],
  ["Answer, 99 of 100", "take at most", (r) => r.speed.p99, nanos, -1],
];

// The cells of a row, greener where they are better.
function cells(runs, [, , value, show, better]) {
  const values = runs.map(value), texts = values.map(show);
  const ranks = values.map((v) => (better < 0 ? v : -v));
  const [low, high] = [Math.min(...ranks), Math.max(...ranks.filter(Number.isFinite))];
  // What reads the same is as good.
  const differs = new Set(texts).size > 1, best = texts[ranks.indexOf(low)];
  return texts.map((text, at) => {
    const span = high - low;
    const good = !differs ? 0 : text === best ? 1 : Number.isFinite(span) && span > 0 ? (high - ranks[at]) / span : 0;
    const shade = good > 0 ? ` style="background:hsl(var(--good), var(--good-light), ${(good * good * 0.85).toFixed(2)})"` : "";
    return `<td class="${differs && text === best ? "best" : ""}"${shade}>${text}</td>`;
  }).join("");
}

const heads = () => report.strategies.map((name) => `<th>${mark(name)} ${escape(name)}</th>`).join("");

function summary(runs) {
  let html = `<thead><tr><th></th>${heads()}<th class="bound">offline</th></tr></thead><tbody>`;
  for (const row of ROWS) {
    const [name, about, value, , , bound] = row;
    html += value
      ? `<tr><th>${name}<small>${about}</small></th>${cells(runs, row)}<td class="bound">${bound ? bound(runs[0]) : ""}</td></tr>`
      : `<tr class="group"><th colspan="${runs.length + 2}">${name}</th></tr>`;
  }
  element("summary").innerHTML = html + "</tbody>";
}

// One figure of every workload: which strategy is good at what.
function across(row) {
  const lines = report.workloads.map(({ name }) =>
    `<tr><th><a href="#${encodeURIComponent(name)}">${escape(name)}</a></th>${cells(report.runs.filter((run) => run.workload === name), row)}</tr>`);
  element("across").innerHTML = `<thead><tr><th></th>${heads()}</tr></thead><tbody>${lines.join("")}</tbody>`;
}

// From the page's own tone to the other end, with even steps in grey; the last is full.
const ON_PAPER = [[243, 245, 240], [214, 236, 226], [164, 217, 207], [98, 189, 193], [45, 150, 181], [32, 108, 161], [32, 66, 127], [20, 28, 74]];
const ON_DARK = [[29, 34, 39], [24, 52, 66], [18, 78, 99], [17, 108, 126], [30, 141, 139], [92, 174, 131], [176, 204, 114], [250, 232, 120]];
const isDark = () => matchMedia("(prefers-color-scheme: dark)").matches;
function heatColour(part) {
  const tones = isDark() ? ON_DARK : ON_PAPER, at = part * (tones.length - 1), low = Math.min(Math.floor(at), tones.length - 2);
  return tones[low].map((c, i) => Math.round(c + (tones[low + 1][i] - c) * (at - low)));
}

function heatMap(run) {
  const { columns, each } = run.heat, rows = columns[0].length / 2;
  const load = (column, row) => parseInt(columns[column].substr(2 * row, 2), 16);
  const canvas = document.createElement("canvas");
  canvas.width = columns.length;
  canvas.height = rows;
  const context = canvas.getContext("2d"), image = context.createImageData(columns.length, rows);
  const down = isDark() ? [126, 72, 62] : [226, 167, 150];
  for (let column = 0; column < columns.length; column++) for (let row = 0; row < rows; row++) {
    const value = load(column, row);
    const [r, g, b] = value === 255 ? down : heatColour(value / 100);
    image.data.set([r, g, b, 255], 4 * (row * columns.length + column));
  }
  context.putImageData(image, 0, 0);
  canvas.onpointermove = (event) => {
    const box = canvas.getBoundingClientRect();
    const column = Math.min(columns.length - 1, Math.max(0, Math.floor(((event.clientX - box.left) / box.width) * columns.length)));
    const row = Math.min(rows - 1, Math.max(0, Math.floor(((event.clientY - box.top) / box.height) * rows)));
    const value = load(column, row);
    const node = each === 1 ? `node ${row + 1}` : `nodes ${row * each + 1}–${row * each + each}`;
    showTip(event, `<b>${node}</b>, ${clock(run.series.at[column])}<br>${value === 255 ? "down" : `${value} % reserved`}`);
  };
  canvas.onpointerleave = hideTip;
  const figure = document.createElement("figure");
  figure.innerHTML = `<figcaption><span>${mark(run.strategy)} ${escape(run.strategy)}</span><small>imbalance ${two(run.quality.loadImbalance)}</small></figcaption>`;
  figure.append(canvas);
  figure.insertAdjacentHTML("beforeend", `<div class="ends"><span>0:00</span><span>time, min:s</span><span>${clock(run.series.at.at(-1))}</span></div>`);
  return figure;
}

// One ridge for each strategy over a common logarithmic axis.
function latency(runs) {
  const classAt = (index) => 100 * 10 ** (index / 10);
  const used = runs.flatMap((run) => run.speed.histogram.flatMap((n, index) => (n ? [index] : [])));
  const [first, last] = used.length ? [Math.max(0, Math.min(...used) - 1), Math.max(...used) + 2] : [0, 10];
  const figure = element("latency"), width = innerWidthOf(figure);
  // Beside the ridges, or above them where there is no room.
  const narrow = width < 600, longest = Math.max(...runs.map((run) => run.strategy.length));
  const left = narrow ? 8 : 26 + 7.5 * longest, right = narrow ? 8 : 100;
  const high = 62, step = narrow ? 84 : 58, top = 22, height = top + step * runs.length + 58;
  const sx = (time) => left + ((Math.log10(time / classAt(first))) / Math.log10(classAt(last) / classAt(first))) * (width - left - right);
  let svg = "";
  for (const at of powers(classAt(first), classAt(last))) {
    svg += `<line class="grid-line" x1="${sx(at)}" x2="${sx(at)}" y1="${top - 8}" y2="${height - 40}"/><text x="${sx(at)}" y="${height - 24}" text-anchor="middle">${nanos(at)}</text>`;
  }
  runs.forEach((run, row) => {
    const base = top + step * (row + 1), { histogram, answers, p50, p99 } = run.speed;
    const most = Math.max(...histogram, 1);
    let path = `M${sx(classAt(first))},${base}`;
    for (let index = first; index < last; index++) {
      const y = base - (high * 0.82 * (histogram[index] ?? 0)) / most;
      path += `L${sx(classAt(index))},${y}L${sx(classAt(index + 1))},${y}`;
    }
    path += `L${sx(classAt(last))},${base}Z`;
    svg += `<path d="${path}" fill="${colour(run.strategy)}" fill-opacity="0.28" stroke="${colour(run.strategy)}" stroke-width="1.5" stroke-linejoin="round"/>`;
    for (const [time, name] of [[p50, "p50"], [p99, "p99"]]) if (time > 0) {
      svg += `<line x1="${sx(time)}" x2="${sx(time)}" y1="${base - 14}" y2="${base + 4}" stroke="${colour(run.strategy)}" stroke-width="2.5"><title>${name}: ${nanos(time)}</title></line>`;
    }
    svg += narrow
      ? `<text class="label" x="${left}" y="${base - 60}">${escape(run.strategy)}</text><text x="${width - right}" y="${base - 60}" text-anchor="end">p50 ${nanos(p50)}, p99 ${nanos(p99)}</text>`
      : `<text class="label" x="${left - 14}" y="${base - 8}" text-anchor="end">${escape(run.strategy)}</text><text x="${width - right + 16}" y="${base - 20}">p50 ${nanos(p50)}</text><text x="${width - right + 16}" y="${base - 4}">p99 ${nanos(p99)}</text>`;
    svg += `<line class="axis" x1="${left}" x2="${width - right}" y1="${base}" y2="${base}"/>`;
    svg += `<rect data-row="${row}" x="${left}" y="${base - step}" width="${width - left - right}" height="${step}" fill="transparent"/>`;
    if (answers === 0) svg += `<text x="${left + 10}" y="${base - 6}">no answers</text>`;
  });
  svg += `<text class="title" x="${(left + width - right) / 2}" y="${height - 4}" text-anchor="middle">time of one answer (logarithmic)</text>`;
  figure.innerHTML = wrap({ svg, width, height });
  figure.querySelectorAll("rect").forEach((area) => {
    area.onpointermove = (event) => {
      const run = runs[area.dataset.row], box = area.getBoundingClientRect();
      const index = first + Math.floor(((event.clientX - box.left) / box.width) * (last - first));
      const here = run.speed.histogram[index] ?? 0;
      const upTo = run.speed.histogram.slice(0, index + 1).reduce((a, b) => a + b, 0);
      showTip(event, `<b>${escape(run.strategy)}</b><br>${nanos(classAt(index))} to ${nanos(classAt(index + 1))}: ${count(here)} of ${count(run.speed.answers)}<br>${percent(upTo / Math.max(1, run.speed.answers))} are as fast or faster`);
    };
    area.onpointerleave = hideTip;
  });
}

function growthPlot(id, caption, about, which, low, high) {
  const sizes = [...new Set(report.growth.map((it) => it.nodes))];
  const measured = report.strategies.filter((strategy) => report.growth.some((it) => it.strategy === strategy));
  const lines = measured.map((strategy) => ({
    name: strategy, colour: colour(strategy), dash: dash(strategy),
    values: sizes.map((nodes) => Math.max(100, report.growth.find((it) => it.strategy === strategy && it.nodes === nodes)?.[which][0] ?? NaN)),
  }));
  curves(id, caption, lines, {
    xs: sizes, logX: true, logY: true, dots: true, low, high, about,
    xText: count, yText: nanos, xTitle: "nodes", yTitle: "median of a decision", tipTitle: (at) => `${count(sizes[at])} nodes`,
  });
}

let shown = "";
function show(name) {
  shown = name;
  const workload = report.workloads.find((it) => it.name === name) ?? report.workloads[0];
  const runs = report.runs.filter((run) => run.workload === workload.name);
  const { series } = runs[0];
  document.querySelectorAll("nav button").forEach((button) => button.setAttribute("aria-pressed", button.textContent === workload.name));
  element("about").textContent = `${workload.about} ${count(workload.nodes)} nodes, ${count(workload.events)} events.`;
  summary(runs);
  element("heat").replaceChildren(...runs.map(heatMap));
  const over = {
    xs: series.at, time: true, xText: clock, xTitle: "time, min:s",
    tipTitle: (at) => `${clock(series.at[at])}, ${percent(series.asked[at])} asked for`,
  };
  const lines = (of) => runs.map((run) => ({ name: run.strategy, colour: colour(run.strategy), dash: dash(run.strategy), values: of(run.series) }));
  const guide = (name, values, dash = "3 3") => ({ name, guide: true, values, dash });
  element("packingtext").textContent =
    "Nodes in use: no packing can be below the volume bound, and best fit offline, which knows all tasks beforehand, is a packing that could be made: the nearer a line is to them, the more nodes could be switched off. Cluster filled: how much of the scarcer resource is reserved, against what is asked for.";
  curves("used", "Nodes in use",
    [guide("best fit offline", series.packed, "6 3"), guide("volume bound", series.volume, "2 3"), ...lines((s) => s.used)],
    { ...over, yText: count, yTitle: "nodes" });
  curves("filled", "Cluster filled", [guide("asked for", series.asked), ...lines((s) => s.filled)],
    { ...over, yText: (n) => `${Math.round(100 * n)} %`, tipText: percent, least: 1 });
  curves("unplaced", "Tasks without a node", [guide("unavoidable", series.unplaceable), ...lines((s) => s.unplaced)], { ...over, yText: count, least: 4, none: "every task has a node" });
  const part = { ...over, yText: (n) => `${+(100 * n).toFixed(1)} %`, tipText: percent };
  curves("fragmentation", "Fragmentation", lines((s) => s.fragmentation), { ...part, least: 0.1 });
  curves("stranded", "Stranded", lines((s) => s.strandedCpus.map((n, at) => n + s.strandedMemory[at])), { ...part, least: 0.02, about: "CPU + memory" });
  curves("imbalance", "Imbalance of load", lines((s) => s.loadImbalance), { ...over, yText: (n) => +n.toFixed(2), tipText: two });
  curves("crowded", "Crowded nodes", lines((s) => s.crowded), { ...over, yText: count, least: 4 });
  latency(runs);
}

function drawGrowth() {
  if (!report.growth.length) return element("growthsection")?.remove();
  const times = report.growth.flatMap((it) => [it.known[0], it.new[0]]).filter((time) => time > 0).map(Math.log10);
  const [low, high] = times.length ? [10 ** Math.floor(Math.min(...times)), 10 ** Math.ceil(Math.max(...times) + 0.02)] : [100, 1000];
  growthPlot("growth50", "Known needs", "tasks that ask for the same were placed before", "known", low, high);
  growthPlot("growth99", "New needs", "no task before asked for the same", "new", low, high);
}

function start() {
  element("lead").textContent = `${report.strategies.length} strategies on ${report.workloads.length} workloads, each played through the real planners and scheduler in virtual time. Decisions and quality are the same for the same seed (${report.seed}); speed was measured.`;
  element("legend").innerHTML = report.strategies.map((name) =>
    `<span><svg width="26" height="8"><line x1="0" x2="26" y1="4" y2="4" stroke="${colour(name)}" stroke-width="2.5" stroke-dasharray="${dash(name)}"/></svg>${escape(name)}</span>`).join("");
  for (const { name } of report.workloads) {
    const button = document.createElement("button");
    button.textContent = name;
    button.onclick = () => { history.replaceState(null, "", `#${encodeURIComponent(name)}`); show(name); };
    element("workloads").append(button);
  }
  element("footer").innerHTML = `<p>Measured: ${escape(report.note)}. Every figure is defined in <code>swarm_sched::lab</code>. Sizes are drawn from distributions with the published properties of the Google and Alibaba traces; they are not the traces.</p>`;
  const stops = () => [0, 0.25, 0.5, 0.75, 1].map((part) => `rgb(${heatColour(part)})`);
  const draw = (name) => {
    element("heatscale").innerHTML = `<span>0 %<i style="background:linear-gradient(90deg, ${stops()})"></i>100 % reserved</span><span>the scarcer of CPU and memory</span><span><b></b>down</span>`;
    show(name);
  };
  const asked = () => decodeURIComponent(location.hash.slice(1));
  draw(asked());
  addEventListener("hashchange", () => { draw(asked()); scrollTo(0, 0); });
  const figures = ROWS.filter(([, , value]) => value), choice = element("figure");
  choice.innerHTML = figures.map(([name, about], at) => `<option value="${at}">${name}: ${about}</option>`).join("");
  choice.onchange = () => across(figures[choice.value]);
  choice.value = figures.findIndex(([name]) => name === "Fragmentation");
  choice.onchange();
  drawGrowth();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => draw(shown));
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth !== width) { width = innerWidth; draw(shown); drawGrowth(); }
  });
}
start();
