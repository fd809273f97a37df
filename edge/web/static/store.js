// What the review views have fetched: days, beats and waveform in tiles, so that panning and zooming never wait.
import {api, app, emit, on, query, unpack} from "./base.js";

const DAY = 864e5, BEATS = 6e5, WAVE = 2e4;
const kept = new Map(), wanted = new Set();
const LIMITS = {day: 40, beats: 60, wave: 80};

function tile(kind, at, length, path, make) {
  const id = `${kind}/${app.wearer}/${at}`, found = kept.get(id);
  if (found && !(found.old && performance.now() - found.at > 4000)) { kept.delete(id); kept.set(id, found); return found.value; }
  if (!wanted.has(id) && app.wearer) {
    wanted.add(id);
    const wearer = app.wearer;
    api(path + query({wearer, start: Math.max(at, 0), end: at + length})).then(raw => {
      const same = [...kept.keys()].filter(k => k.startsWith(kind + "/"));
      if (same.length >= LIMITS[kind]) kept.delete(same[0]);
      kept.set(id, {value: make(raw), at: performance.now(), old: at + length > Date.now() + app.clockSkewMs - 6e4});
    }, () => kept.set(id, {value: found?.value ?? null, at: performance.now(), old: true})).finally(() => { wanted.delete(id); if (wearer === app.wearer) emit("tile", kind); });
  }
  return found?.value;
}
const tiles = (from, to, length) => { const out = []; for (let t = Math.floor(from / length) * length; t < to; t += length) out.push(t); return out.slice(0, 12); };
const read = (kind, path, length, make = x => x) => (from, to) => tiles(from, to, length).map(at => tile(kind, at, length, path, make)).filter(Boolean);

export const days = read("day", "/api/overview", DAY);
export const beatTiles = read("beats", "/api/beats", BEATS);
export const waveTiles = read("wave", "/api/wave", WAVE, pieces => pieces.map(p => ({...p, mv: unpack(p)})));
export const loading = () => wanted.size > 0;
export function forget(...kinds) { for (const id of [...kept.keys()]) if (kinds.some(k => id.startsWith(k + "/"))) kept.get(id).old = true, kept.get(id).at = 0; emit("tile", "all"); }
on("marked", () => forget("day", "beats", "wave"));

export function eventsIn(from, to) { // each once, by start
  const found = new Map();
  for (const d of days(from, to)) for (const e of d.events) if (e.end_ms >= from && e.start_ms < to) found.set(e.id, e);
  return [...found.values()].sort((a, b) => a.start_ms - b.start_ms || a.id.localeCompare(b.id));
}
