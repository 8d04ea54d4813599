// The timeline's data in the browser: one span, its columns as typed arrays, cells as they come.

const ARRAYS = { B: Uint8Array, H: Uint16Array, I: Uint32Array };
const SMOOTH = { "15m": 10, "1h": 6, "6h": 4 }; // cells over which a share is taken

function unpacked(text, code) {
  const raw = atob(text), bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return new ARRAYS[code](bytes.buffer);
}

export class Past {
  constructor(view) {
    Object.assign(this, { span: view.span, step: view.step_s, cells: view.cells, newest: view.newest_s, since: view.since_s, uses: view.uses, engines: view.engines, columns: view.columns });
    this.replicas = this.#tracks(view.replicas, view.columns.replicas);
    this.pools = this.#tracks(view.pools, view.columns.pools);
  }

  #tracks(found, columns) {
    return Object.fromEntries(Object.entries(found).map(([name, track]) => [name, { pool: track.pool, ...Object.fromEntries(columns.map(([column, code]) => [column, unpacked(track[column], code)])) }]));
  }

  // Take a finished cell in; whether anything to draw has changed.
  take(cell, poolOf) {
    if (cell.span !== this.span) return false;
    const steps = Math.round((cell.at_s - this.newest) / this.step);
    if (steps > 0) this.#shift(steps);
    const at = this.cells - 1 + Math.min(0, steps);
    if (at < 0) return false;
    this.#put(this.replicas, this.columns.replicas, cell.replicas, at, poolOf);
    this.#put(this.pools, this.columns.pools, cell.pools, at, () => "");
    return true;
  }

  #shift(steps) {
    this.newest += steps * this.step;
    for (const tracks of [this.replicas, this.pools]) for (const track of Object.values(tracks)) for (const column of Object.values(track)) {
      if (typeof column === "string" || column === undefined) continue;
      column.copyWithin(0, steps);
      column.fill(0, Math.max(0, this.cells - steps));
    }
  }

  #put(tracks, columns, cell, at, poolOf) {
    for (const [name, values] of Object.entries(cell)) {
      const track = tracks[name] ??= { pool: poolOf(name), ...Object.fromEntries(columns.map(([column, code]) => [column, new ARRAYS[code](this.cells)])) };
      columns.forEach(([column], i) => { track[column][at] = values[i]; });
    }
  }

  times() { return Array.from({ length: this.cells }, (_, i) => this.newest - (this.cells - 1 - i) * this.step); }

  of(pool) { return Object.keys(this.replicas).filter((name) => this.replicas[name].pool === pool).sort((a, b) => a.localeCompare(b, "en", { numeric: true })); }

  // The worst code of a column in the whole span.
  worst(name, column) { return this.replicas[name][column].reduce((most, code) => Math.max(most, code), 0); }

  // Shares of the attempts of a pool, each name's over the last few cells, and the rest as one.
  shares(pool, shown) {
    const all = this.of(pool), window = SMOOTH[this.span], total = this.#running(all, window);
    const parts = shown.map((name) => this.#running([name], window));
    const share = (sums) => sums.map((sum, i) => total[i] ? sum / total[i] : null);
    const found = parts.map(share);
    if (shown.length < all.length) found.push(share(total.map((sum, i) => sum - parts.reduce((s, part) => s + part[i], 0))));
    return found;
  }

  // Totals of a pool: in flight, queued, refused a second, and the limit.
  admission(pool) {
    const limit = new Array(this.cells).fill(0), inflight = limit.slice(), known = limit.slice(), mine = this.pools[pool];
    for (const name of this.of(pool)) {
      const track = this.replicas[name];
      for (let i = 0; i < this.cells; i++) { limit[i] += track.limit[i]; inflight[i] += track.inflight[i]; known[i] |= track.use[i]; }
    }
    const there = (column) => Array.from(column, (value, i) => known[i] ? value : null);
    const none = inflight.map(() => 0);
    return [there(inflight), there(mine?.queued ?? none), there(mine?.refused ?? none).map((n) => n === null ? null : n / this.step), there(limit)];
  }

  #running(names, window) {
    const sums = new Array(this.cells).fill(0);
    for (const name of names) {
      const started = this.replicas[name].started;
      for (let i = 0, sum = 0; i < this.cells; i++) { sum += started[i] - (i >= window ? started[i - window] : 0); sums[i] += sum; }
    }
    return sums;
  }
}
