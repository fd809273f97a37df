// The live view: a sweep at 25 mm/s and 10 mm/mV, beat marks as they are read, vitals, news.
import {app, beatColour, clockS, colours, emit, fit, grid, h, lasts, median, on, PX_PER_MM, query, unpack} from "./base.js";
import {go, listen} from "./app.js";

const SLACK_S = 0.12, KEEP_S = 60, BLANK_MM = 9, LABEL = 14, SHOWN_S = 9; // beats are read some 5 s after their samples: less would show none
const RHYTHMS = {N: "Sinus or organised", AFIB: "Atrial fibrillation", AFL: "Atrial flutter", SVTA: "Supraventricular tachycardia", VT: "Ventricular tachycardia", VF: "Ventricular fibrillation", P: "Paced", ASYS: "Asystole"};
const SIGNALS = {readable: "readable", gap: "nothing recorded", lead_off: "electrodes off", flat: "flat line", unreadable: "too noisy to read"};

export function live(main) {
  const chips = h("div.chips", {role: "group", "aria-label": "Leads"});
  const device = h("select", {"aria-label": "Device", onchange: () => choose(+device.value)});
  const hold = h("button", {onclick: () => setHeld(!held), title: "Space"}, "Hold");
  const speed = h("span.soft.num"), brief = h("b.num.brief");
  const paper = h("canvas", {"aria-hidden": "true"}), trace = h("canvas", {role: "img", "aria-label": "Live ECG"});
  const note = h("div.note", {role: "status"});
  const sweep = h("div.sweep", {}, paper, trace, note);
  const rate = h("span.hr", {id: "hr"}, "–"), facts = h("div");
  const news = h("ul.news");
  main.append(h("div.live", {},
    h("section.card.screen", {"aria-label": "Live ECG"}, h("div.row", {}, device, chips, brief, h("span.grow"), speed, h("button", {onclick: () => emit("symptom", null), title: "s"}, "Mark symptom"), hold), sweep),
    h("aside.vitals", {}, h("section.card", {}, h("h3", {}, "Heart rate"), rate, " ", h("small", {}, "/min"), facts),
      h("section.card", {}, h("h3", {}, "Newest events"), news))));

  let recording = null, leads = [], names = [], fs = 0;
  let ring = [], ringN = 0, newest = -1, oldest = 0, offRuns = [], beats = [];
  let play = -1, last = 0, held = false, base = 0, arrivals = [], rateNow = 1, frames = 0, centre = [], t0 = null;
  let slacks = [];
  let rows = [], width = 0, rowH = 0, perRow = 1, stopped = false, seenWave = 0;

  function devices() {
    const p = app.people.find(one => one.id === app.wearer), all = p?.devices || [];
    device.replaceChildren(...all.map(d => h("option", {value: d.recording}, `${d.device}${d.source === "live" ? "" : " (import)"}`)));
    device.hidden = all.length < 2;
    if (!all.length) { note.replaceChildren(h("span", {}, app.people.length ? "nothing recorded yet" : app.daemon.length > 11 ? app.daemon : "no wearer yet: one appears with its first data")); return; }
    if (!all.some(d => d.recording === recording)) choose(all[0].recording);
    else device.value = recording;
  }
  function choose(id, which) {
    const d = app.people.find(one => one.id === app.wearer)?.devices.find(one => one.recording === id);
    if (!d) return;
    recording = id; names = d.leads; fs = d.fs_hz; leads = which || (d.leads.length > 1 && innerWidth >= 900 ? [0, 1] : [0]);
    device.value = id;
    chips.replaceChildren(...names.map((name, n) => h("button", {"aria-pressed": String(leads.includes(n)), onclick: () => toggle(n)}, name)));
    chips.hidden = names.length < 2;
    clear();
    listen(query({recording, leads: leads.join(",")}));
  }
  function toggle(n) {
    const next = leads.includes(n) ? leads.filter(one => one !== n) : [...leads, n].sort((a, b) => a - b).slice(-3);
    if (next.length) choose(recording, next);
  }
  function clear() {
    ringN = Math.ceil(KEEP_S * fs);
    ring = leads.map(() => new Float32Array(ringN).fill(NaN));
    newest = -1; play = -1; offRuns = []; beats = []; arrivals = []; centre = leads.map(() => 0); rateNow = 1; t0 = null;
    layout();
  }
  function setHeld(value) {
    held = value;
    hold.setAttribute("aria-pressed", String(held));
    hold.textContent = held ? "Held" : "Hold";
    if (!held && newest > 0) { play = Math.max(play, newest - 2 * fs); redraw(); }
  }

  function layout() {
    const small = innerWidth < 900, mm = PX_PER_MM;
    width = sweep.clientWidth;
    if (!width) return;
    const seconds = width / (25 * mm);
    perRow = Math.max(1, Math.min(4, Math.ceil(SHOWN_S / seconds)));
    rowH = Math.round((small ? 32 : leads.length > 2 ? 36 : leads.length > 1 ? 45 : perRow > 1 ? 36 : 60) * mm);
    const height = rowH * Math.max(1, leads.length) * perRow;
    const {c} = fit(paper, height);
    fit(trace, height);
    grid(c, 0, 0, width, height);
    c.strokeStyle = colours().soft; c.lineWidth = 1.4;
    rows = leads.map((_, n) => n * perRow * rowH);
    for (let r = 0; r < rows.length; r++) { // the calibration pulse: 1 mV, 0.2 s
      const y = rows[r] + rowH - 6, x = 6;
      c.beginPath(); c.moveTo(x, y); c.lineTo(x + 2 * mm, y); c.lineTo(x + 2 * mm, y - 10 * mm); c.lineTo(x + 7 * mm, y - 10 * mm); c.lineTo(x + 7 * mm, y); c.lineTo(x + 9 * mm, y); c.stroke();
    }
    c.fillStyle = colours().soft; c.font = "11px system-ui";
    c.textAlign = "right"; c.fillText("25 mm/s   10 mm/mV", width - 8, height - 7); c.textAlign = "left";
    names.length && leads.forEach((lead, n) => { c.font = "600 13px system-ui"; c.fillStyle = colours().trace; c.fillText(names[lead], 8, rows[n] + LABEL + 22); });
    redraw();
  }
  const pps = () => 25 * PX_PER_MM;
  const span = () => perRow * width; // pixels of a whole sweep
  const place = sample => { const x = ((sample - base) / fs * pps()) % span(); return x < 0 ? x + span() : x; };

  function redraw() {
    const c = trace.getContext("2d");
    c.clearRect(0, 0, width, trace.height);
    if (play < 0) return;
    recentre();
    const from = Math.max(oldest, play - (span() - BLANK_MM * PX_PER_MM) / pps() * fs, 0);
    segment(c, from, play);
    for (const b of beats) if (b.sample >= from && b.sample <= play) label(c, b);
  }
  function recentre() {
    const half = (rowH - 26) / 2 / (10 * PX_PER_MM);
    centre = ring.map(values => {
      const n = Math.min(ringN, Math.round(4 * fs)), end = Math.floor(Math.max(play, 0)), some = [];
      for (let i = Math.max(end - n, oldest); i <= Math.min(end + fs, newest - 1); i += 2) some.push(values[i % ringN]);
      const kept = some.filter(Number.isFinite).sort((a, b) => a - b), low = kept[Math.floor(kept.length * .003)] ?? 0, high = kept[Math.ceil(kept.length * .997) - 1] ?? 0;
      return high - low > 2 * half ? (high + low) / 2 : Math.min(Math.max(median(kept), high - half), low + half);
    });
  }
  function segment(c, from, to) { // draw samples (from, to], row by row
    const scale = 10 * PX_PER_MM, colour = colours();
    ring.forEach((values, lead) => {
      let open = false, row = -1, lastX = 0;
      c.strokeStyle = colour.trace; c.lineWidth = 1.6; c.lineJoin = "round";
      c.beginPath();
      const begin = Math.max(Math.floor(from) - 1, oldest, 0);
      for (let i = begin; i <= Math.floor(to) && i < newest; i++) {
        const at = place(i), r = Math.floor(at / width), x = at - r * width, v = values[i % ringN];
        if (r !== row || x < lastX) { open = false; row = r; }
        lastX = x;
        const top = rows[lead] + r * rowH;
        if (!Number.isFinite(v)) { open = false; continue; }
        const y = Math.min(Math.max(top + rowH / 2 - (v - centre[lead]) * scale, top + 3), top + rowH - 3);
        open ? c.lineTo(x, y) : c.moveTo(x, y);
        open = true;
      }
      c.stroke();
      bands(c, lead, begin, Math.min(Math.floor(to), newest - 1));
    });
  }
  function bands(c, lead, from, to) { // what is missing, and when the electrodes were off
    let start = -1;
    for (let i = from; i <= to + 1; i++) {
      const gone = i <= to && !Number.isFinite(ring[lead][i % ringN]);
      if (gone && start < 0) start = i;
      if (!gone && start >= 0) { if (i - start > fs * 0.04 || i > to) band(c, lead, start, i, "not recorded"); start = -1; }
    }
    for (const [a, b] of offRuns) if (b > from && a < to) band(c, lead, Math.max(a, from), Math.min(b, to), "electrodes off");
  }
  function band(c, lead, a, b, words) {
    const x1 = place(a), x2 = place(b), r1 = Math.floor(x1 / width), wide = x2 >= x1 ? x2 - x1 : span() - x1;
    let left = wide, x = x1 - r1 * width, r = r1;
    while (left > 0.01 && r < perRow) {
      const w = Math.min(left, width - x), top = rows[lead] + r * rowH;
      c.clearRect(x, top, w, rowH);
      c.fillStyle = colours().off; c.fillRect(x, top, w, rowH);
      c.fillStyle = colours().soft; c.fillRect(x, top + rowH / 2, w, 1);
      if (Math.floor(a / fs) % 2 === 0 && b - a > fs * 0.6) { c.font = "11px system-ui"; c.fillText(words, x + 4, top + rowH / 2 - 6); }
      left -= w; x = 0; r++;
    }
  }
  function label(c, b) {
    const at = place(b.sample), r = Math.floor(at / width), x = at - r * width;
    c.font = (b.type === "N" ? "" : "700 ") + "12px system-ui";
    c.fillStyle = beatColour(b.type); c.textAlign = "center";
    rows.forEach(top => { const y = top + r * rowH; if (top === rows[0]) c.fillText(b.type, x, y + LABEL); c.fillRect(x - .5, y + LABEL + 4, 1, 5); });
    c.textAlign = "left";
  }
  function erase(c, from, to) { // the blank that runs ahead of the trace
    const a = from + BLANK_MM * PX_PER_MM / pps() * fs, b = to + BLANK_MM * PX_PER_MM / pps() * fs;
    for (let x = place(a), left = (b - a) / fs * pps() + 2; left > 0;) {
      const r = Math.floor(x / width), inside = x - r * width, w = Math.min(left, width - inside);
      rows.forEach(top => c.clearRect(inside - 1, top + r * rowH, w + 2, rowH));
      left -= w; x = (x + w + .001) % span();
    }
  }

  function frame(now) {
    if (stopped) return;
    requestAnimationFrame(frame);
    frames++;
    const dt = Math.min((now - last) / 1000, 0.25);
    last = now;
    if (held || newest < 0 || !rows.length) return;
    const c = trace.getContext("2d");
    if (play < 0) { play = Math.max(oldest, newest - target() * fs); base = play - Math.min(span() * .7, (play - oldest) / fs * pps()) / pps() * fs; redraw(); return; }
    const lag = (newest - play) / fs, want = target() * Math.max(rateNow, 1);
    if (lag > want + 4 * Math.max(rateNow, 1)) { play = newest - want * fs; slacks = []; redraw(); return; }
    // what was left to draw when each piece came: the least of it is kept at SLACK_S, so nothing waits longer than it must
    const least = slacks.length ? Math.min(...slacks.map(s => s.left)) / Math.max(rateNow, 1) - SLACK_S : 0;
    const nudge = 1 + Math.min(Math.max(least * .4, -.25), .25);
    const next = Math.min(play + dt * fs * Math.max(rateNow, 1) * nudge, newest - 1);
    if (next > play) {
      if (Math.floor(place(play) / width) !== Math.floor(place(next) / width) && place(next) < place(play)) recentre();
      erase(c, play, next);
      segment(c, play, next);
      for (const b of beats) if (b.sample > play && b.sample <= next) label(c, b);
      play = next;
    }
    const quiet = performance.now() - seenWave;
    note.replaceChildren(...(quiet > 2500 ? [h("span", {}, app.daemon === "running" ? `waiting for data, ${lasts(quiet)}` : "the gateway is off: this is the newest it kept")] : []));
  }
  function target() { // seconds behind the newest sample: the longest wait between pieces, and a little more
    let longest = 0.15;
    for (let i = 1; i < arrivals.length; i++) longest = Math.max(longest, arrivals[i].at - arrivals[i - 1].at);
    return Math.min(longest / 1000 * 1 + 0.12, 2.5);
  }

  const offs = [on("wave", piece => {
    if (piece.recording !== recording) return;
    if (piece.leads.join() !== leads.map(n => names[n]).join()) return;
    const values = unpack(piece), end = piece.first + piece.n, now = performance.now();
    const firstEver = newest < 0;
    if (!firstEver && play >= 0 && !held) slacks = [...slacks, {at: now, left: (newest - play) / fs}].filter(s => now - s.at < 1800);
    if (firstEver || piece.first > newest + ringN) { oldest = piece.first; ring.forEach(r => r.fill(NaN)); }
    for (let i = newest < 0 ? piece.first : newest; i < piece.first; i++) ring.forEach(r => { r[i % ringN] = NaN; });
    values.forEach((v, n) => { for (let i = Math.max(0, v.length - ringN); i < v.length; i++) ring[n][(piece.first + i) % ringN] = v[i]; });
    newest = end;
    oldest = Math.max(oldest, newest - ringN + 1);
    t0 = piece.t_ms - piece.first / fs * 1000;
    offRuns = [...offRuns, ...piece.off.map(([a, b]) => [a + piece.first, b + piece.first])].filter(([, b]) => b > oldest).slice(-200);
    if (!firstEver) {
      arrivals.push({at: now, newest});
      arrivals = arrivals.filter(a => now - a.at < 6000);
      const first = arrivals[0];
      if (arrivals.length > 3 && now - first.at > 800) { const r = (newest - first.newest) / fs / ((now - first.at) / 1000); rateNow = r > 1.3 ? r : 1; }
      seenWave = now;
    }
    speed.textContent = rateNow > 1.3 ? `×${rateNow.toFixed(0)}` : "";
  }), on("beats", found => {
    if (found.recording !== recording) return;
    const c = trace.getContext("2d"), fresh = found.samples.map((sample, i) => ({sample, type: found.types[i]}));
    beats = [...beats, ...fresh].slice(-600);
    const from = play - (span() - BLANK_MM * PX_PER_MM) / pps() * fs;
    for (const b of fresh) if (b.sample <= play && b.sample > from) label(c, b);
  }), on("people", devices), on("wearer", () => { recording = null; devices(); vitals(); headlines(); }),
  on("states", () => { vitals(); if (!app.people.length) devices(); }), on("events", headlines), on("theme", layout)];

  function vitals() {
    const s = app.states[app.wearer], all = [];
    const known = s && app.daemon === "running" && s.link === "online" ? s : null;
    rate.textContent = known?.hr_bpm != null ? Math.round(known.hr_bpm) : "–";
    const fact = (name, value, kind = "") => all.push(h("div.fact", {}, h("span", {}, name), h("span.num", {class: kind}, value)));
    brief.textContent = known?.hr_bpm != null ? `${Math.round(known.hr_bpm)}/min ${known.rhythm || ""}` : "";
    fact("Rhythm", known?.rhythm ? RHYTHMS[known.rhythm] || known.rhythm : "not known");
    fact("Signal", known ? SIGNALS[known.signal] || known.signal || "not read yet" : "not known", known && known.readable === false ? "warn" : "");
    fact("Quality", known?.quality != null ? `${Math.round(known.quality * 100)} %` : "–");
    fact("Electrodes", known?.contact === false ? "off" : known?.contact ? "on" : "not reported", known?.contact === false ? "warn" : "");
    fact("Link", s ? (app.daemon === "running" ? s.link : "gateway off") : app.daemon === "running" ? "no live device" : "gateway off", known ? "ok" : "warn");
    fact("Battery", s?.battery_percent != null ? `${s.battery_percent} %` : "not reported");
    if (s) fact("Newest sample", clockS(s.last_sample_ns / 1e6));
    facts.replaceChildren(...all);
  }
  function headlines() {
    const mine = [...app.events.values()].filter(e => e.wearer === app.wearer).sort((a, b) => (b.state === "open") - (a.state === "open") || b.start_ms - a.start_ms).slice(0, 12);
    news.replaceChildren(...mine.map(e => h("li", {}, h("button", {class: e.severity, onclick: () => go("review", "event", e.id)}, h("b", {}, e.name), h("div.soft.num", {}, `${clockS(e.start_ms)}, ${lasts(e.end_ms - e.start_ms)}${e.state === "open" ? " so far" : ""}`)))));
    if (!mine.length) news.replaceChildren(h("li.soft", {}, "none yet"));
  }
  const watch = new ResizeObserver(() => { if (sweep.clientWidth !== width) layout(); });
  watch.observe(sweep);
  devices(); vitals(); headlines();
  requestAnimationFrame(t => { last = t; frame(t); });

  // for tests and for whoever wonders how smooth it is
  window.anyecgLive = () => ({play: play / fs, newest: newest / fs, lag_s: (newest - play) / fs, frames, rate: rateNow, beats: beats.length, behind_ms: t0 === null ? null : Date.now() + app.clockSkewMs - (t0 + play / fs * 1000)});
  return {
    close() { stopped = true; watch.disconnect(); offs.forEach(off => off()); listen(); },
    key(e) {
      if (e.key === " ") { setHeld(!held); return true; }
      if (/^[1-9]$/.test(e.key) && names[e.key - 1]) { toggle(e.key - 1); return true; }
      return false;
    },
    at: () => held && t0 !== null ? t0 + play / fs * 1000 : null,
  };
}
