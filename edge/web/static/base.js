// What every view uses: elements, requests, times in the wearer's zone, colours, toasts.

export const app = {me: null, people: [], wearer: null, states: {}, daemon: "unknown", events: new Map(), clockSkewMs: 0};
export const bus = new EventTarget();
export const emit = (name, detail) => bus.dispatchEvent(new CustomEvent(name, {detail}));
export const on = (name, react) => { const f = e => react(e.detail); bus.addEventListener(name, f); return () => bus.removeEventListener(name, f); };

export function h(tag, props = {}, ...children) {
  const [name, ...classes] = tag.split(".");
  const element = document.createElement(name || "div");
  if (classes.length) element.className = classes.join(" ");
  for (const [key, value] of Object.entries(props || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key === "class") element.className += " " + value;
    else if (key in element && key !== "list") element[key] = value;
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.flat(9).filter(c => c !== null && c !== undefined && c !== false));
  return element;
}

export class Refused extends Error {
  constructor(status, message) { super(message); this.status = status; }
}

export async function api(path, body) {
  const options = body === undefined ? {} : {method: "POST", headers: {"content-type": "application/json"}, body: JSON.stringify(body)};
  let answer;
  try { answer = await fetch(path, options); } catch { throw new Refused(0, "the page cannot reach the gateway"); }
  const document_ = await answer.json().catch(() => ({}));
  if (!answer.ok) {
    if (answer.status === 401 && path !== "/api/login") emit("signed-out");
    throw new Refused(answer.status, document_.error || `error ${answer.status}`);
  }
  return document_;
}

export const query = values => "?" + new URLSearchParams(values);
export const isOwner = () => app.me && app.me.role === "owner";

export async function mark(request) {
  const done = await api("/api/mark", request);
  emit("marked", done);
  return done;
}

// ---- time, always in the wearer's zone
const formats = new Map();
function format(ms, key, options) {
  const zone = person()?.timezone || "UTC", id = zone + key;
  if (!formats.has(id)) formats.set(id, new Intl.DateTimeFormat("en-GB", {timeZone: zone, hourCycle: "h23", ...options}));
  return formats.get(id).format(ms);
}
export const person = () => app.people.find(p => p.id === app.wearer);
export const clock = ms => format(ms, "c", {hour: "2-digit", minute: "2-digit"});
export const clockS = ms => format(ms, "s", {hour: "2-digit", minute: "2-digit", second: "2-digit"});
export const clockMs = ms => clockS(ms) + "." + String(Math.floor(((ms % 1000) + 1000) % 1000)).padStart(3, "0");
export const day = ms => format(ms, "d", {weekday: "short", day: "numeric", month: "short"});
export const full = ms => `${day(ms)} ${clockS(ms)}`;
export const zoneName = ms => format(ms, "z", {timeZoneName: "short"}).split(", ").pop();
const offsets = new Map();
export function offsetMs(ms) { // of the wearer's zone from UTC
  const zone = person()?.timezone || "UTC", quarter = Math.floor(ms / 900000), id = zone + quarter;
  if (!offsets.has(id)) {
    if (offsets.size > 5000) offsets.clear();
    const t = quarter * 900000;
    const text = format(t, "o", {year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit"});
    const [d, m, y, H, M, S] = text.match(/\d+/g).map(Number);
    offsets.set(id, Date.UTC(y, m - 1, d, H, M, S) - t);
  }
  return offsets.get(id);
}
export function fromLocal(localMs) { // wall-clock milliseconds to UTC
  let guess = localMs - offsetMs(localMs);
  return localMs - offsetMs(guess);
}
export const dayStart = ms => { const local = ms + offsetMs(ms); return fromLocal(local - ((local % 864e5) + 864e5) % 864e5); };
export const isoDay = ms => new Date(ms + offsetMs(ms)).toISOString().slice(0, 10);
export function lasts(ms) {
  const s = ms / 1000;
  if (s < 60) return `${s.toFixed(1)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${Math.round(s % 60)} s`;
  return `${Math.floor(s / 3600)} h ${Math.round(s % 3600 / 60)} min`;
}

// ---- colours follow the theme
let palette = null;
export function colours() {
  if (!palette) {
    const style = getComputedStyle(document.documentElement);
    palette = new Proxy({}, {get: (kept, name) => kept[name] ??= style.getPropertyValue("--" + String(name)).trim()});
  }
  return palette;
}
export function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  palette = null;
  emit("theme");
}

export function fit(canvas, cssHeight) {
  const scale = Math.min(window.devicePixelRatio || 1, 2.5), width = canvas.clientWidth || canvas.parentElement.clientWidth;
  const w = Math.round(width * scale), hh = Math.round(cssHeight * scale);
  if (canvas.width !== w || canvas.height !== hh) { canvas.width = w; canvas.height = hh; canvas.style.height = cssHeight + "px"; }
  const c = canvas.getContext("2d");
  c.setTransform(scale, 0, 0, scale, 0, 0);
  return {c, width, height: cssHeight};
}

export function toast(title, text, {severity = "", act = null, seconds = 8} = {}) {
  const box = h("div.toast", {class: severity, role: "alert"},
    h("div.grow", {}, h("b", {}, title), text ? h("div.soft", {}, text) : null),
    act ? h("button", {onclick: () => { box.remove(); act(); }}, "Open") : null,
    h("button.ghost", {"aria-label": "Close", onclick: () => box.remove()}, "×"));
  const all = document.getElementById("toasts");
  all.append(box);
  while (all.children.length > 4) all.firstChild.remove();
  setTimeout(() => box.remove(), seconds * 1000);
}
export const complain = error => toast("That did not work", error.message, {severity: "urgent"});

export function ask(title, {text = "", label = "Note", value = "", needed = false, yes = "Save"} = {}) {
  return new Promise(resolve => {
    const field = h("textarea", {value, maxLength: 2000, "aria-label": label, placeholder: label, required: needed});
    const box = h("dialog", {onclose: () => { box.remove(); resolve(box.returnValue === "yes" ? field.value.trim() : null); }},
      h("form", {method: "dialog"}, h("h2", {}, title), text ? h("p.soft", {}, text) : null, field,
        h("div.row", {}, h("span.grow"), h("button", {type: "button", onclick: () => box.close("no")}, "Cancel"), h("button.go", {value: "yes"}, yes))));
    document.body.append(box);
    box.showModal();
    field.focus();
    field.onkeydown = e => { if (e.key === "Enter" && (e.ctrlKey || e.metaKey)) { e.preventDefault(); box.querySelector(".go").click(); } };
  });
}

// ---- samples
export function unpack(piece) { // → Float32Array of millivolts for each lead, NaN where missing
  return piece.data.map((text, lead) => {
    const raw = atob(text), bytes = new Uint8Array(raw.length);
    for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
    const ints = piece.bits === 16 ? new Int16Array(bytes.buffer) : new Int32Array(bytes.buffer);
    const missing = piece.bits === 16 ? -32768 : -2147483648, scale = piece.uv_per_lsb[lead] / 1000;
    return Float32Array.from(ints, v => v === missing ? NaN : v * scale);
  });
}

export const PX_PER_MM = 96 / 25.4; // CSS millimetres
export function grid(c, x, y, w, hh, mm = PX_PER_MM, x0 = 0) { // ECG paper; x0 moves the lines
  const colour = colours();
  c.fillStyle = colour.paper;
  c.fillRect(x, y, w, hh);
  for (const [every, stroke] of [[1, colour.minor], [5, colour.major]]) {
    c.strokeStyle = stroke;
    c.lineWidth = every === 1 ? 0.5 : 0.9;
    c.beginPath();
    const step = mm * every;
    for (let gx = x + ((x0 % step) + step) % step; gx <= x + w; gx += step) { c.moveTo(gx, y); c.lineTo(gx, y + hh); }
    for (let gy = y; gy <= y + hh; gy += step) { c.moveTo(x, gy); c.lineTo(x + w, gy); }
    c.stroke();
  }
}
export const beatColour = type => ({V: colours().v, F: colours().v, S: colours().s, Q: colours().info})[type] || colours().soft;
export function hatch(c, x, y, w, hh) {
  c.save();
  c.beginPath(); c.rect(x, y, w, hh); c.clip();
  c.fillStyle = colours().off; c.fillRect(x, y, w, hh);
  c.strokeStyle = colours().off; c.lineWidth = 2; c.beginPath();
  for (let i = -hh; i < w; i += 10) { c.moveTo(x + i, y + hh); c.lineTo(x + i + hh, y); }
  c.stroke();
  c.restore();
}
export function median(values) {
  const kept = Array.from(values).filter(Number.isFinite).sort((a, b) => a - b);
  return kept.length ? kept[kept.length >> 1] : 0;
}
