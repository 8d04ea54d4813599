// Small helpers: elements, numbers and times as people read them, commands to copy.

export const $ = (id) => document.getElementById(id);

// An element with attributes, listeners (functions) and children; text is never parsed.
export function el(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(key, value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

// Put text into a node, and touch nothing if it is there already.
export function say(node, text) { if (node.textContent !== text) node.textContent = text; }

export const count = (value) => value === null || value === undefined ? "–" : Math.round(value).toLocaleString("en");
export const percent = (value) => value === null || value === undefined ? "–" : `${value > 0 && value < 0.0995 ? (100 * value).toFixed(1) : Math.round(100 * value)} %`;
export const seconds = (value) => value === null || value === undefined ? "–" : value < 1 ? `${Math.round(value * 1000)} ms` : `${value < 10 ? value.toFixed(1) : Math.round(value)} s`;
export function span(value) {
  const s = Math.max(0, Math.round(value));
  return s < 60 ? `${s} s` : s < 3600 ? `${Math.floor(s / 60)} min ${s % 60} s` : s < 172800 ? `${Math.floor(s / 3600)} h ${Math.floor(s % 3600 / 60)} min` : `${Math.floor(s / 86400)} d`;
}
const pad = (number) => String(number).padStart(2, "0");
export function clock(at_s) {
  const t = new Date(at_s * 1000);
  return `${pad(t.getHours())}:${pad(t.getMinutes())}:${pad(t.getSeconds())}`;
}

// A name as a shell takes it.
export const quoted = (name) => /^[\w.@%+=:,/-]+$/.test(name) ? name : `'${name.replaceAll("'", "'\\''")}'`;

// A command to copy; what can't reach the clipboard is selected instead.
export function chip(command, extra = "") {
  const node = el("button", { class: `chip ${extra}`, type: "button", title: "copy this command" }, command);
  node.addEventListener("click", async (event) => {
    event.stopPropagation();
    try { await navigator.clipboard.writeText(command); } catch { getSelection().selectAllChildren(node); document.execCommand("copy"); }
    node.classList.add("copied");
    setTimeout(() => node.classList.remove("copied"), 1500);
  });
  return node;
}

// How each use of a replica looks: a sign, a class, and how its part of the timeline is filled.
export const LOOKS = {
  healthy: { sign: "●", tone: "healthy", fill: "ok-fill", rank: 0 },
  spare: { sign: "◇", tone: "held", fill: "held-fill", pattern: "dots", rank: 1 },
  cordoned: { sign: "◇", tone: "held", fill: "held-fill", pattern: "rise", rank: 2 },
  draining: { sign: "◇", tone: "held", fill: "held-fill", pattern: "rise", rank: 2 },
  joining: { sign: "◔", tone: "back", fill: "back-fill", pattern: "dots", rank: 3 },
  ramping: { sign: "◑", tone: "back", fill: "back-fill", pattern: "rise", rank: 4 },
  probing: { sign: "◔", tone: "back", fill: "back-fill", pattern: "dots", rank: 5 },
  degraded: { sign: "▲", tone: "watch", fill: "warn-fill", pattern: "lines", rank: 6 },
  avoided: { sign: "▲", tone: "watch", fill: "warn-fill", pattern: "lines", rank: 6 },
  closed: { sign: "✕", tone: "sick", fill: "bad-fill", pattern: "fall", light: true, rank: 7 },
  ejected: { sign: "✕", tone: "sick", fill: "bad-fill", light: true, rank: 8 },
  lost: { sign: "✕", tone: "sick", fill: "bad-fill", pattern: "cross", light: true, rank: 9 },
};
export const ENGINE_LOOKS = {
  WARMING: { fill: "back-fill", pattern: "dots" }, STARTING: { fill: "back-fill", pattern: "rise" },
  SLEEPING: { fill: "held-fill" }, DRAINING: { fill: "held-fill", pattern: "rise" }, UNKNOWN: { fill: "soft", pattern: "dots" },
  STALLED: { fill: "bad-fill", pattern: "fall", light: true }, DEAD: { fill: "bad-fill", light: true },
};
export const worst = (rows) => Object.entries(rows).sort(([a, x], [b, y]) => LOOKS[y.use].rank - LOOKS[x.use].rank || a.localeCompare(b, "en", { numeric: true })).map(([name]) => name);
