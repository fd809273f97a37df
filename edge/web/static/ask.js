// Questions in plain language; the answer streams in, and its citations open the strip.
import {app, clockS, day, h, isOwner, lasts, on, Refused, complain} from "./base.js";
import {go} from "./app.js";

const IDEAS = ["What happened last night?", "How many PVCs were there in the last 24 hours?", "When was the longest AF episode?", "What was the lowest heart rate yesterday?", "How much was recorded today?"];
const log = []; // kept while the page is open

export function askView(main) {
  const field = h("input", {type: "text", maxLength: 500, autocomplete: "off", "aria-label": "Question", placeholder: "Ask about the recordings …"});
  const send = h("button.go", {}, "Ask"), answers = h("div", {"aria-live": "polite"});
  const ideas = h("div.chips", {}, IDEAS.map(text => h("button", {onclick: () => { field.value = text; submit(); }}, text)));
  let busy = null;
  main.append(h("div.ask", {}, h("section.card.stack", {}, h("h2", {}, "Ask"),
    h("form", {onsubmit: e => { e.preventDefault(); submit(); }}, field, send), ideas,
    h("small", {}, "The language model only chooses what to look up; every figure and time is computed from the database and cited.")), answers));
  log.forEach(box => answers.prepend(box));
  field.focus();

  async function submit() {
    const question = field.value.trim();
    if (!question || busy) return;
    const stage = h("p.soft.stage", {}, "asking"), text = h("p.a"), cites = h("div.places"), small = h("small");
    const box = h("section.card.qa", {}, h("p.q", {}, question), text, stage, cites, small);
    answers.prepend(box);
    log.push(box);
    if (log.length > 30) log.shift().remove();
    busy = new AbortController();
    send.disabled = true;
    try {
      const answer = await fetch("/api/ask", {method: "POST", signal: busy.signal, headers: {"content-type": "application/json"}, body: JSON.stringify({question, wearer: app.wearer})});
      if (!answer.ok) throw new Refused(answer.status, (await answer.json()).error);
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      for (let rest = "";;) {
        const {value, done} = await reader.read();
        if (done) break;
        rest += value;
        let at;
        while ((at = rest.indexOf("\n\n")) >= 0) {
          const data = rest.slice(0, at).split("\n").find(l => l.startsWith("data: "));
          rest = rest.slice(at + 2);
          if (data) take(JSON.parse(data.slice(6)));
        }
      }
      field.value = "";
    } catch (error) { text.textContent = error.message; }
    stage.remove();
    busy = null;
    send.disabled = false;

    function take(said) {
      if (said.stage) stage.textContent = said.stage;
      if (said.text) text.append((text.textContent ? " " : "") + said.text);
      if (said.error) text.textContent = said.error;
      if (said.done) {
        const d = said.done;
        cites.append(...d.citations.slice(0, 24).map((c, n) => cite(c, n)));
        const notes = [];
        if (d.coverage) notes.push(`rests on ${lasts(d.coverage.readable_s * 1000)} of readable signal`);
        if (d.fallback) notes.push("planned by keywords: the language model's choice contradicted the question");
        if (d.timing_ms?.total) notes.push(`${(d.timing_ms.total / 1000).toFixed(1)} s`);
        small.textContent = notes.join(" · ");
      }
    }
  }
  function cite(c, n) {
    if (c.event) {
      const e = app.events.get(c.event);
      return h("button", {onclick: () => go("review", "event", c.event), "data-event": c.event}, e ? `${e.name}, ${day(e.start_ms)} ${clockS(e.start_ms)}` : `event ${n + 1}`);
    }
    const [a, b] = c.span.map(t => Date.parse(t));
    return h("button", {onclick: () => go("review", "at", a, b)}, `${day(a)} ${clockS(a)} – ${clockS(b)}`);
  }
  return {close() {}};
}
