// One time axis from a week to a beat: events, heart rate, rhythm, ectopy, signal, and, close up, the ECG itself.
import {beatColour, clock, clockMs, clockS, colours, day, dayStart, emit, fit, full, grid, h, hatch, isoDay, lasts, median, offsetMs, on, zoneName} from "./base.js";
import {beatTiles, days, eventsIn, loading, waveTiles} from "./store.js";

export const SEVERITIES = ["critical", "urgent", "advisory", "info"];
const RHYTHM = {N: ["sinus or organised", "#69b3a2"], AFIB: ["atrial fibrillation", "#e8590c"], AFL: ["atrial flutter", "#f08c00"], SVTA: ["supraventricular tachycardia", "#7048e8"], VT: ["ventricular tachycardia", "#c2255c"], VF: ["ventricular fibrillation", "#7d0f36"], P: ["paced", "#4dabf7"], ASYS: ["asystole", "#495057"]};
const LEFT = 46, MIN = 1200, MAX = 8 * 864e5, CLOSE = 45e3, BEATS = 40 * 6e4;
const STEPS = [200, 1e3, 2e3, 5e3, 1e4, 3e4, 6e4, 3e5, 6e5, 9e5, 18e5, 36e5, 72e5, 108e5, 216e5, 432e5, 864e5];

export class Timeline {
  constructor(view, {shift = () => 0, onpick = () => {}, label = "Day at a glance"} = {}) {
    this.view = view; this.shift = shift; this.onpick = onpick; this.chosen = null; this.filter = () => true;
    this.canvas = h("canvas", {role: "img", "aria-label": label, tabIndex: 0});
    this.tip = h("div.tip", {hidden: true});
    this.caption = h("small.num");
    this.root = h("div.line", {}, this.caption, this.canvas, this.tip);
    this.hits = []; this.dirty = true; this.stopped = false; this.frames = 0; this.drawMs = 0;
    const again = () => { this.dirty = true; };
    this.offs = [on("tile", again), on("theme", again), on("view", again)];
    this.watch = new ResizeObserver(again); this.watch.observe(this.root);
    this.pointers = new Map();
    this.canvas.addEventListener("pointerdown", e => this.down(e));
    this.canvas.addEventListener("pointermove", e => this.move(e));
    for (const name of ["pointerup", "pointercancel"]) this.canvas.addEventListener(name, e => this.up(e));
    this.canvas.addEventListener("pointerleave", () => { this.tip.hidden = true; });
    this.canvas.addEventListener("wheel", e => { e.preventDefault(); const r = this.canvas.getBoundingClientRect(); e.shiftKey || Math.abs(e.deltaX) > Math.abs(e.deltaY) ? this.view.pan((e.deltaX || e.deltaY) / this.plot()) : this.view.zoom(Math.exp(e.deltaY * .0018), (e.clientX - r.left - LEFT) / this.plot()); }, {passive: false});
    this.canvas.addEventListener("dblclick", e => this.view.zoom(.25, (e.offsetX - LEFT) / this.plot()));
    const loop = () => { if (this.stopped) return; requestAnimationFrame(loop); if (this.dirty) { this.dirty = false; const t = performance.now(); this.draw(); this.drawMs = performance.now() - t; this.frames++; } };
    requestAnimationFrame(loop);
  }
  close() { this.stopped = true; this.watch.disconnect(); this.offs.forEach(off => off()); }
  plot() { return Math.max(this.canvas.clientWidth - LEFT - 6, 50); }
  range() { const s = this.shift(this.view.from); return [this.view.from + s, this.view.to + s]; }

  down(e) { this.canvas.setPointerCapture(e.pointerId); this.pointers.set(e.pointerId, [e.offsetX, e.offsetY]); this.moved = 0; this.tip.hidden = true; }
  up(e) {
    const was = this.pointers.delete(e.pointerId);
    if (was && this.moved < 5 && e.type === "pointerup") { const hit = this.hit(e.offsetX, e.offsetY); if (hit) this.onpick(hit.event); }
  }
  move(e) {
    const before = this.pointers.get(e.pointerId);
    if (!before) { this.hover(e); return; }
    const dx = e.offsetX - before[0];
    this.moved += Math.abs(dx) + Math.abs(e.offsetY - before[1]);
    if (this.pointers.size === 1) { if (this.moved >= 3) this.view.pan(-dx / this.plot()); }
    else {
      const [a, b] = [...this.pointers.values()], old = Math.hypot(a[0] - b[0], a[1] - b[1]);
      this.pointers.set(e.pointerId, [e.offsetX, e.offsetY]);
      const [c, d] = [...this.pointers.values()], now = Math.hypot(c[0] - d[0], c[1] - d[1]);
      if (old > 10 && now > 10) this.view.zoom(old / now, ((c[0] + d[0]) / 2 - LEFT) / this.plot());
    }
    this.pointers.set(e.pointerId, [e.offsetX, e.offsetY]);
  }
  hit(x, y) { return this.hits.find(b => x >= b.x - 4 && x <= b.x + b.w + 4 && y >= b.y - 2 && y <= b.y + b.h + 2); }
  hover(e) {
    const [from, to] = this.range(), t = from + (e.offsetX - LEFT) / this.plot() * (to - from), hit = this.hit(e.offsetX, e.offsetY);
    if (e.offsetX < LEFT || t > to) { this.tip.hidden = true; return; }
    let text = `${day(t)} ${to - from < 6e5 ? clockMs(t).slice(0, 10) : clockS(t)}`;
    if (hit) text = `${hit.event.name}\n${day(hit.event.start_ms)} ${clockS(hit.event.start_ms)}, ${lasts(hit.event.end_ms - hit.event.start_ms)}`;
    else for (const d of days(t - 1, t + 1)) {
      const m = d.minutes, i = m.t.findIndex(one => one <= t && one + 6e4 > t);
      if (i >= 0) text += `\n${m.hr[i] == null ? "no rate" : m.hr[i].toFixed(0) + " /min"}  ${RHYTHM[m.rhythm[i]]?.[0] || "no rhythm"}\n${m.v[i]} V  ${m.s[i]} S of ${m.n[i]} beats, ${m.readable[i]} s readable`;
    }
    this.tip.textContent = text; this.tip.hidden = false;
    this.tip.style.left = Math.min(e.offsetX + 14, this.canvas.clientWidth - this.tip.offsetWidth - 4) + "px";
    this.tip.style.top = Math.max(0, e.offsetY - this.tip.offsetHeight - 10) + "px";
    this.canvas.style.cursor = hit ? "pointer" : "";
  }

  draw() {
    const small = innerWidth < 700, [from, to] = this.range(), span = to - from, close = span <= CLOSE;
    const H = close ? 470 : 350, {c, width} = fit(this.canvas, H), w = width - LEFT - 6, colour = colours();
    const x = t => LEFT + (t - from) / span * w;
    c.clearRect(0, 0, width, H);
    c.font = "11px system-ui"; c.textBaseline = "alphabetic";
    const lanes = close ? {events: [22, 52], hr: [80, 70], rhythm: [156, 12], ecg: [186, 262]} : {events: [22, 60], hr: [92, 120], rhythm: [224, 16], ectopy: [254, 44], signal: [312, 14]};
    this.caption.textContent = this.words(from, to);
    const tilesOfDays = days(from, to);
    this.axis(c, x, from, to, width, H, small);
    const minutes = [];
    for (const d of tilesOfDays) for (let i = 0; i < d.minutes.t.length; i++) if (d.minutes.t[i] + 6e4 >= from && d.minutes.t[i] <= to) minutes.push([d.minutes, i]);
    this.recorded(c, x, tilesOfDays, from, to, lanes);
    this.rate(c, x, minutes, lanes.hr, from, to, span);
    this.rhythm(c, x, minutes, lanes.rhythm);
    if (lanes.ectopy) this.ectopy(c, x, minutes, lanes.ectopy, w, span);
    if (lanes.signal) this.signal(c, x, minutes, lanes.signal);
    if (lanes.ecg) this.ecg(c, x, from, to, lanes.ecg, w);
    this.events(c, x, from, to, lanes.events, w, tilesOfDays, H);
    c.fillStyle = colour.soft; c.textAlign = "right";
    const name = (text, lane) => c.fillText(text, LEFT - 6, lane[0] + Math.min(lane[1], 14) - 2);
    name("events", lanes.events); name("rhythm", lanes.rhythm);
    lanes.ectopy && name("V, S", lanes.ectopy); lanes.signal && name("signal", lanes.signal);
    c.textAlign = "left";
  }
  words(from, to) { // which span of which day this is
    const changes = offsetMs(from) !== offsetMs(to - 1) ? `, the clocks change: ${+((to - from) / 36e5).toFixed(1)} h` : "";
    const zones = [...new Set([zoneName(from), zoneName(to - 1)])].join(" / ");
    if (to - from >= 864e5 * .9) return `${[...new Set([day(from), day(to - 1)])].join(" – ")} ${zones}${changes}`;
    return `${full(from)} – ${isoDay(from) === isoDay(to - 1) ? "" : day(to - 1) + " "}${clockS(to)} ${zones}${changes}`;
  }
  axis(c, x, from, to, width, H, small) {
    const colour = colours(), span = to - from, step = STEPS.find(s => s / span * (width - LEFT) > (small ? 62 : 84)) || 864e5;
    c.strokeStyle = colour.line; c.fillStyle = colour.soft; c.lineWidth = 1; c.textAlign = "center";
    const origin = dayStart(from), tick = Math.min(step, 18e5); // a change of clocks moves the hours
    for (let t = origin + Math.floor((from - origin) / tick) * tick; t <= to; t += tick) {
      const at = Math.round(x(t)) + .5;
      if (at < LEFT - 1 || (step > tick && (t + offsetMs(t)) % step)) continue;
      const midnight = ((t + offsetMs(t)) % 864e5) === 0;
      c.strokeStyle = midnight ? colour.soft : colour.line;
      c.beginPath(); c.moveTo(at, 18); c.lineTo(at, H); c.stroke();
      const words = midnight && step >= 36e5 ? day(t) : step < 1e3 ? clockMs(t).slice(6, 10) : step < 6e4 ? clockS(t) : clock(t);
      if (at + c.measureText(words).width / 2 <= width) c.fillText(words, at, 12);
    }
    c.textAlign = "left";
  }
  recorded(c, x, tiles, from, to, lanes) { // what nobody recorded is no night of good health
    const [y] = lanes.hr, bottom = lanes.ecg ? lanes.rhythm[0] + lanes.rhythm[1] : lanes.signal[0] + lanes.signal[1];
    let at = from;
    const spans = tiles.flatMap(d => d.spans).sort((a, b) => a[0] - b[0]);
    for (const [a, b] of [...spans, [to, to]]) {
      const start = Math.min(Math.max(a, from), to);
      if (start > at && tiles.length) hatch(c, x(at), y, x(start) - x(at), bottom - y);
      at = Math.max(at, Math.min(b, to));
    }
  }
  beatRates(from, to) { // each beat's own rate
    const found = [];
    for (const tile of beatTiles(from, to)) for (const r of tile) for (let i = 1; i < r.t.length; i++) {
      const rr = r.t[i] - r.t[i - 1];
      if (r.t[i] >= from && r.t[i] <= to && rr >= 200 && rr <= 3000) found.push({t: r.t[i], type: r.types[i], rate: 6e4 / rr});
    }
    return found;
  }
  rate(c, x, minutes, [y, hh], from, to, span) {
    const colour = colours(), known = minutes.filter(([m, i]) => m.hr[i] != null);
    let low = 50, high = 100;
    for (const [m, i] of known) { low = Math.min(low, m.min[i]); high = Math.max(high, m.max[i]); }
    const dots = span <= BEATS ? this.beatRates(from, to) : [];
    for (const d of dots) { low = Math.min(low, d.rate); high = Math.max(high, d.rate); }
    low = Math.floor(low / 10) * 10; high = Math.min(Math.ceil(high / 10) * 10, 260);
    const Y = v => y + hh - (Math.min(v, high) - low) / (high - low) * hh;
    c.textAlign = "right"; c.fillStyle = colour.soft; c.strokeStyle = colour.line;
    for (const v of [low, (low + high) / 2, high]) { c.fillText(v.toFixed(0), LEFT - 6, Y(v) + 4); c.beginPath(); c.moveTo(LEFT, Y(v)); c.lineTo(x(to), Y(v)); c.stroke(); }
    c.textAlign = "left";
    c.save(); c.beginPath(); c.rect(LEFT, y - 4, x(to) - LEFT, hh + 8); c.clip();
    if (span <= BEATS) {
      for (const d of dots) {
        const normal = d.type === "N";
        c.fillStyle = normal ? colour.accent : beatColour(d.type);
        c.beginPath(); c.arc(x(d.t), Y(d.rate), (normal ? 1 : 1.4) * (span > 3e5 ? 1.2 : 2), 0, 7); c.fill();
      }
    } else {
      const per = Math.max(1, Math.floor(minutes.length / 1500));
      c.fillStyle = colour.band; c.beginPath();
      for (let n = 0; n < known.length; n += per) {
        let lo = 999, hi = 0; const [m, i] = known[n];
        for (let k = n; k < Math.min(n + per, known.length); k++) { lo = Math.min(lo, known[k][0].min[known[k][1]]); hi = Math.max(hi, known[k][0].max[known[k][1]]); }
        c.rect(x(m.t[i]), Y(hi), Math.max(x(m.t[i] + 6e4 * per) - x(m.t[i]), 1), Math.max(Y(lo) - Y(hi), 1));
      }
      c.fill();
      c.strokeStyle = colour.accent; c.lineWidth = 1.6; c.lineJoin = "round"; c.beginPath();
      let before = -1e15;
      for (let n = 0; n < known.length; n += per) { const [m, i] = known[n], px = x(m.t[i] + 3e4), py = Y(m.hr[i]); m.t[i] - before > 9e4 * per ? c.moveTo(px, py) : c.lineTo(px, py); before = m.t[i]; }
      c.stroke(); c.lineWidth = 1;
    }
    c.restore();
  }
  rhythm(c, x, minutes, [y, hh]) {
    for (const [m, i] of minutes) {
      const [, fill] = RHYTHM[m.rhythm[i]] || [], x1 = Math.max(Math.floor(x(m.t[i])), LEFT), x2 = Math.ceil(x(m.t[i] + 6e4));
      if (fill && x2 > x1) { c.fillStyle = fill; c.fillRect(x1, y, x2 - x1, hh); }
    }
  }
  ectopy(c, x, minutes, [y, hh], w, span) { // per minute; several minutes to a pixel: the worst of them
    const colour = colours(), most = Math.max(10, ...minutes.map(([m, i]) => m.v[i] + m.s[i]));
    const px = 6e4 / span * w;
    let columns = new Map();
    for (const [m, i] of minutes) { const key = px >= 2 ? m.t[i] : Math.floor(x(m.t[i]) / 2); const old = columns.get(key); if (!old || old.v + old.s < m.v[i] + m.s[i]) columns.set(key, {t: m.t[i], v: m.v[i], s: m.s[i]}); }
    for (const {t, v, s} of columns.values()) {
      const wide = Math.max(px - (px > 6 ? 1 : 0), 1.6), x1 = Math.max(x(t), LEFT), hv = v / most * hh, hs = s / most * hh;
      if (x1 + wide < LEFT) continue;
      c.fillStyle = colour.v; c.fillRect(x1, y + hh - hv, wide, hv);
      c.fillStyle = colour.s; c.fillRect(x1, y + hh - hv - hs, wide, hs);
    }
    c.fillStyle = colour.soft; c.textAlign = "right"; c.fillText(`${most}/min`, LEFT - 6, y + 26); c.textAlign = "left";
  }
  signal(c, x, minutes, [y, hh]) {
    const colour = colours();
    for (const [m, i] of minutes) {
      const share = m.readable[i] / 60, x1 = Math.max(Math.floor(x(m.t[i])), LEFT), x2 = Math.ceil(x(m.t[i] + 6e4));
      if (x2 <= x1 || !m.recorded[i]) continue;
      c.fillStyle = share > .9 ? colour.ok : share > .5 ? colour.advisory : colour.urgent;
      c.fillRect(x1, y + hh * (1 - Math.max(share, .12)), x2 - x1, hh * Math.max(share, .12));
    }
  }
  ecg(c, x, from, to, [y, hh], w) {
    const colour = colours(), pieces = waveTiles(from, to).flat();
    const leads = [...new Set(pieces.flatMap(p => p.leads))].slice(0, 2), each = hh / Math.max(leads.length, 1);
    const px = w / (to - from) * 1000, mm = px / 25; // so long is a millimetre of time
    if (mm > 1.4) grid(c, LEFT, y, w, hh, mm, x(Math.ceil(from / 200) * 200) - LEFT); else { c.fillStyle = colour.paper; c.fillRect(LEFT, y, w, hh); }
    if (!loading()) holes(pieces, from, to).forEach(([a, b]) => hatch(c, x(a), y, x(b) - x(a), hh));
    c.save(); c.beginPath(); c.rect(LEFT, y, w, hh); c.clip();
    leads.forEach((name, n) => {
      const values = pieces.map(p => p.mv[p.leads.indexOf(name)]).filter(Boolean);
      let lo = Infinity, hi = -Infinity;
      const centre = median(values.flatMap(v => Array.from(v.filter((_, i) => i % 8 === 0))));
      pieces.forEach(p => { const v = p.mv[p.leads.indexOf(name)]; if (v) for (let i = 0; i < v.length; i += 2) { if (v[i] < lo) lo = v[i]; if (v[i] > hi) hi = v[i]; } });
      const scale = Math.min(Math.max(mm * 10, 24), each * .8 / Math.max(hi - lo, .5)), mid = y + each * (n + .52) + ((hi + lo) / 2 - centre) * scale * .6;
      for (const p of pieces) {
        const v = p.mv[p.leads.indexOf(name)];
        if (!v) continue;
        const t = p.t_ms, dt = 1000 / p.fs_hz, first = Math.max(0, Math.floor((from - t) / dt) - 1), last = Math.min(v.length, Math.ceil((to - t) / dt) + 1);
        c.fillStyle = colour.paper;
        c.strokeStyle = colour.trace; c.lineWidth = 1.5; c.lineJoin = "round"; c.beginPath();
        let open = false;
        for (let i = first; i < last; i++) { if (!Number.isFinite(v[i])) { open = false; continue; } const px_ = x(t + i * dt), py = mid - (v[i] - centre) * scale; open ? c.lineTo(px_, py) : c.moveTo(px_, py); open = true; }
        c.stroke();
        for (const [a, b] of p.off) { c.fillStyle = colour.off; c.fillRect(x(t + a * dt), y, (b - a) * dt / (to - from) * w, hh); }
        if (n === 0) p.beats.samples.forEach((s, i) => { const px_ = x(t + (s - p.first) * dt), kind = p.beats.types[i]; c.fillStyle = beatColour(kind); c.font = kind === "N" ? "11px system-ui" : "700 12px system-ui"; c.textAlign = "center"; if (w / (to - from) * 1000 > 22) c.fillText(kind, px_, y + 13); c.fillRect(px_ - .5, y + 16, 1, 5); });
      }
      c.textAlign = "left"; c.font = "600 12px system-ui"; c.fillStyle = colour.trace; c.fillText(name, LEFT + 6, y + each * n + 28);
    });
    c.restore(); c.lineWidth = 1; c.font = "11px system-ui";
  }
  events(c, x, from, to, [y, hh], w, tiles, H) {
    const colour = colours(), rowH = hh / 4;
    this.hits = [];
    const shown = eventsIn(from, to).filter(e => this.filter(e));
    SEVERITIES.forEach((_, n) => { c.strokeStyle = colour.line; c.beginPath(); c.moveTo(LEFT, y + rowH * (n + .5)); c.lineTo(LEFT + w, y + rowH * (n + .5)); c.stroke(); });
    for (const e of shown) {
      const row = SEVERITIES.indexOf(e.severity), x1 = Math.max(x(e.start_ms), LEFT), x2 = Math.min(x(e.end_ms), LEFT + w), box = {x: x1, y: y + row * rowH + 2, w: Math.max(x2 - x1, 6), h: rowH - 4, event: e};
      this.hits.unshift(box);
      const chosen = this.chosen === e.id;
      if (chosen) { c.fillStyle = colour.shade; c.fillRect(x1, y, Math.max(x2 - x1, 2), H - y); }
      c.fillStyle = c.strokeStyle = colour[e.severity];
      c.globalAlpha = e.verdict === "false" ? .3 : 1;
      c.beginPath(); c.roundRect(box.x, box.y, box.w, box.h, 3);
      e.verdict ? c.fill() : (c.globalAlpha = .45, c.fill(), c.globalAlpha = 1, c.lineWidth = 1.5, c.stroke(), c.lineWidth = 1);
      c.globalAlpha = 1;
      if (chosen) { c.strokeStyle = colour.ink; c.lineWidth = 2; c.stroke(); c.lineWidth = 1; }
    }
    for (const d of tiles) for (const m of d.marks) if (m.t_ms >= from && m.t_ms <= to) { // symptoms and notes: flags
      const at = x(m.t_ms);
      c.fillStyle = colour.mark; c.fillRect(at - .75, y - 2, 1.5, H - y); c.beginPath(); c.moveTo(at, y - 2); c.lineTo(at + 9, y + 3); c.lineTo(at, y + 8); c.fill();
      if (w / (to - from) * 36e5 > 40) c.fillText(m.note || m.kind, at + 11, y + 7);
    }
  }
}
function holes(pieces, from, to) { // spans of [from, to] without a sample
  const spans = [];
  for (const p of pieces) {
    const v = p.mv[0], dt = 1000 / p.fs_hz;
    for (let i = 0, start = -1; i <= v.length; i++) { const there = i < v.length && Number.isFinite(v[i]); if (there && start < 0) start = i; if (!there && start >= 0) { spans.push([p.t_ms + start * dt, p.t_ms + i * dt]); start = -1; } }
  }
  const out = [];
  let at = from;
  for (const [a, b] of [...spans.sort((p, q) => p[0] - q[0]), [to, to]]) { if (Math.min(a, to) > at + 20) out.push([at, Math.min(a, to)]); at = Math.max(at, b); }
  return out;
}
export const legend = () => h("div.legend", {}, Object.values(RHYTHM).map(([name, fill]) => { const i = h("i"); i.style.setProperty("--c", fill); return h("span", {}, i, name); }), h("span", {}, (() => { const i = h("i"); i.style.setProperty("--c", "var(--v)"); return i; })(), "V beats"), h("span", {}, (() => { const i = h("i"); i.style.setProperty("--c", "var(--s)"); return i; })(), "S beats"));

export class View { // what part of time is shown
  constructor(from, to) { this.from = from; this.to = to; }
  set(from, to) { const span = Math.min(Math.max(to - from, MIN), MAX), mid = (from + to) / 2; this.from = mid - span / 2; this.to = mid + span / 2; emit("view"); }
  pan(share) { const d = (this.to - this.from) * share; this.set(this.from + d, this.to + d); }
  zoom(factor, at = .5) { const span = Math.min(Math.max((this.to - this.from) * factor, MIN), MAX), t = this.from + (this.to - this.from) * at; this.set(t - span * at, t + span * (1 - at)); }
}
