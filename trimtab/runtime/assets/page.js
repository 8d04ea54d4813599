// The page: one stream of what changes, one past, and everything drawn from these two.

import { $, LOOKS, chip, clock, el, quoted, say, worst } from "./dom.js";
import { Past } from "./past.js";
import * as tables from "./tables.js";
import { Timeline, grave } from "./timeline.js";

const SPANS = { "15m": "15 minutes", "1h": "hour", "6h": "6 hours" };
const EVENTS_MAX = 500, LOG = 8, SILENT_MS = 5000;
const isPublic = location.pathname.endsWith("/public/");
const wish = new URLSearchParams(location.hash.slice(1));
let doc = null, past = null, waiting = [], heard = 0, span = wish.get("span") in SPANS ? wish.get("span") : "15m", pool = wish.get("pool") ?? "";
const timeline = new Timeline((name) => ask?.(name));
const ask = isPublic ? null : explain;

function keep() { history.replaceState(null, "", `#${new URLSearchParams({ span, pool })}`); }

// The past

async function load() {
  const wanted = span;
  waiting = [];
  past = null;
  const answer = await fetch(`history?span=${wanted}`);
  if (!answer.ok || wanted !== span) return;
  past = new Past(await answer.json());
  for (const cell of waiting) past.take(cell, poolOf);
  draw();
}

const poolOf = (name) => doc.replicas[name]?.pool ?? "";

function take(cells) {
  if (!past) { waiting.push(...cells); return false; }
  return cells.map((cell) => past.take(cell, poolOf)).some(Boolean);
}

// The stream

function listen() {
  const stream = new EventSource("stream");
  stream.addEventListener("whole", (event) => { doc = JSON.parse(event.data); hear(); load(); text(); });
  stream.addEventListener("change", (event) => {
    const { replicas, gone, events, cells, ...rest } = JSON.parse(event.data);
    Object.assign(doc, rest);
    Object.assign(doc.replicas, replicas);
    for (const name of gone ?? []) delete doc.replicas[name];
    if (events?.length) doc.events = [...doc.events, ...events].slice(-EVENTS_MAX);
    hear();
    if (take(cells) || events?.length) draw();
    text();
  });
  setInterval(() => {
    const silent = Date.now() - heard > SILENT_MS && doc;
    document.body.classList.toggle("stale", Boolean(silent));
    $("lost").hidden = !silent;
    if (silent) say($("lost"), `✕ No word from ${doc.seen_by} ${doc.name} since ${clock(heard / 1000)}: what is below is old. Trying again.`);
  }, 1000);
}

function hear() { heard = Date.now(); }

// Drawing

function text() {
  if (document.hidden) return;
  if (!doc.pools.some((one) => one.pool === pool)) pool = doc.replicas[worst(doc.replicas)[0]]?.pool || doc.pools[0]?.pool || "";
  document.title = `${{ OK: "✓", DEGRADED: "▲", DOWN: "✕" }[doc.level]} ${doc.fleet || doc.name || "Trimtab"}`;
  say($("fleet"), doc.fleet || "Trimtab");
  say($("seen"), doc.name ? `as ${doc.seen_by} ${doc.name} sees it` : "");
  const facts = doc.facts.map(([name, value]) => el("span", {}, `${name} `, el("b", {}, value)));
  $("facts").replaceChildren(...facts);
  say($("clock"), clock(doc.at_s));
  tables.verdict(doc, ask);
  tables.pools(doc, pool, choose, spark);
  tables.replicas(doc, pool, ask);
  $("tenants-part").hidden = isPublic;
  tables.tenants(doc);
  tables.requests(doc);
}

function draw() {
  if (document.hidden || !past || !doc) return;
  $("timeline").hidden = !pool;
  if (!pool) return;
  say($("span-name"), SPANS[past.span]);
  say($("of-pool"), doc.pools.length > 1 ? ` of ${pool}` : "");
  for (const button of $("spans").children) button.setAttribute("aria-pressed", button.textContent === span);
  timeline.show(past, pool, doc);
  const from = past.newest - past.cells * past.step;
  say($("since"), past.since > from ? `Since ${clock(past.since)}: ${doc.seen_by === "edge" ? "this edge started" : "this leader began"} then, and knows nothing from before.` : "");
  log();
}

function log() {
  const events = timeline.events().slice(-LOG).reverse(), box = $("log"), told = events.map((event) => event.number).join();
  if (box.told === told) return;
  box.told = told;
  box.replaceChildren(...events.map((event) => el("li", {}, el("time", {}, clock(event.at_ms / 1000)), ask && event.about in doc.replicas ? el("button", { class: "about", type: "button", click: () => ask(event.about) }, event.about) : el("b", {}, event.about || "fleet"), el("span", {}, `${grave(event) ? "▲ " : ""}${event.what} ${event.text}`))));
}

// The queue of a pool over the span, as a small line.
function spark(name) {
  const queued = past?.pools[name]?.queued;
  if (!queued) return "";
  const most = Math.max(4, ...queued), width = 120 / queued.length;
  let path = "";
  for (let i = 0, step = Math.ceil(queued.length / 120); i < queued.length; i += step) path += `${path ? "L" : "M"}${(i * width).toFixed(1)} ${(26 - 24 * queued[i] / most).toFixed(1)}`;
  return path;
}

function choose(name) { pool = name; keep(); text(); draw(); }

// Why

async function explain(name) {
  const box = $("why-text"), dialog = $("why");
  box.replaceChildren(el("p", {}, `asking about ${name} …`));
  if (!dialog.open) dialog.showModal();
  const answer = await fetch(`explain/${encodeURIComponent(name)}`);
  if (!answer.ok) { box.replaceChildren(el("p", {}, await answer.text())); return; }
  const why = await answer.json(), row = doc.replicas[name];
  const findings = why.findings.flatMap((found) => [el("dt", {}, found.what), el("dd", { class: found.concern }, found.text)]);
  const lately = why.events.slice(-8).reverse().map((event) => el("p", {}, el("b", {}, clock(event.at_ms / 1000)), ` ${event.what} ${event.text}`));
  const held = ["CORDONED", "DRAINING", "SPARE"].includes(row?.intent), q = quoted(name);
  const commands = [`ctl explain replica ${q}`, ...(held ? [`ctl uncordon ${q}`] : [`ctl cordon ${q} --reason ""`, `ctl drain ${q} --reason ""`]), ...(row?.use === "ejected" ? [`ctl probe ${q}`, `ctl breaker reset ${q} --reason ""`] : []), `ctl events --for ${q}`];
  const part = (title, children) => children.length ? [el("h4", {}, title), ...children] : [];
  box.replaceChildren(el("h2", {}, `${LOOKS[row?.use]?.sign ?? ""} ${why.headline}`), el("p", {}, why.traffic), el("p", {}, why.effect), ...part("every cause, the worst first", [el("dl", {}, ...findings)]), ...part("what helps", why.advice.map((hint) => el("p", {}, hint))), ...part("lately", lately), ...part("commands to copy: nothing can be changed here", commands.map((command) => chip(command))));
}

for (const name of Object.keys(SPANS)) $("spans").append(el("button", { type: "button", click: () => { span = name; keep(); load(); draw(); } }, name));
$("why").addEventListener("click", (event) => { if (event.target === $("why")) $("why").close(); });
document.addEventListener("visibilitychange", () => { if (!document.hidden && doc) { text(); draw(); } });
listen();
