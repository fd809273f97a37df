// A strip of an event at 25 mm/s and 10 mm/mV: drag along it, choose a beat, say what it is.
import {beatColour, clockMs, colours, fit, grid, h, hatch, isOwner, mark, on, PX_PER_MM, complain, toast} from "./base.js";
import {waveTiles} from "./store.js";

const PPS = 25 * PX_PER_MM;

export class Strip {
  constructor(event, changed) {
    this.event = event; this.changed = changed; this.beat = null; this.place = null;
    this.from = event.start_ms - 1500;
    this.canvas = h("canvas", {role: "img", "aria-label": "ECG strip", tabIndex: 0});
    this.tools = h("div.row", {hidden: true});
    this.caption = h("small.num");
    this.root = h("div.stack", {}, h("div.strip", {}, this.canvas), h("div.row", {}, this.caption, h("span.grow"), this.tools));
    this.dirty = true; this.stopped = false;
    const again = () => { this.dirty = true; };
    this.offs = [on("tile", again), on("theme", again)];
    this.watch = new ResizeObserver(() => { if (!this.placed && this.canvas.clientWidth) { this.placed = true; const s = this.span(), long = event.end_ms - event.start_ms; if (long < s * 1000 * .8) this.from = (event.start_ms + event.end_ms) / 2 - s * 500; } again(); });
    this.watch.observe(this.root);
    let grabbed = null;
    this.canvas.onpointerdown = e => { grabbed = {x: e.offsetX, from: this.from, moved: 0}; this.canvas.setPointerCapture(e.pointerId); };
    this.canvas.onpointermove = e => { if (grabbed) { grabbed.moved = Math.max(grabbed.moved, Math.abs(e.offsetX - grabbed.x)); if (grabbed.moved > 4) { this.from = grabbed.from - (e.offsetX - grabbed.x) / PPS * 1000; again(); } } };
    this.canvas.onpointerup = e => { if (grabbed && grabbed.moved <= 4) this.pick(e.offsetX); grabbed = null; };
    this.canvas.addEventListener("wheel", e => { if (Math.abs(e.deltaX) > Math.abs(e.deltaY) || e.shiftKey) { e.preventDefault(); this.from += (e.deltaX || e.deltaY) / PPS * 1000; again(); } }, {passive: false});
    const loop = () => { if (this.stopped) return; requestAnimationFrame(loop); if (this.dirty) { this.dirty = false; this.draw(); } };
    requestAnimationFrame(loop);
  }
  close() { this.stopped = true; this.watch.disconnect(); this.offs.forEach(off => off()); }
  span() { return this.canvas.clientWidth / PPS; }
  pieces(from = this.from, to = this.from + this.span() * 1000) { return waveTiles(from, to).flat().filter(p => p.recording === this.event.recording); }
  beats(from, to) {
    const found = new Map();
    for (const p of this.pieces(from, to)) p.beats.samples.forEach((s, i) => found.set(s, {sample: s, type: p.beats.types[i], t: p.t_ms + (s - p.first) / p.fs_hz * 1000, confidence: p.beats.confidence[i]}));
    return [...found.values()].sort((a, b) => a.sample - b.sample);
  }
  pick(x) {
    const t = this.from + x / PPS * 1000, near = this.beats().sort((a, b) => Math.abs(a.t - t) - Math.abs(b.t - t))[0];
    if (near && Math.abs(near.t - t) < 180) { this.beat = near; this.place = null; }
    else { const p = this.pieces().find(one => t >= one.t_ms && t < one.t_ms + one.n / one.fs_hz * 1000); this.beat = null; this.place = p ? {sample: Math.round(p.first + (t - p.t_ms) / 1000 * p.fs_hz), t} : null; }
    this.show();
  }
  step(by) {
    const all = this.beats(this.from - 5000, this.from + this.span() * 1000 + 5000);
    if (!all.length) return;
    const at = this.beat ? all.findIndex(b => b.sample === this.beat.sample) : all.findIndex(b => b.t >= this.event.start_ms) - by;
    this.beat = all[Math.min(Math.max(at + by, 0), all.length - 1)];
    this.place = null;
    const end = this.from + this.span() * 1000;
    if (this.beat.t < this.from + 300 || this.beat.t > end - 300) this.from = this.beat.t - this.span() * 500;
    this.show();
  }
  show() {
    this.dirty = true;
    const at = this.beat || this.place;
    this.tools.hidden = !at || !isOwner();
    if (!at) return;
    this.tools.replaceChildren(h("span.soft.num", {}, this.beat ? `beat ${this.beat.type} at ${clockMs(this.beat.t)}, confidence ${this.beat.confidence}` : `no beat at ${clockMs(this.place.t)}: add one`),
      ...["N", "S", "V", "F", "Q"].map(kind => h("button", {"aria-pressed": String(this.beat?.type === kind), onclick: () => this.say(kind), title: `Shift+${kind}`}, kind)),
      this.beat ? h("button", {onclick: () => this.say(null), title: "Del"}, "Remove") : null);
  }
  async say(kind) {
    const at = this.beat || this.place;
    if (!at || !isOwner()) return;
    try {
      const done = await mark({kind: "beat", recording_id: this.event.recording, sample: at.sample, type: kind});
      toast(kind ? `Beat is ${kind}` : "Beat removed", "kept beside the machine's reading", {seconds: 4});
      this.beat = this.place = null; this.tools.hidden = true;
      this.changed(done);
    } catch (error) { complain(error); }
  }
  key(e) {
    if (e.key === "[" || e.key === "]") { this.step(e.key === "]" ? 1 : -1); return true; }
    if (e.shiftKey && "NSVFQ".includes(e.key)) { this.say(e.key); return true; }
    if (e.key === "Delete" && this.beat) { this.say(null); return true; }
    return false;
  }
  rangesOf(pieces, leads) { // the middle of each lead; rows grow to hold it, they never shrink while one drags
    this.rowMm ??= {};
    return leads.map(name => {
      const found = pieces.flatMap(p => Array.from(p.mv[p.leads.indexOf(name)] || []).filter(Number.isFinite)).sort((a, b) => a - b);
      this.rowMm[name] ??= leads.length > 1 ? 18 : 30;
      if (!found.length) return 0;
      const lo = found[Math.floor(found.length * .0005)], hi = found[Math.ceil(found.length * .9995) - 1];
      this.rowMm[name] = Math.min(Math.max(this.rowMm[name], (hi - lo) * 10 + 6), 56);
      return (lo + hi) / 2;
    });
  }
  draw() {
    const pieces = this.pieces(), leads = [...new Set(pieces.flatMap(p => p.leads))].slice(0, 3), ranges = this.rangesOf(pieces, leads);
    const heights = leads.map(name => Math.round(this.rowMm[name] * PX_PER_MM)), tops = heights.map((_, n) => 20 + heights.slice(0, n).reduce((sum, one) => sum + one, 0));
    const H = 24 + heights.reduce((sum, one) => sum + one, leads.length ? 0 : 120), {c, width} = fit(this.canvas, H), colour = colours(), scale = 10 * PX_PER_MM;
    if (!width) return;
    const to = this.from + width / PPS * 1000, x = t => (t - this.from) / 1000 * PPS;
    grid(c, 0, 0, width, H, PX_PER_MM, x(Math.ceil(this.from / 200) * 200));
    const {start_ms, end_ms} = this.event.right || this.event;
    c.fillStyle = colour.shade; c.fillRect(Math.max(x(start_ms), 0), 0, Math.min(x(end_ms), width) - Math.max(x(start_ms), 0), H);
    if (!pieces.length) { c.fillStyle = colour.soft; c.font = "13px system-ui"; c.fillText("reading …", 12, H / 2); }
    leads.forEach((name, n) => {
      const centre = ranges[n], row = heights[n], top = tops[n], mid = top + row / 2;
      c.save(); c.beginPath(); c.rect(0, top, width, row); c.clip();
      c.strokeStyle = colour.trace; c.lineWidth = 1.6; c.lineJoin = "round";
      for (const p of pieces) {
        const v = p.mv[p.leads.indexOf(name)], dt = 1000 / p.fs_hz;
        if (!v) continue;
        const first = Math.max(0, Math.floor((this.from - p.t_ms) / dt) - 1), last = Math.min(v.length, Math.ceil((to - p.t_ms) / dt) + 1);
        c.beginPath();
        let open = false, hole = -1;
        for (let i = first; i < last; i++) {
          if (!Number.isFinite(v[i])) { if (hole < 0) hole = i; open = false; continue; }
          if (hole >= 0) { hatch(c, x(p.t_ms + hole * dt), top, (i - hole) * dt / 1000 * PPS, row); hole = -1; }
          const py = mid - (v[i] - centre) * scale;
          open ? c.lineTo(x(p.t_ms + i * dt), py) : c.moveTo(x(p.t_ms + i * dt), py);
          open = true;
        }
        c.stroke();
        if (hole >= 0) hatch(c, x(p.t_ms + hole * dt), top, (last - hole) * dt / 1000 * PPS, row);
      }
      c.restore();
      c.font = "600 13px system-ui"; c.fillStyle = colour.trace; c.fillText(name, 6, top + 16);
    });
    c.textAlign = "center";
    for (const b of this.beats()) {
      const at = x(b.t), chosen = this.beat?.sample === b.sample;
      if (chosen) { c.fillStyle = colour.accent; c.globalAlpha = .25; c.fillRect(at - 12, 0, 24, H); c.globalAlpha = 1; }
      c.fillStyle = beatColour(b.type); c.font = (b.type === "N" ? "" : "700 ") + "13px system-ui"; c.fillText(b.type, at, 14); c.fillRect(at - .5, 17, 1, 5);
    }
    if (this.place) { c.fillStyle = colour.accent; c.fillRect(x(this.place.t) - 1, 0, 2, H); }
    c.textAlign = "left"; c.fillStyle = colour.soft; c.font = "11px system-ui";
    c.textAlign = "right"; c.fillText("25 mm/s   10 mm/mV   no filter", width - 8, H - 6); c.textAlign = "left";
    this.caption.textContent = `${clockMs(this.from)} to ${clockMs(to)}. Drag to move; choose a beat to correct it.`;
  }
}
