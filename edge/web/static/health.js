// How the gateway, the devices and the disk are.
import {api, app, h, lasts, clockS, full} from "./base.js";

const bytes = n => n == null ? "–" : n > 1e9 ? `${(n / 1e9).toFixed(1)} GB` : n > 1e6 ? `${(n / 1e6).toFixed(1)} MB` : `${Math.round(n / 1e3)} kB`;
const fact = (name, value, kind = "") => h("div.fact", {}, h("span", {}, name), h("span.num", {class: kind}, value ?? "–"));
const card = (title, state, ...rest) => h("section.card", {}, h("div.row", {}, h("h2.grow", {}, title), state ? h("span.pill", {class: state}, state) : null), rest);

export function health(main) {
  const box = h("div.cards");
  main.append(box);
  async function draw() {
    let s;
    try { s = await api("/api/health"); } catch (error) { box.replaceChildren(h("p.empty", {}, error.message)); return; }
    const g = s.health, age = s.heartbeat_age_s;
    const cards = [card("Gateway", s.state, h("p.soft", {}, s.reason), fact("Last report", age == null ? "never" : `${lasts(age * 1000)} ago`),
      fact("Version", g.daemon?.version), fact("Up for", g.daemon ? lasts(g.daemon.uptime_s * 1000) : null), fact("Memory", g.daemon ? `${Math.round(g.daemon.rss_mb)} MB` : null), fact("Pages open", s.page.streams))];
    for (const w of s.wearers) {
      const share = w.coverage.period_s ? w.coverage.readable_s / w.coverage.period_s : 0, rec = w.coverage.recorded_s || 0;
      cards.push(card(w.wearer, w.state, h("p.soft", {}, w.reason), fact("Recorded, 24 h", lasts(rec * 1000)), fact("Readable, 24 h", lasts((w.coverage.readable_s || 0) * 1000)),
        meter(share, "readable share of the past 24 hours"), fact("Time zone", w.timezone), fact("Open events", w.open_events.length),
        w.devices.map(d => [h("h3", {class: "gap"}, d.device), fact("Link", d.link, d.link === "online" ? "ok" : d.link === "import" ? "" : "warn"), fact("Leads", `${d.leads.join(", ")} at ${d.fs_hz} Hz`), fact("Heard", `${lasts(d.freshness_s * 1000)} ago`), fact("Analysis behind", d.analysis_lag_s == null ? "not begun" : lasts(d.analysis_lag_s * 1000))])));
    }
    cards.push(card("Model and provider", "", fact("Encoder", g.encoder?.checkpoint), fact("Runs on", g.encoder?.provider), h("p.soft", {}, g.encoder?.reason || ""), h("p.soft", {}, g.encoder?.stride || ""), fact("Windows read", g.analysis?.hops), fact("Behind", g.analysis ? lasts(g.analysis.lag_s * 1000) : null)));
    cards.push(card("Broker", "", fact("Address", g.broker?.url), fact("Receiving", g.broker?.source?.state, g.broker?.source?.state === "connected" ? "ok" : "warn"), h("p.soft", {}, g.broker?.source?.reason || ""), fact("Sending", g.broker?.publisher?.link, g.broker?.publisher?.link === "connected" ? "ok" : "warn"), h("p.soft", {}, g.broker?.publisher?.reason || ""), fact("Reconnects", g.broker?.source?.reconnects)));
    const q = g.queues || {};
    cards.push(card("Queues", "", fact("Chunks waiting", `${q.chunks ?? "–"} of ${q.chunks_limit ?? "–"}`), meter(q.chunks_limit ? q.chunks / q.chunks_limit : 0, "chunks waiting"), fact("Inbox, not yet in blocks", s.backlog.inbox), fact("Messages to be delivered", s.backlog.outbox), fact("Writes waiting", g.writer?.depth), fact("Questions asked", s.page.questions)));
    const d = s.disk;
    cards.push(card("Disk", d.days_left != null && d.days_left < 14 ? "degraded" : "", fact("Database", bytes(d.database_bytes)), fact("Free", bytes(d.free_bytes)), fact("Grows by", d.bytes_per_day == null ? "not known yet" : `${bytes(d.bytes_per_day)} a day`), fact("Full in", d.days_left == null ? "–" : d.days_left > 3650 ? "more than 10 years" : `${d.days_left} days`)));
    cards.push(card("Faults since the start", s.faults.length ? "degraded" : "", s.faults.length ? s.faults.map(f => fact(f.where, f.count == null ? f.what : `${f.what.replaceAll("_", " ")}: ${f.count}`)) : h("p.soft", {}, "none"), h("small", {}, `read ${clockS(s.now_ms)}`)));
    box.replaceChildren(...cards);
  }
  const meter = (share, label) => { const bar = h("i"); bar.style.width = `${Math.min(100, Math.max(0, share * 100))}%`; return h("div.meter", {role: "meter", "aria-label": label, "aria-valuenow": Math.round(share * 100), "aria-valuemin": 0, "aria-valuemax": 100}, bar); };
  draw();
  const timer = setInterval(draw, 3000);
  return {close() { clearInterval(timer); }};
}
