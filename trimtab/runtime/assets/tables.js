// Verdict, models, replicas, tenants, requests: what the document says, as text.

import { $, LOOKS, chip, clock, count, el, percent, quoted, say, seconds, span, worst } from "./dom.js";

const ABOUT = /^replica (\S+): /, PROBLEMS = 12;

export function verdict(doc, open) {
  const box = $("verdict"), text = JSON.stringify([doc.level, doc.sentence, doc.problems, doc.by_hand]);
  if (box.told === text) return;
  box.told = text;
  box.className = doc.level;
  const more = doc.problems.length - PROBLEMS;
  const problems = doc.problems.slice(0, PROBLEMS).map((problem) => {
    const name = ABOUT.exec(problem)?.[1], grave = name && ["sick"].includes(LOOKS[doc.replicas[name]?.use]?.tone);
    return el("li", { class: grave ? "worst" : "" }, name ? el("span", {}, el("b", {}, name), problem.slice(8 + name.length)) : problem, name && open ? el("button", { class: "ask", type: "button", click: () => open(name) }, "why") : null, name ? chip(`ctl explain replica ${quoted(name)}`, "extra") : null);
  });
  if (more > 0) problems.push(el("li", {}, `and ${more} more`, chip("ctl status")));
  const byHand = doc.by_hand.map((one) => el("li", { class: "hand" }, `by hand until ${clock(one.until_s).slice(0, 5)}: ${one.text} `, chip(one.undo, "extra")));
  problems.unshift(...byHand);
  box.replaceChildren(el("p", {}, el("span", { class: "word" }, `${{ OK: "✓", DEGRADED: "▲", DOWN: "✕" }[doc.level]} ${doc.level}`), doc.sentence), problems.length ? el("ul", {}, ...problems) : "");
}

export function pools(doc, chosen, choose, spark) {
  const box = $("pools");
  const names = doc.pools.map((pool) => pool.pool).join("\n");
  if (box.told !== names) {
    box.told = names;
    box.replaceChildren(...doc.pools.map((pool) => {
      const facts = ["open", "requests", "first token p50 / p99", "output", "in flight", "queued", "refused"].map((name) => el("span", { class: "fact" }, el("i", {}, name), el("b")));
      const path = document.createElementNS("http://www.w3.org/2000/svg", "path"), svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
      svg.setAttribute("class", "spark"); svg.setAttribute("viewBox", "0 0 120 28"); svg.append(path);
      return el("button", { class: "pool", type: "button", "data-pool": pool.pool, click: () => choose(pool.pool) }, el("span", { class: "name" }, pool.pool), ...facts, svg);
    }));
  }
  doc.pools.forEach((pool, i) => {
    const row = box.children[i], [open, requests, ttft, output, inflight, queued, refused] = row.querySelectorAll(".fact");
    row.setAttribute("aria-pressed", pool.pool === chosen);
    const put = (fact, text, hot = false) => { say(fact.lastChild, text); fact.classList.toggle("hot", hot); };
    put(open, `${pool.open} of ${pool.replicas}`, pool.open < pool.replicas);
    put(requests, `${(pool.requests_1m / 60).toFixed(pool.requests_1m < 600 ? 1 : 0)}/s`);
    put(ttft, pool.ttft_p50_s === null ? "–" : `${seconds(pool.ttft_p50_s)} / ${seconds(pool.ttft_p99_s)}`);
    put(output, pool.tokens_per_s === null ? "–" : `${count(pool.tokens_per_s)} tok/s`);
    put(inflight, `${count(pool.inflight)} of ${count(pool.open_slots)}`);
    put(queued, count(pool.queued));
    const share = pool.requests_1m ? pool.shed_1m / pool.requests_1m : 0;
    put(refused, percent(share), share > 0.01);
    row.querySelector("path").setAttribute("d", spark(pool.pool));
  });
}

const gpu = (row) => row.gpus ? [row.gpus.count > 1 ? `${row.gpus.count}×` : "", row.gpus.celsius === null ? "" : `${row.gpus.celsius} °C`, row.gpus.load_ratio === null ? "" : percent(row.gpus.load_ratio), row.gpus.lost ? `${row.gpus.lost} lost` : "", row.gpus.xids.length ? `Xid ${row.gpus.xids.join(",")}` : ""].filter(Boolean).join(" ") : "–";
const COLUMNS = [
  ["slots", "n", (row) => `${count(row.inflight)}/${count(row.limit)}`],
  ["waiting", "n narrow", (row) => count(row.waiting)],
  ["KV", "n mid", (row) => percent(row.kv_cache_usage_ratio)],
  ["first token p50 / p99", "n lo", (row) => row.ttft_p50_s === null ? "–" : `${seconds(row.ttft_p50_s)} / ${seconds(row.ttft_p99_s)}`],
  ["tok/s", "n mid", (row) => count(row.tokens_per_s)],
  ["share", "n narrow", (row) => percent(row.share_ratio)],
  ["its part", "n mid", (row) => percent(row.weight)],
  ["failed", "n lo", (row) => row.failures_1m ? `▲ ${count(row.failures_1m)}` : "0"],
  ["full", "n mid", (row) => count(row.overloads_1m)],
  ["GPU", "mid", gpu],
];
const EDGE_LACKS = new Set(["KV", "first token p50 / p99", "tok/s", "failed", "full", "GPU"]);
const FEW = 40;
const cells = new Map();

// The command that helps most, as far as one can say; nobody is told to drain the last one.
function action(name, row, doc) {
  const isLast = (doc.pools.find((pool) => pool.pool === row.pool)?.open ?? 0) < 2;
  const held = ["CORDONED", "DRAINING", "SPARE"].includes(row.intent);
  return held ? `ctl uncordon ${quoted(name)}` : row.serving === "OPEN" && !isLast ? `ctl drain ${quoted(name)}` : `ctl explain replica ${quoted(name)}`;
}

export function replicas(doc, pool, open) {
  const columns = doc.seen_by === "edge" ? COLUMNS.filter(([title]) => !EDGE_LACKS.has(title)) : COLUMNS;
  const rows = Object.fromEntries(Object.entries(doc.replicas).filter(([, row]) => !pool || !row.pool || row.pool === pool));
  const sorted = worst(rows), shown = sorted.slice(0, replicas.all ? sorted.length : FEW), box = $("replicas");
  say(box.previousElementSibling, doc.pools.length > 1 && pool ? `Replicas of ${pool}` : "Replicas");
  if (!shown.length) { box.replaceChildren(el("p", { class: "none" }, "no replica is known")); return; }
  const wanted = JSON.stringify([shown, shown.map((name) => [rows[name].use, rows[name].intent, action(name, rows[name], doc)]), columns.length, Boolean(open)]);
  if (box.told !== wanted) {
    box.told = wanted;
    cells.clear();
    const head = el("tr", {}, el("th", {}, "replica"), el("th", {}, doc.seen_by === "edge" ? "told, doubted" : "breaker, engine"), ...columns.map(([title, tone]) => el("th", { class: tone }, title)), el("th"), el("th", { class: "lo" }));
    const body = shown.map((name) => {
      const look = LOOKS[rows[name].use], tds = columns.map(([, tone]) => el("td", { class: tone })), why = el("span", { class: "why" }), state = el("span", { class: "state" });
      cells.set(name, [state, why, tds]);
      return el("tr", { class: look.tone, "data-replica": name }, el("td", {}, el("span", { class: "glyph" }, look.sign), el("span", { class: "name" }, name)), el("td", {}, state, why), ...tds, el("td", {}, open ? el("button", { class: "ask", type: "button", click: () => open(name) }, "why") : ""), el("td", { class: "lo" }, open ? chip(action(name, rows[name], doc)) : ""));
    });
    const more = sorted.length > FEW ? el("button", { id: "rows", class: "chip more", type: "button", click: () => { replicas.all = !replicas.all; replicas(doc, pool, open); } }, replicas.all ? "fewer" : `all ${sorted.length}`) : "";
    box.replaceChildren(el("table", {}, el("thead", {}, head), el("tbody", {}, ...body)), more);
  }
  for (const name of shown) {
    const row = rows[name], [state, why, tds] = cells.get(name);
    const engine = row.state && row.state !== "UNSPECIFIED" ? `, ${row.state}` : "";
    say(state, row.use + engine);
    say(why, LOOKS[row.use].rank ? reason(row, doc.at_s) : row.silent_since_s ? `its agent is silent since ${clock(row.silent_since_s)}` : "");
    columns.forEach(([, , text], i) => say(tds[i], text(row) ?? "–"));
  }
}

function reason(row, at_s) {
  const since = row.breaker_since_s ? ` for ${span(at_s - row.breaker_since_s)}` : "";
  const next = row.probed_at_s > at_s ? `; probed in ${span(row.probed_at_s - at_s)}` : "";
  return `${row.why || row.breaker_reason || ""}${since}${next}`;
}

function table(box, titles, rows, none) {
  const text = JSON.stringify(rows);
  if (box.told === text) return;
  box.told = text;
  box.replaceChildren(rows.length ? el("table", {}, el("thead", {}, el("tr", {}, ...titles.map(([title, tone]) => el("th", { class: tone }, title)))), el("tbody", {}, ...rows.map((row) => el("tr", {}, ...row.map((cell, i) => el("td", { class: titles[i][1] }, cell)))))) : el("p", { class: "none" }, none));
}

export function tenants(doc) {
  const busy = doc.tenants, fair = {};
  for (const one of busy) fair[one.pool] = (fair[one.pool] ?? 0) + 1;
  const here = doc.seen_by === "edge";
  const titles = [["tenant", ""], ["model", "lo"], [here ? "in flight" : "work 1m", "n"], [here ? "" : "even part", "n lo"], ["queued", "n"], ["oldest", "n"]];
  table($("tenants"), titles, busy.map((one) => [one.tenant, one.pool, here ? count(one.inflight) : percent(one.work_ratio), here ? "" : percent(1 / fair[one.pool]), count(one.queued), one.queued ? seconds(one.oldest_wait_s) : "–"]), "nobody asks for anything");
}

export function requests(doc) {
  $("requests-part").hidden = !doc.requests;
  $("pair").classList.toggle("one", !doc.requests);
  if (!doc.requests) return;
  const titles = [["request", ""], ["age", "n"], ["tenant", "lo"], ["replica", ""], ["does", "narrow"], ["tokens", "n"], ["tries", "n lo"]];
  table($("requests"), titles, doc.requests.map((one) => [one.request_id, span(doc.at_s - one.since_s), one.tenant, one.replica || "–", !one.replica ? "waits" : one.began ? "streams" : "first token awaited", count(one.tokens), count(one.attempts)]), "none is under way");
}
