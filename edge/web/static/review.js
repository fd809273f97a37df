// The review view: the day, the list of events, one event with its evidence; verdicts and corrections.
import {api, app, ask, clockS, complain, day, dayStart, emit, fromLocal, full, h, isOwner, isoDay, lasts, mark, offsetMs, on, person, toast, zoneName} from "./base.js";
import {go} from "./app.js";
import {days, eventsIn, forget as forgetTiles} from "./store.js";
import {legend, SEVERITIES, Timeline, View} from "./timeline.js";
import {Strip} from "./strip.js";

const WORDS = {confirm: "✓ confirmed", false: "✗ false alarm", episode: "✎ corrected"};
const HOUR = 36e5, DAY = 864e5;
let remembered = null; // the span, while other views are open

export function review(main, rest) {
  const view = new View(0, DAY), filter = {severities: new Set(SEVERITIES), rule: "", state: "all"};
  let wanted = null, current = null, detail = null, strip = null, second = null, offsetDays = -1, stopped = false;
  const lists = h("ul.events", {"aria-label": "Events"}), count = h("small.num"), date = h("input", {type: "date", "aria-label": "Day", onchange: () => date.value && showDay(fromLocal(Date.parse(date.value + "T00:00Z")))});
  const lines = h("div"), panel = h("section.card.event", {hidden: true, "aria-live": "polite", id: "event"});
  const other = h("input", {type: "date", "aria-label": "Night to compare with", hidden: true, onchange: () => { if (other.value) { offsetDays = Math.round((Date.parse(other.value) - Date.parse(isoDay(middle()))) / DAY); emit("view"); } }});
  const compare = h("button", {"aria-pressed": "false", onclick: toggleCompare}, "Compare");
  const first = new Timeline(view, {onpick: e => open(e.id)});
  first.filter = matches;
  const sevs = h("div.chips", {role: "group", "aria-label": "Severity"}, SEVERITIES.map(s => h("button", {class: s, "aria-pressed": "true", onclick: e => { filter.severities.has(s) ? filter.severities.delete(s) : filter.severities.add(s); e.target.setAttribute("aria-pressed", String(filter.severities.has(s))); emit("view"); }}, s)));
  const rules = h("select", {"aria-label": "Rule", onchange: () => { filter.rule = rules.value; emit("view"); }}, h("option", {value: ""}, "every rule"), Object.entries(app.me.rules || {}).map(([rule, name]) => h("option", {value: rule}, name)));
  const states = h("select", {"aria-label": "Reviewed", onchange: () => { filter.state = states.value; emit("view"); }}, [["all", "all"], ["todo", "not reviewed"], ["done", "reviewed"]].map(([value, name]) => h("option", {value}, name)));
  const jump = (text, title, act) => h("button", {title, onclick: act}, text);
  main.append(h("div.stack", {}, h("div.review", {},
    h("section.card", {"aria-label": "Timeline"},
      h("div.bar2", {}, jump("‹", "Day before", () => shiftDay(-1)), date, jump("›", "Day after", () => shiftDay(1)),
        jump("Day", "d", () => showDay(middle())), jump("Night", "y", showNight), jump("Hour", "", () => around(HOUR)), jump("Minute", "", () => around(6e4)), jump("10 s", "x", () => around(1e4)),
        jump("+", "Closer", () => view.zoom(.5)), jump("−", "Wider", () => view.zoom(2)), compare, other),
      lines, legend()),
    h("section.card", {"aria-label": "Events"}, h("div.row", {}, h("h2.grow", {}, "Events"), count), h("div.stack", {}, sevs, h("div.row", {}, rules, states)), lists,
      h("div.row", {}, jump("Previous", "p", () => next(-1)), jump("Next", "n", () => next(1)), h("span.grow"), h("button", {onclick: addEpisode, title: "o"}, "Add episode"), h("button", {onclick: () => emit("symptom", middle()), title: "s"}, "Mark symptom"))),
  ), panel));
  lines.append(first.root);

  const middle = () => (view.from + view.to) / 2;
  function around(span) { const at = current ? current.start_ms : middle(); view.set(at - span / 2, at + span / 2); }
  function showDay(t) { const a = dayStart(t), b = dayStart(a + 1.5 * DAY); view.set(a, b); }
  const later = (t, days) => fromLocal(t + offsetMs(t) + days * DAY); // the same time of another day, whatever the clocks did
  function shiftDay(by) { view.set(later(view.from, by), later(view.to, by)); }
  function showNight() { // 20:00 to 8:00: of 11 or 13 h where the clocks change; both nights get the time of the longer one
    const local = middle() + offsetMs(middle()), start = Math.floor(local / DAY) * DAY + (local % DAY < 12 * HOUR ? -4 : 20) * HOUR, a = fromLocal(start);
    const b = fromLocal(start + 12 * HOUR), night = second ? later(b, offsetDays) - later(a, offsetDays) : 0;
    view.set(a, Math.max(b, a + night));
  }
  const shiftOf = t => later(t, offsetDays) - t;
  function toggleCompare() {
    if (second) { second.close(); second.root.remove(); second = null; }
    else { second = new Timeline(view, {shift: shiftOf, onpick: e => open(e.id), label: "The other night"}); second.filter = matches; lines.append(second.root); if (view.to - view.from > 10 * HOUR) showNight(); }
    compare.setAttribute("aria-pressed", String(!!second));
    other.hidden = !second;
    shown();
  }
  function matches(e) {
    if (!filter.severities.has(e.severity) || (filter.rule && e.rule !== filter.rule)) return false;
    return filter.state === "all" || (filter.state === "done") === !!e.verdict;
  }
  function listed() { // of the days in view, so that panning by hours does not change the list
    return eventsIn(dayStart(view.from), dayStart(view.to - 1) + DAY).filter(matches);
  }
  let drawn = "";
  function shown() {
    if (stopped) return;
    remembered = {from: view.from, to: view.to, wearer: app.wearer};
    date.value = isoDay(middle());
    if (second) other.value = isoDay(middle() + shiftOf(middle()));
    const all = listed(), done = all.filter(e => e.verdict).length, key = JSON.stringify([all.map(e => [e.id, e.verdict, e.end_ms]), current?.id]);
    count.textContent = all.length ? `${done} of ${all.length} reviewed` : "";
    if (key === drawn) return;
    drawn = key;
    lists.replaceChildren(...all.slice(0, 400).map(e => h("li", {class: e.severity}, h("button", {class: e.verdict ? "" : "todo", "aria-current": String(e.id === current?.id), "data-event": e.id, onclick: () => open(e.id)},
      h("span.dot"), h("span", {class: e.verdict === "false" ? "gone" : ""}, e.name), h("span.verdict", {title: WORDS[e.verdict] || "not reviewed"}, {confirm: "✓", false: "✗", episode: "✎"}[e.verdict] || ""),
      h("small.num", {}, `${day(e.start_ms)} ${clockS(e.start_ms)} · ${lasts(e.end_ms - e.start_ms)}${e.state === "open" ? " so far" : ""}`)))));
    if (!all.length) lists.replaceChildren(h("li.empty", {}, days(view.from, view.to).length ? "no events here" : "reading …"));
    lists.querySelector("[aria-current=true]")?.scrollIntoView({block: "nearest"});
  }
  function next(by, wanted = () => true) {
    const all = listed(), t = current ? current.start_ms : by > 0 ? view.from : view.to, at = all.findIndex(e => e.id === current?.id);
    const ahead = (by > 0 ? (at >= 0 ? all.slice(at + 1) : all.filter(e => e.start_ms >= t)) : (at >= 0 ? all.slice(0, at) : all.filter(e => e.start_ms < t)).reverse()).filter(wanted);
    if (ahead.length) open(ahead[0].id); else toast("No further event here", "the day before or after may have some", {seconds: 3});
  }

  const refresh = () => open(wanted); // never back to an event that was left meanwhile
  async function open(id) {
    wanted = id;
    if (location.hash !== `#review/${encodeURIComponent(app.wearer)}/event/${id}`) history.replaceState(null, "", `#review/${encodeURIComponent(app.wearer)}/event/${id}`);
    let found;
    try { found = await api(`/api/event/${encodeURIComponent(id)}`); } catch (error) { complain(error); return; }
    if (stopped || wanted !== id) return;
    const moved = !current || current.id !== found.id;
    current = detail = found;
    if (found.wearer !== app.wearer) { app.wearer = found.wearer; emit("wearer"); }
    first.chosen = found.id;
    if (second) second.chosen = found.id;
    if (moved && (found.start_ms < view.from || found.start_ms > view.to)) { const span = view.to - view.from; view.set(found.start_ms - span * .3, found.start_ms + span * .7); }
    draw(moved);
    if (moved && innerWidth < 900) panel.scrollIntoView({block: "start"});
    emit("view");
  }
  async function say(request, done) {
    if (!detail || detail.by_person) return;
    if (!isOwner()) { complain(new Error("your token may see, not change")); return; }
    try { await mark({event: detail.id, ...request}); toast(done, detail.name, {seconds: 3}); await refresh(); } catch (error) { complain(error); }
  }
  async function note() { const text = await ask("Note", {text: detail.name, needed: true}); if (text) say({kind: "note", note: text}, "Note kept"); }
  function correct() {
    const e = detail.right, rule = h("select", {}, Object.entries(app.me.rules).map(([id, name]) => h("option", {value: id, selected: id === e.rule}, name)));
    const begin = h("input", {type: "number", step: "any", value: ((e.start_sample - detail.start_sample) / detail.fs_hz).toFixed(2)}), end = h("input", {type: "number", step: "any", value: ((e.end_sample - detail.end_sample) / detail.fs_hz).toFixed(2)});
    const text = h("textarea", {maxLength: 2000, placeholder: "Why (optional)"});
    const take = field => h("button", {type: "button", disabled: !strip?.beat, onclick: () => { field.value = ((strip.beat.sample - (field === begin ? detail.start_sample : detail.end_sample)) / detail.fs_hz).toFixed(2); }}, "the chosen beat");
    const box = h("dialog", {onclose: () => {
      box.remove();
      if (box.returnValue !== "yes") return;
      say({kind: "episode", rule: rule.value, start_sample: Math.max(0, Math.round(detail.start_sample + begin.value * detail.fs_hz)), end_sample: Math.round(detail.end_sample + end.value * detail.fs_hz), note: text.value}, "Corrected");
    }}, h("form", {method: "dialog"}, h("h2", {}, "Correct this episode"), h("p.soft", {}, "The machine's reading stays beside it, and this can be undone."),
      h("label.stack", {}, "What it is", rule), h("label.stack", {}, "Begins, seconds from the machine's begin", h("div.row", {}, begin, take(begin))), h("label.stack", {}, "Ends, seconds from the machine's end", h("div.row", {}, end, take(end))), text,
      h("div.row", {}, h("span.grow"), h("button", {type: "button", onclick: () => box.close("no")}, "Cancel"), h("button.go", {value: "yes"}, "Correct"))));
    document.body.append(box);
    box.showModal();
  }
  function addEpisode() { // one that the machine missed, between two times of the wearer's clock
    if (!isOwner()) { complain(new Error("your token may see, not change")); return; }
    const at = strip?.beat ? strip.beat.t : view.to - view.from <= 6e4 ? null : current ? current.start_ms : middle(), typed = ms => new Date(ms + offsetMs(ms)).toISOString().slice(0, 23);
    const time = ms => h("input", {type: "datetime-local", step: .001, value: typed(ms), required: true}), read = field => fromLocal(Date.parse(field.value + "Z"));
    const rule = h("select", {}, Object.entries(app.me.rules || {}).map(([id, name]) => h("option", {value: id}, name)));
    const begin = time(at ?? view.from), end = time(at === null ? view.to : at + 1e4), note = h("textarea", {maxLength: 2000, placeholder: "Why (optional)"});
    const box = h("dialog", {onclose: async () => {
      box.remove();
      if (box.returnValue !== "yes") return;
      try {
        const done = await mark({kind: "episode", wearer: app.wearer, rule: rule.value, start_ms: read(begin), end_ms: read(end), note: note.value});
        toast("Episode added", app.me.rules[rule.value], {seconds: 3});
        open(`mark-${done.id}`);
      } catch (error) { complain(error); }
    }}, h("form", {method: "dialog"}, h("h2", {}, "Add an episode"), h("p.soft", {}, "One that the machine missed. It counts in burden and report, and can be undone."),
      h("label.stack", {}, "What it is", rule), h("label.stack", {}, `Begins (${zoneName(at ?? view.from)})`, begin), h("label.stack", {}, "Ends", end), note,
      h("div.row", {}, h("span.grow"), h("button", {type: "button", onclick: () => box.close("no")}, "Cancel"), h("button.go", {value: "yes"}, "Add"))));
    document.body.append(box);
    box.showModal();
  }
  const undo = id => mark({undo: id}).then(() => { toast("Undone", "", {seconds: 3}); refresh(); }, complain);

  function draw(moved) {
    const e = detail, own = isOwner();
    if (moved) { strip?.close(); strip = new Strip(e, refresh); } else { strip.event = e; strip.dirty = true; }
    const table = (rows, title) => h("div", {}, h("h3", {}, title), h("table", {}, h("tbody", {}, rows.map(([a, b]) => h("tr", {}, h("th", {scope: "row"}, a), h("td.num", {}, b))))));
    const evidence = Object.entries(e.evidence).map(([k, v]) => [k.replaceAll("_", " "), typeof v === "number" ? +v.toFixed(3) : String(v)]);
    const beats = Object.entries(e.beats.by_class).filter(([, n]) => n).map(([k, n]) => [`beats ${k}`, n]);
    const similar = h("div", {}, h("h3", {}, "Looks alike"), h("p.soft", {}, "reading …"));
    api(`/api/event/${e.id}/similar`).then(found => {
      similar.replaceChildren(h("h3", {}, "Looks alike"), found.places.length ? h("div.places", {}, found.places.map(p => h("button", {onclick: () => p.event ? open(p.event.id).then(() => view.set(p.t_ms - 1e4, p.t_ms + 1e4)) : view.set(p.t_ms - 1e4, p.t_ms + 1e4)},
        h("b.num", {}, p.similarity.toFixed(2)), " ", p.event?.name || "no event", h("br"), h("small.num", {}, `${day(p.t_ms)} ${clockS(p.t_ms)}`)))) : h("p.soft", {}, "nothing to compare with"), h("small", {}, `nearest embeddings among ${found.searched.toLocaleString("en")} windows of 2 s`));
    }, error => similar.replaceChildren(h("h3", {}, "Looks alike"), h("p.soft", {}, error.message)));
    const t = e.rule_table;
    const people = h("div", {}, h("h3", {}, "What people said"), e.marks.length ? h("ul.audit", {}, e.marks.map(m => h("li", {class: m.undone_by !== null ? "undone" : ""}, h("span.grow", {}, h("b", {}, {confirm: "confirmed", false: "false alarm", episode: "corrected", note: "note", ack: "seen"}[e.by_person ? "" : m.kind] || (e.by_person ? "added" : m.kind)), ` by ${m.author}, ${full(m.written_ms)}`, m.note ? h("div", {}, m.note) : null, m.undone_by !== null ? ` (undone by ${m.undone_by})` : ""), m.undone_by === null && own ? h("button", {onclick: () => undo(m.id)}, "Undo") : null))) : h("p.soft", {}, "nobody has looked at this yet"));
    panel.hidden = false;
    panel.className = "card event " + e.severity;
    panel.replaceChildren(
      h("header", {}, h("h2", {class: e.verdict === "false" ? "gone" : ""}, e.name), h("span.sev", {}, e.severity), h("span.num.soft", {}, `${full(e.start_ms)} ${zoneName(e.start_ms)}, ${lasts(e.end_ms - e.start_ms)}${e.state === "open" ? ", still open" : e.state === "retracted" ? ", withdrawn by a second look" : ""}`), h("span.grow"),
        h("b", {id: "verdict"}, e.by_person ? (e.verdict ? "+ added by a person" : "+ added by a person, undone") : e.verdict ? WORDS[e.verdict] + (e.verdict === "episode" ? `: ${e.right.name}, ${clockS(e.right.start_ms)}, ${lasts(e.right.end_ms - e.right.start_ms)}` : "") : "not reviewed")),
      h("div.row", {}, (e.by_person ? [] : [["Confirm", "c", () => say({kind: "confirm"}, "Confirmed"), "confirm"], ["False alarm", "f", () => say({kind: "false"}, "False alarm"), "false"], ["Correct …", "e", correct, "episode"], ["Note …", "m", note, "note"]]).map(([text, key, act, kind]) => h("button", {onclick: act, disabled: !own, title: own ? key : "your token may see, not change", "data-act": kind, "aria-pressed": String(e.verdict === kind)}, text)),
        h("span.grow"), h("button", {onclick: () => { view.set(e.start_ms - 1e4, e.start_ms + 2e4); }}, "Show in timeline")),
      strip.root,
      h("div.cols", {},
        h("div", {}, table([...evidence, ...beats, ["mean confidence of its beats", e.beats.mean_confidence ?? "–"]], "Evidence"), people),
        t && !e.by_person ? h("div", {}, table(t.thresholds.map(x => [x.text.replaceAll("`", ""), `${+(+x.value).toFixed(3)} ${x.unit}`]), `Rule ${e.rule}`), h("p.soft", {}, t.meaning.replaceAll("`", "")), h("small", {}, `Source: ${t.source.replaceAll("`", "")}`)) : table([["rule", e.rule]], "Rule"),
        h("div", {}, table([["recorded by", e.device], ...(e.analysis ? [["told at", clockS(e.detected_ms)], ["revision", e.revision], ["encoder", e.analysis.encoder], ["rules", e.analysis.rules_hash.slice(0, 8)], ["software", e.analysis.code_version], ["ran on", e.analysis.provider]] : []), ["event", e.id]], e.analysis ? "Analysis" : "Recording"),
          e.revisions.length ? h("details", {}, h("summary", {}, `${e.revisions.length} earlier revisions`), h("table", {}, h("tbody", {}, e.revisions.map(r => h("tr", {}, h("th", {}, r.revision), h("td", {}, `${r.state}, ${r.severity}`)))))) : null, similar)));
  }

  const offs = [on("view", shown), on("tile", shown), on("events", told => { if (!told.first) { forgetTiles("day"); if (detail && told.events.some(e => e.id === detail.id)) refresh(); } }),
    on("wearer", () => { if (current && current.wearer !== app.wearer) { current = detail = null; first.chosen = null; panel.hidden = true; begin([]); } }), on("people", () => { if (view.from === 0) begin(rest); })];
  function begin(wish) {
    const p = person();
    if (!p?.last_ms) { lists.replaceChildren(h("li.empty", {}, "nothing recorded yet")); return; }
    if (remembered?.wearer === app.wearer) view.set(remembered.from, remembered.to);
    else { const short = p.last_ms - p.first_ms < 6 * HOUR && dayStart(p.last_ms) <= p.first_ms; short ? view.set(p.first_ms - 6e4, p.last_ms + 12e4) : showDay(p.last_ms); }
    react(wish);
  }
  function react(wish) {
    if (wish[0] === "event" && wish[1]) { if (wish[1] !== current?.id) open(wish[1]); }
    else if (wish[0] === "at") { const a = +wish[1], b = +wish[2] || a; view.set(Math.min(a, b) - 5000, Math.max(a, b) + 5000); }
  }
  begin(rest);
  shown();
  window.anyecgReview = () => ({from: view.from, to: view.to, other: second?.range(), frames: first.frames, draw_ms: first.drawMs, events: listed().length, beat: strip?.beat, set: (a, b) => view.set(a, b)});
  return {
    route: react,
    close() { stopped = true; first.close(); second?.close(); strip?.close(); offs.forEach(off => off()); },
    at: middle,
    key(e) {
      if (strip && detail && strip.key(e)) return true;
      const act = {ArrowLeft: () => view.pan(-.15), ArrowRight: () => view.pan(.15), "+": () => view.zoom(.6), "=": () => view.zoom(.6), "-": () => view.zoom(1 / .6), n: () => next(1), p: () => next(-1), u: () => next(1, e => !e.verdict), d: () => showDay(middle()), y: showNight, x: () => around(1e4),
        c: () => say({kind: "confirm"}, "Confirmed"), f: () => say({kind: "false"}, "False alarm"), m: () => detail && !detail.by_person && note(), e: () => detail && !detail.by_person && own() && correct(), o: addEpisode}[e.key];
      if (!act) return false;
      act();
      return true;
    },
  };
  function own() { return isOwner(); }
}
