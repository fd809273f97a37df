// Questions in plain language; the answer streams in, and its citations open the strip.
import {api, app, clockS, complain, day, full, h, Refused} from "./base.js";
import {go} from "./app.js";

const IDEAS = ["What happened last night?", "How many PVCs were there in the last 24 hours?", "When was the longest AF episode?", "What was the lowest heart rate yesterday?", "How much was recorded today?"];

export function askView(main) {
  const field = h("input", {type: "text", maxLength: 500, autocomplete: "off", "aria-label": "Question", placeholder: "Ask about the recordings …"});
  const send = h("button.go", {}, "Ask"), answers = h("div", {"aria-live": "polite"}), past = h("div", {"aria-label": "Asked before"});
  const ideas = h("div.chips", {}, IDEAS.map(text => h("button", {onclick: () => { field.value = text; submit(); }}, text)));
  let busy = false, before = null; // before: the last answer, which "and the longest?" goes on from
  main.append(h("div.ask", {}, h("section.card.stack", {}, h("h2", {}, "Ask"),
    h("form", {onsubmit: e => { e.preventDefault(); submit(); }}, field, send), ideas,
    h("small", {}, "Every figure and time is computed from the database and cited. \u201cAnd the longest?\u201d goes on from the answer before.")), answers, past));
  field.focus();
  api("/api/questions").then(asked => past.append(...asked.map(q => {
    const {box, take} = exchange(q.question, [full(q.asked_ms), q.wearer].filter(Boolean).join(", "));
    take({done: q.answer});
    return box;
  })), complain);

  async function submit() {
    const question = field.value.trim();
    if (!question || busy) return;
    const {box, take} = exchange(question, "");
    answers.prepend(box);
    busy = true;
    send.disabled = true;
    take({stage: "asking"});
    try {
      const answer = await fetch("/api/ask", {method: "POST", headers: {"content-type": "application/json"}, body: JSON.stringify({question, wearer: app.wearer, context: before?.wearer === app.wearer ? before.plan : null})});
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
          if (!data) continue;
          const said = JSON.parse(data.slice(6));
          take(said);
          if (said.done?.plan?.length) before = {plan: said.done.plan, wearer: app.wearer};
        }
      }
      field.value = "";
    } catch (error) { take({error: error.message}); }
    busy = false;
    send.disabled = false;
  }

  function exchange(question, when) { // one question and what comes back
    const stage = h("p.soft.stage", {hidden: true}), text = h("p.a"), cites = h("div.places"), small = h("small");
    const box = h("section.card.qa", {}, h("p.q", {}, question), text, stage, cites, small);
    function take(said) {
      if (said.stage) { stage.textContent = said.stage; stage.hidden = false; }
      if (said.text) text.append(said.text);
      if (said.error) { text.textContent = said.error; stage.remove(); }
      if (!said.done) return;
      const d = said.done, notes = when ? [when] : [];
      stage.remove();
      text.textContent = d.answer;
      cites.append(...(d.citations || []).slice(0, 24).map(cite));
      if (d.fallback) notes.push("without the language model: what it wrote did not fit the question");
      if (d.timing_ms?.total) notes.push(`${(d.timing_ms.total / 1000).toFixed(1)} s`);
      small.textContent = notes.join(" · ");
    }
    return {box, take};
  }
  function cite(c, n) {
    if (c.event) {
      const e = app.events.get(c.event);
      return h("button", {onclick: () => go("review", "event", c.event), "data-event": c.event}, e ? `${e.name}, ${day(e.start_ms)} ${clockS(e.start_ms)}` : `event ${n + 1}`);
    }
    const [a, b] = c.span.map(t => Date.parse(t));
    return h("button", {onclick: () => go("review", "at", a, b)}, `${day(a)} ${clockS(a)} – ${clockS(b)}`);
  }
  return {close() {}}; // an answer on its way is finished and kept
}
