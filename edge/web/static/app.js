// Views, keys, the event stream that all views share.
import {api, app, bus, complain, emit, h, isOwner, on, query, setTheme, toast, clockS, Refused} from "./base.js";
import {live} from "./live.js";
import {review} from "./review.js";
import {askView} from "./ask.js";
import {health} from "./health.js";

const VIEWS = {live: ["Live", live, "l"], review: ["Review", review, "r"], ask: ["Ask", askView, "a"], health: ["Health", health, "h"]};
const main = document.getElementById("main"), nav = document.getElementById("nav"), link = document.getElementById("link");
const chooser = document.getElementById("wearer");
let view = null, source = null, asked = "";

// #review/anna/2026…: view, wearer, then what the view makes of it
export function go(name, ...rest) { location.hash = [name, app.wearer ?? "", ...rest].map(encodeURIComponent).join("/"); }
function route() {
  const [name, wearer, ...rest] = location.hash.slice(1).split("/").map(decodeURIComponent);
  const chosen = VIEWS[name] ? name : "live";
  if (wearer && wearer !== app.wearer && app.people.some(p => p.id === wearer)) { app.wearer = wearer; chooser.value = wearer; emit("wearer"); }
  for (const b of nav.children) b.toggleAttribute("aria-current", false), b.dataset.view === chosen && b.setAttribute("aria-current", "page");
  if (view?.name === chosen && view.route) { view.route(rest); return; }
  view?.close?.();
  main.replaceChildren();
  view = {name: chosen, ...VIEWS[chosen][1](main, rest)};
}

// ---- one stream: people, states, events, and the waveform the live view wants
export function listen(wanted = "") {
  if (source && asked === wanted && source.readyState !== EventSource.CLOSED) return;
  asked = wanted;
  source?.close();
  source = new EventSource("/api/stream" + wanted);
  const take = (name, react) => source.addEventListener(name, e => react(JSON.parse(e.data)));
  take("people", people => { app.people = people; choosePerson(); emit("people"); });
  take("states", told => { app.daemon = told.daemon; app.states = told.states; app.clockSkewMs = told.now_ms - Date.now(); showLink(); emit("states"); });
  take("events", told => {
    for (const e of told.events) {
      const known = app.events.get(e.id);
      app.events.set(e.id, e);
      if (!told.first && !known && ["advisory", "urgent", "critical"].includes(e.severity)) announce(e);
    }
    if (app.events.size > 1500) app.events = new Map([...app.events].slice(-1000));
    emit("events", told);
  });
  take("wave", piece => emit("wave", piece));
  take("beats", found => emit("beats", found));
  take("trouble", t => complain(new Error(t.error)));
  source.onerror = async () => {
    app.daemon = "unreachable"; showLink(); emit("states");
    if (source.readyState === EventSource.CLOSED) setTimeout(() => listen(asked), 3000);
    await api("/api/me").then(me => { if (!me.role) emit("signed-out"); }).catch(() => {});
  };
}
function announce(e) {
  toast(e.name, `${e.wearer}, ${clockS(e.start_ms)}`, {severity: e.severity, seconds: 20, act: () => { app.wearer = e.wearer; chooser.value = e.wearer; go("review", "event", e.id); }});
}
function showLink() {
  const words = {running: ["gateway running", "ok"], off: ["gateway off", "warn"], unreachable: ["page offline", "bad"], unknown: ["connecting", ""]};
  const [text, kind] = words[app.daemon] || ["gateway troubled", "bad"];
  link.textContent = text; link.className = "pill " + kind; link.title = app.daemon;
}
function choosePerson() {
  const ids = app.people.map(p => p.id);
  if (!ids.includes(app.wearer)) {
    const wish = decodeURIComponent(location.hash.split("/")[1] || ""), newest = [...app.people].sort((a, b) => (b.last_ms || 0) - (a.last_ms || 0))[0];
    app.wearer = ids.includes(wish) ? wish : newest?.id ?? null;
    emit("wearer");
  }
  chooser.replaceChildren(...ids.map(id => h("option", {value: id}, id)));
  chooser.value = app.wearer ?? "";
  chooser.hidden = ids.length === 0;
}
chooser.onchange = () => { app.wearer = chooser.value; emit("wearer"); go(view?.name || "live"); };

// ---- keys
const KEYS = {
  Everywhere: [["l r a h", "live, review, ask, health"], ["w", "next wearer"], ["s", "mark a symptom"], ["t", "light or dark"], ["?", "these keys"]],
  Live: [["Space", "hold the trace"], ["1–3", "leads on or off"]],
  Review: [["← →", "earlier, later"], ["+ −", "closer, wider"], ["n p", "next, previous event"], ["u", "next event nobody has reviewed"], ["c f e m", "confirm, false alarm, correct, note"], ["o", "add an episode"], ["[ ]", "choose the beat before, after"], ["N S V F Q", "with Shift: class of the chosen beat"], ["Del", "remove the chosen beat"], ["d y x", "a day, a night, 10 seconds"]],
};
function showKeys() {
  const box = h("dialog", {onclose: () => box.remove()}, h("h2", {}, "Keys"),
    Object.entries(KEYS).map(([title, rows]) => [h("h3", {}, title), h("dl", {}, rows.map(([k, what]) => [h("dt", {}, k.split(" ").map(one => [h("kbd", {}, one), " "])), h("dd", {}, what)]))]),
    h("form", {method: "dialog"}, h("button.go", {}, "Close")));
  document.body.append(box);
  box.showModal();
}
document.addEventListener("keydown", e => {
  if (e.target.closest?.("input,textarea,select,dialog") || e.ctrlKey || e.metaKey || e.altKey || !app.me?.role) return;
  const named = Object.entries(VIEWS).find(([, [, , key]]) => key === e.key);
  if (view?.key?.(e)) e.preventDefault();
  else if (named) go(named[0]);
  else if (e.key === "?") showKeys();
  else if (e.key === "t") switchTheme();
  else if (e.key === "s") emit("symptom", view?.at?.() ?? null);
  else if (e.key === "w" && app.people.length) { chooser.selectedIndex = (chooser.selectedIndex + 1) % chooser.options.length; chooser.onchange(); }
});
document.getElementById("help").onclick = showKeys;
function switchTheme() {
  const next = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  localStorage.setItem("theme", next);
  setTheme(next);
}
document.getElementById("theme").onclick = switchTheme;
setTheme(localStorage.getItem("theme") || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"));

on("symptom", async at => {
  if (!app.wearer) return;
  if (!isOwner()) { complain(new Error("your token may see, not change")); return; }
  const {ask, full, mark} = await import("./base.js");
  const t = at ?? Date.now() + app.clockSkewMs;
  const note = await ask("Mark a symptom", {text: `${app.wearer}, ${full(t)}`, label: "What was felt?", yes: "Mark"});
  if (note === null) return;
  await mark({kind: "symptom", wearer: app.wearer, at_ms: t, note}).then(() => toast("Symptom marked", full(t)), complain);
});

// ---- signing in
function login() {
  source?.close(); source = null; asked = "-";
  view?.close?.(); view = null;
  nav.hidden = true;
  const field = h("input", {type: "password", autocomplete: "current-password", "aria-label": "Token", placeholder: "name.secret", required: true});
  const complaint = h("p.err", {role: "alert"});
  main.replaceChildren(h("form.card.login.stack", {onsubmit: async e => {
    e.preventDefault();
    complaint.textContent = "";
    try { await api("/api/login", {token: field.value}); field.value = ""; start(); } catch (error) { complaint.textContent = error.message; field.select(); }
  }}, h("h2", {}, "Sign in"), h("p.soft", {}, "This gateway asks for a token. Its owner makes one with ", h("kbd", {}, "anyecg web-token add"), "."), field, complaint, h("button.go", {}, "Sign in")));
  field.focus();
}
on("signed-out", () => { if (app.me?.role) { app.me = null; login(); } });

async function start() {
  try { app.me = await api("/api/me"); } catch (error) { main.replaceChildren(h("p.empty", {}, error.message)); setTimeout(start, 3000); return; }
  if (!app.me.role) { login(); return; }
  nav.hidden = false;
  nav.replaceChildren(...Object.entries(VIEWS).map(([name, [title]]) => h("button", {"data-view": name, onclick: () => go(name)}, title)));
  for (const b of nav.children) b.dataset.view = b.getAttribute("data-view");
  document.title = `anyECG ${app.me.gateway}`;
  try { app.people = await api("/api/people"); } catch (error) { if (!(error instanceof Refused) || error.status !== 503) complain(error); }
  choosePerson();
  listen();
  window.onhashchange = route;
  route();
}
start();
