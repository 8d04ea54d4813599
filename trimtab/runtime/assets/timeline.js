// The timeline: share, breaker and engine of each replica, admission and events over one x-axis.
// One cursor: what is under it in one panel is told in all.

import { $, ENGINE_LOOKS, LOOKS, clock, count, el, percent, say } from "./dom.js";

const SHOWN = 8, LANES = 12, LANE = 31, BAND = 16, STRIP = 11;
const dark = matchMedia("(prefers-color-scheme: dark)");
const narrow = () => innerWidth < 560;

let colours = {}, patterns = {};
function repaint() {
  const style = getComputedStyle(document.documentElement);
  colours = new Proxy({}, { get: (cache, name) => cache[name] ??= style.getPropertyValue(`--${name}`).trim() });
  patterns = {};
}

// A fill that can be told from the others without its colour.
function fill(context, look) {
  if (!look.pattern) return colours[look.fill];
  const key = look.fill + look.pattern;
  if (patterns[key]) return patterns[key];
  const r = devicePixelRatio, n = 8 * r, tile = el("canvas", { width: n, height: n }), c = tile.getContext("2d");
  c.fillStyle = colours[look.fill]; c.fillRect(0, 0, n, n);
  c.strokeStyle = c.fillStyle = look.light ? "#fff" : dark.matches ? "#ffffffb0" : "#000000a0"; c.lineWidth = 1.3 * r;
  const line = (x0, y0, x1, y1) => { c.beginPath(); c.moveTo(x0 * n, y0 * n); c.lineTo(x1 * n, y1 * n); c.stroke(); };
  if (look.pattern === "rise" || look.pattern === "cross") for (const d of [-1, 0, 1]) line(d, 1, d + 1, 0);
  if (look.pattern === "fall" || look.pattern === "cross") for (const d of [-1, 0, 1]) line(d, 0, d + 1, 1);
  if (look.pattern === "lines") line(0, .5, 1, .5);
  if (look.pattern === "dots") { c.beginPath(); c.arc(n / 2, n / 2, 1.2 * r, 0, 7); c.fill(); }
  return patterns[key] = context.createPattern(tile, "repeat");
}

// A key of a legend: a small canvas painted like what it stands for.
function key(paint) {
  const node = el("canvas", { class: "key", width: 44, height: 22 });
  paint(node.getContext("2d"), 44, 22);
  return node;
}

export class Timeline {
  constructor(open) {
    this.open = open; // what a click on a replica does
    this.all = false; // every lane, or those that have something to tell
    this.charts = {};
    this.at = null; // the cell under the cursor
    repaint();
    dark.addEventListener("change", () => { repaint(); this.build(); });
    addEventListener("resize", () => { clearTimeout(this.timer); this.timer = setTimeout(() => this.build(), 120); });
    $("more").addEventListener("click", () => { this.all = !this.all; this.build(); });
    for (const [id, about] of [["lanes", (e) => this.#laneAt(e)], ["events", (e) => this.#eventNear(e)?.about]]) {
      $(id).addEventListener("click", (event) => { const name = about(event); if (name) this.open(name); });
    }
  }

  // Show a pool of a past, with the document's rows and events.
  show(past, pool, doc) {
    const other = this.past !== past || this.pool !== pool;
    Object.assign(this, { past, pool, doc });
    const names = past.of(pool), chosen = this.#interesting(names).join("\n");
    if (other || chosen !== this.chosen) { this.chosen = chosen; this.build(); } else this.refresh();
  }

  // The stack has room for a few: those that have something to tell first, the rest is one.
  #interesting(names) {
    const trouble = (name) => 20 * this.past.worst(name, "use") + this.past.worst(name, "engine") + (this.doc.replicas[name] ? LOOKS[this.doc.replicas[name].use].rank * 1000 : 0);
    const byTrouble = names.map((name) => [trouble(name), name]).sort((a, b) => b[0] - a[0]);
    const few = names.length <= SHOWN ? names : byTrouble.slice(0, SHOWN - 1).map(([, name]) => name);
    this.shown = few.sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
    const eventful = byTrouble.filter(([value]) => value > 40).map(([, name]) => name);
    this.lanes = this.all ? names : names.length <= LANES ? names : [...(eventful.length ? eventful : this.shown)].slice(0, LANES).sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
    return [...this.shown, "|", ...this.lanes, names.length];
  }

  build() {
    if (!this.past) return;
    for (const chart of Object.values(this.charts)) chart.destroy();
    const names = this.past.of(this.pool);
    this.chosen = this.#interesting(names).join("\n");
    const pen = el("canvas").getContext("2d");
    pen.font = "600 12px system-ui, sans-serif";
    this.gutter = 30 + Math.min(narrow() ? 52 : 130, Math.max(34, ...this.lanes.map((name) => pen.measureText(name).width)));
    const more = $("more"), hidden = names.length - this.lanes.length;
    more.hidden = !hidden && !(this.all && names.length > LANES);
    say(more, hidden ? `${hidden} others had nothing to tell: show all ${names.length}` : "show only those that have something to tell");
    this.charts = { share: this.#share(), lanes: this.#lanes(), admission: this.#admission(), events: this.#events() };
    this.#legends();
    this.refresh();
  }

  refresh() {
    if (document.hidden || !this.past) return;
    const { past, pool } = this, x = past.times();
    const shares = this.shares = past.shares(pool, this.shown);
    const stack = []; // the lowest last, so that each covers what is below its edge
    for (let k = shares.length - 1; k >= 0; k--) stack.push(shares[0].map((first, i) => { if (first === null) return null; let sum = 0; for (let j = 0; j <= k; j++) sum += shares[j][i]; return sum; }));
    // of many each has little: what is shown fills the panel, the others are above it
    const few = stack[shares.length - this.shown.length] ?? [];
    this.top = shares.length > this.shown.length ? Math.min(1, Math.max(.01, 1.15 * few.reduce((most, sum) => Math.max(most, sum ?? 0), 0))) : 1;
    this.flow = past.admission(pool);
    const blank = new Array(x.length).fill(null);
    this.charts.share.setData([x, ...stack]);
    this.charts.admission.setData([x, ...this.flow]);
    this.charts.lanes.setData([x, blank]);
    this.charts.events.setData([x, blank]);
    this.tell();
  }

  // Panels

  #options(id, height, series, more = {}) {
    const axis = { stroke: () => colours.dim, grid: { stroke: () => colours.line, width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif" };
    return new uPlot({
      width: $(id).clientWidth || 600, height, legend: { show: false }, padding: [8, 18, more.x ? 0 : 8, 0],
      cursor: { y: false, drag: { x: false, y: false }, points: { show: false }, sync: { key: "timeline" } },
      scales: { x: { time: true, range: () => this.#reach() }, y: { range: more.range } },
      axes: [{ ...axis, show: Boolean(more.x), size: 22, space: 76, values: (u, ticks, a, b, step) => ticks.map((t) => step < 60 ? clock(t) : clock(t).slice(0, 5)) }, { ...axis, show: true, size: this.gutter, gap: 6, space: 26, values: more.values, splits: more.splits, grid: { ...axis.grid, show: !more.bare } }],
      series: [{}, ...series], hooks: { draw: [more.draw ?? (() => {})], setCursor: [(u) => this.#moved(u)] },
    }, [[]], $(id));
  }

  // From when to when: the whole span, or what there is of it.
  #reach() {
    const { newest, cells, step, since } = this.past;
    return [Math.max(newest - (cells - 1) * step, Math.min(since, newest - Math.max(120, 20 * step))), newest];
  }

  #share() {
    const kinds = this.past.of(this.pool).length > this.shown.length ? [...this.shown, null] : this.shown;
    const series = kinds.map((_, k) => kinds.length - 1 - k).map((k) => ({ fill: () => this.#colour(k), stroke: () => colours.card, width: 1.5, points: { show: false }, spanGaps: false }));
    return this.#options("share", narrow() ? 92 : 118, series, { range: () => [0, this.top ?? 1], splits: (u, axis, low, high) => [0, high / 2, high], values: (u, s) => s.map(percent), draw: (u) => this.#names(u, kinds) });
  }

  #colour(k) { return k < this.shown.length ? colours[`c${k % 8}`] : colours["held-fill"]; }

  // The names stand in their bands, and dashes are where even shares would end.
  #names(u, kinds) {
    const c = u.ctx, r = devicePixelRatio, { left, top, width, height } = u.bbox, last = this.past.cells - 1;
    c.save(); c.beginPath(); c.rect(left, top, width, height); c.clip();
    c.strokeStyle = colours.ink; c.globalAlpha = .75; c.lineWidth = r; c.setLineDash([2 * r, 5 * r]);
    if (kinds.length <= 4) for (let k = 1; k < kinds.length; k++) { const y = u.valToPos(k / kinds.length, "y", true); c.beginPath(); c.moveTo(left, y); c.lineTo(left + width, y); c.stroke(); }
    c.globalAlpha = 1; c.font = `600 ${11 * r}px system-ui, sans-serif`; c.textBaseline = "middle"; c.textAlign = "right";
    let below = 0;
    kinds.forEach((name, k) => {
      const share = this.shares?.[k]?.[last] ?? 0, mid = below + share / 2; below += share;
      if (share / u.scales.y.max * height < 13 * r || mid > u.scales.y.max) return;
      const text = name ?? "others", y = u.valToPos(mid, "y", true), w = c.measureText(text).width;
      c.fillStyle = colours.card; c.globalAlpha = .85; c.fillRect(left + width - w - 12 * r, y - 8 * r, w + 8 * r, 16 * r); c.globalAlpha = 1;
      c.fillStyle = colours.ink; c.fillText(text, left + width - 8 * r, y);
    });
    c.restore();
  }

  #lanes() {
    return this.#options("lanes", this.lanes.length * LANE + 6, [{ show: false }], { range: () => [0, 1], splits: () => [], values: () => [], bare: true, draw: (u) => this.#paintLanes(u) });
  }

  #paintLanes(u) {
    const c = u.ctx, r = devicePixelRatio, { left, top } = u.bbox, past = this.past;
    const x = (i) => u.valToPos(past.newest - (past.cells - 1 - i) * past.step, "x", true);
    this.lanes.forEach((name, lane) => {
      const track = past.replicas[name], y = top + (lane * LANE - 4) * r, use = this.doc.replicas[name]?.use;
      c.fillStyle = use && LOOKS[use].rank >= 6 ? colours.bad : colours.ink; c.textBaseline = "middle"; c.textAlign = "right";
      c.font = `${use && LOOKS[use].rank >= 6 ? 700 : 500} ${(narrow() ? 11 : 12) * r}px system-ui, sans-serif`;
      c.fillText(clipped(c, name, left - 22 * r), left - 20 * r, y + BAND / 2 * r);
      if (use) { c.textAlign = "center"; c.fillText(LOOKS[use].sign, left - 10 * r, y + BAND / 2 * r); }
      for (const [from, to, code] of runs(track.use)) this.#segment(c, x(from), x(to), y, BAND * r, past.uses[code], LOOKS[past.uses[code]]);
      for (const [from, to, code] of runs(track.engine)) {
        const state = past.engines[code];
        if (state === "READY") { c.fillStyle = colours.ok; c.fillRect(x(from), y + (BAND + 2) * r, x(to) - x(from), 2.5 * r); } else this.#segment(c, x(from), x(to), y + (BAND + 1) * r, STRIP * r, state, ENGINE_LOOKS[state]);
      }
    });
  }

  #segment(c, x0, x1, y, height, word, look) {
    const r = devicePixelRatio, width = Math.max(1.5 * r, x1 - x0);
    c.fillStyle = fill(c, look); c.fillRect(x0, y, width, height);
    if (word === "healthy") { c.fillStyle = colours.ok; c.fillRect(x0, y + height / 2 - r, width, 2 * r); return; }
    if (word !== "READY" && x0 > c.canvas.width * .05) { c.fillStyle = colours.ink; c.fillRect(x0, y, r, height); }
    c.font = `600 ${Math.min(11, height / r - 1.5) * r}px system-ui, sans-serif`;
    const room = c.measureText(word).width + 10 * r;
    if (width < room) return;
    c.textAlign = "left"; c.textBaseline = "middle";
    if (look.pattern) { c.fillStyle = colours[look.fill]; c.fillRect(x0 + 2 * r, y + r, room - 4 * r, height - 2 * r); }
    c.fillStyle = look.light ? "#fff" : colours.ink; c.fillText(word, x0 + 5 * r, y + height / 2 + .5 * r);
  }

  #admission() {
    const series = [
      { stroke: () => colours.c0, width: 1, fill: () => colours["back-fill"], points: { show: false } },
      { stroke: () => colours.warn, width: 2, dash: [5, 3], points: { show: false } },
      { stroke: () => colours.bad, fill: () => `${colours["bad-fill"]}99`, width: 0, paths: uPlot.paths.bars({ size: [1, Infinity] }), points: { show: false } },
      { stroke: () => colours.ink, width: 1.75, paths: uPlot.paths.stepped({ align: 1 }), points: { show: false } },
    ];
    return this.#options("admission", narrow() ? 92 : 110, series, { range: (u, low, high) => [0, Math.max(4, (high ?? 0) * 1.1)], values: (u, s) => s.map(count) });
  }

  #events() {
    return this.#options("events", 46, [{ show: false }], { x: true, range: () => [0, 1], splits: () => [], values: () => [], bare: true, draw: (u) => this.#paintEvents(u) });
  }

  #paintEvents(u) {
    const c = u.ctx, r = devicePixelRatio, { left, top, width, height } = u.bbox;
    c.save(); c.beginPath(); c.rect(left, top, width, height); c.clip();
    for (const event of this.events()) {
      const x = u.valToPos(event.at_ms / 1000, "x", true), bad = grave(event);
      c.fillStyle = bad ? colours.bad : colours.dim; c.beginPath();
      if (bad) { c.moveTo(x, top + 3 * r); c.lineTo(x + 6 * r, top + 15 * r); c.lineTo(x - 6 * r, top + 15 * r); } else c.arc(x, top + 11 * r, 3 * r, 0, 7);
      c.fill();
    }
    c.restore();
  }

  // Events about this pool's replicas, or about no replica.
  events() {
    const mine = new Set(this.past.of(this.pool)), from_ms = 1000 * (this.past.newest - this.past.cells * this.past.step);
    return this.doc.events.filter((event) => event.at_ms >= from_ms && (mine.has(event.about) || !this.doc.replicas[event.about]));
  }

  // The cursor

  #moved(u) {
    const at = u.cursor.left >= 0 && u.cursor.idx !== null && u.cursor.idx !== undefined ? u.cursor.idx : null;
    if (at === this.at) return;
    this.at = at;
    this.pending ??= requestAnimationFrame(() => { this.pending = null; this.tell(); });
  }

  #legends() {
    const kinds = this.shares0 = [...this.shown, ...(this.past.of(this.pool).length > this.shown.length ? ["others"] : [])];
    const flat = (colour) => key((c, w, h) => { c.fillStyle = colour; c.fillRect(0, 0, w, h); });
    const put = (id, entries) => $(id).replaceChildren(...entries.map(([mark, name]) => el("span", {}, mark, `${name} `, el("b"))));
    put("share-legend", kinds.map((name, k) => [flat(this.#colour(k)), name]));
    const uses = [...new Set(this.lanes.flatMap((name) => [...new Set(this.past.replicas[name].use)]))].filter(Boolean).sort((a, b) => a - b).map((code) => this.past.uses[code]);
    $("lanes-legend").replaceChildren(...uses.map((use) => el("span", {}, key((c, w, h) => { c.fillStyle = fill(c, LOOKS[use]); c.fillRect(0, 0, w, h); }), use)), el("span", { class: "told" }));
    const line = (colour, dash, width) => key((c, w, h) => { c.strokeStyle = colour; c.setLineDash(dash); c.lineWidth = width; c.beginPath(); c.moveTo(0, h / 2); c.lineTo(w, h / 2); c.stroke(); });
    put("admission-legend", [[flat(colours["back-fill"]), "in flight"], [line(colours.warn, [9, 6], 4), "queued"], [flat(`${colours["bad-fill"]}99`), "refused/s"], [line(colours.ink, [], 4), "limit"]]);
  }

  // What is under the cursor, or now.
  tell() {
    const { past } = this, i = this.at ?? past.cells - 1, at_s = past.newest - (past.cells - 1 - i) * past.step;
    $("at").replaceChildren(this.at === null ? "now; move over it to look back" : "at ", el("b", {}, this.at === null ? "" : clock(at_s)));
    const values = (id, texts) => [...$(id).querySelectorAll("b")].forEach((node, k) => say(node, texts[k] ?? ""));
    values("share-legend", this.shares.map((share) => percent(share[i])));
    values("admission-legend", this.flow.map((column, k) => column[i] === null ? "–" : k === 2 ? String(Math.round(10 * column[i]) / 10) : count(column[i])));
    const told = this.lanes.filter((name) => past.replicas[name].use[i]).map((name) => [name, past.uses[past.replicas[name].use[i]], past.engines[past.replicas[name].engine[i]]]).filter(([, use, engine]) => this.at !== null && (use !== "healthy" || (engine && engine !== "READY")));
    say($("lanes-legend").querySelector(".told"), told.slice(0, 3).map(([name, use, engine]) => `${name}: ${use}${engine ? `, engine ${engine}` : ""}`).join("   "));
    const near = this.at === null ? [] : this.events().filter((event) => Math.abs(event.at_ms / 1000 - at_s) <= Math.max(past.step, past.step * past.cells / 180));
    $("event-legend").replaceChildren(...near.slice(-1).map((event) => el("span", {}, el("b", {}, event.about || "fleet"), ` ${event.what} ${event.text}`)));
  }

  #laneAt(event) {
    const box = $("lanes").querySelector("canvas").getBoundingClientRect();
    return this.lanes[Math.floor((event.clientY - box.top - 4) / LANE)];
  }

  #eventNear(event) {
    const u = this.charts.events, box = u.over.getBoundingClientRect(), x = event.clientX - box.left;
    const far = (one) => Math.abs(u.valToPos(one.at_ms / 1000, "x") - x);
    return this.events().filter((one) => one.about in this.doc.replicas && far(one) < 10).sort((a, b) => far(a) - far(b))[0];
  }
}

// Whether an event took something away: what counts is where it went to.
export const grave = (event) => /LOST|EJECTED|CLOSED|DEAD|STALLED/.test(event.text.split(":")[0].split(", ").map((part) => part.split("->").pop()).join()) || /alarm|disconnected/.test(event.what);

// Stretches of equal codes, [from, to, code]; where nothing is known there is none.
function runs(codes) {
  const found = [];
  for (let i = 0, from = 0; i < codes.length; i++) {
    if (codes[i + 1] === codes[i] && i + 1 < codes.length) continue;
    if (codes[i]) found.push([from, i + 1, codes[i]]);
    from = i + 1;
  }
  return found;
}

function clipped(c, text, width) {
  if (c.measureText(text).width <= width) return text;
  let end = text.length;
  while (end > 1 && c.measureText(`…${text.slice(-end)}`).width > width) end--;
  return `…${text.slice(-end)}`; // names differ at their ends
}
