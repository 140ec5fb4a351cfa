// What comes from the daemon, and what is made of it. Nothing is sent.

const scenes = Object.fromEntries(["way", "opening", "queues", "losses"].map((id) => [id, new Scene(byId(id))]));
const state = { columns: [], meanings: new Map(), history: new Map(), moment: null, chosen: "", latest: 0 };

const rowOf = (at, values) => {
  const row = { at };
  state.columns.forEach((column, index) => {
    row[column] = values[index];
  });
  row.mode ??= 0;
  return row;
};

// What is shown of the past: of the chosen service, or of all of them together.
const rows = () => {
  if (state.chosen) return state.history.get(state.chosen) ?? [];
  const all = new Map();
  for (const series of state.history.values()) {
    for (const row of series) {
      const total = all.get(row.at);
      if (!total) all.set(row.at, { ...row });
      else {
        for (const column of state.columns) {
          if (column === "mode") total.mode = Math.max(total.mode, row.mode);
          else if (row[column] !== null) total[column] = (total[column] ?? 0) + row[column];
        }
      }
    }
  }
  return [...all.values()].sort((one, other) => one.at - other.at);
};

// What needs a look, the worst first: {bad, text}.
const troubles = (moment) => {
  const found = [];
  if (moment.not_ready) found.push({ bad: true, text: `New connections are not balanced: ${moment.not_ready}.` });
  for (const lane of moment.services) {
    for (const worker of lane.workers) {
      const who = `${lane.name}, worker ${worker.index}${worker.server ? `, ${worker.server}` : ""}`;
      const queue = worker.queues.accept;
      const waits = worker.queues.oldest_wait ? `; the first in it has waited ${time(worker.queues.oldest_wait)}` : "";
      const full = filled(queue) >= 0.8;
      const losing = worker.lost > 0 ? `; ${rate(worker.lost)} lost a second` : "";
      if (full) found.push({ bad: true, text: `${who}: accept queue ${depth(queue)}${waits}${losing}.` });
      if (worker.state === "unserved") found.push({ bad: true, text: `${who}: no process accepts from it.` });
      if (worker.state === "draining") found.push({ bad: false, text: `${who}: is being drained.` });
    }
    // A socket drops also what comes too late: by itself that is no trouble.
    const lost = lane.rates?.overflows ?? 0;
    if (lost > 0.02 * Math.max(lane.rates?.connections ?? 0, 50)) found.push({ bad: false, text: `${lane.name}: ${rate(lost)} packets a second lost at its sockets.` });
    if (lane.balanced && lane.workers.length === 0) found.push({ bad: true, text: `${lane.name}: has no worker.` });
    if (lane.defence?.is_unsafe) found.push({ bad: true, text: `${lane.name}: a cookie's connection would be lost on this host, so no SYN is answered.` });
  }
  return found.sort((one, other) => Number(other.bad) - Number(one.bad));
};

const showState = (moment) => {
  const flooded = moment.services.filter((lane) => lane.defence?.mode === "flood");
  const found = troubles(moment);
  const bad = found.some((trouble) => trouble.bad);
  const names = flooded.slice(0, 3).map((lane) => lane.name).join(", ") + (flooded.length > 3 ? ` and ${flooded.length - 3} more` : "");
  byId("state").dataset.mode = flooded.length ? "flood" : bad ? "trouble" : "calm";
  // No number in it: it is read out when it changes.
  setText(byId("headline"), flooded.length ? `SYN flood on ${names}` : bad ? "Something needs a look" : "All is calm");
  const lanes = flooded.length ? flooded : moment.services;
  const total = (pick) => sum(lanes.map((lane) => (lane.rates ? pick(lane.rates) : 0)));
  const connections = `${rate(total((rates) => rates.connections))} connections/s established`;
  const longest = Math.max(0, ...flooded.map((lane) => lane.defence.flood_seconds ?? 0));
  const held = total((rates) => rates.answered.packets + rates.dropped.packets);
  const share = held > 0 ? (100 * held) / total((rates) => rates.seen.packets) : 0;
  setText(byId("figures"), !moment.seen ? "" : flooded.length
    ? `${longest < 1 ? "Just begun" : `For ${lasting(longest)}`}: ${rate(total((rates) => rates.opening))} SYNs/s; ${Math.min(share, 99.9).toFixed(1)} % of packets end at the card; ${connections}.`
    : `${plural(moment.services.length + moment.folded, "service")}, ${connections}, ${rate(total((rates) => rates.opening))} opening packets/s.`);
  const shown = found.slice(0, 8);
  if (found.length > shown.length) shown.push({ text: `and ${found.length - shown.length} more` });
  each(byId("troubles"), "li", shown, (item, { text }) => setText(item, text));
};

// What holds all the time.
const showNotes = (moment) => {
  const notes = moment.notes.map(({ text, remedy }) => ({ text, remedy }));
  for (const lane of moment.services) for (const { text, remedy } of lane.notes) notes.push({ text: `${lane.name}: ${text}`, remedy });
  byId("notes-card").hidden = notes.length === 0;
  each(byId("notes"), "li", notes.slice(0, 20), (item, { text, remedy }) => {
    if (item.dataset.key === text + remedy) return;
    item.dataset.key = text + remedy;
    item.textContent = text;
    if (remedy) item.appendChild(document.createElement("small")).textContent = remedy;
  });
};

const showDrops = (moment) => {
  const all = new Map();
  for (const lane of moment.services.filter((lane) => !state.chosen || lane.name === state.chosen)) {
    for (const { reason, by, rate: value } of lane.rates?.drops ?? []) {
      const entry = all.get(`${by} ${reason}`) ?? { reason, by, value: 0 };
      entry.value += value;
      all.set(`${by} ${reason}`, entry);
    }
    const noRoom = lane.rates?.no_room ?? 0;
    if (noRoom > 0) {
      const entry = all.get("socket") ?? { reason: "lost at the socket", by: "socket", value: 0 };
      entry.value += noRoom;
      all.set("socket", entry);
    }
  }
  const drops = [...all.values()].sort((one, other) => other.value - one.value).slice(0, 12);
  byId("no-drops").hidden = drops.length > 0;
  byId("drops").hidden = drops.length === 0;
  const where = { weir: "Weir", kernel: "the kernel", socket: "the socket" };
  const note = ({ by, reason }) => (by === "weir" ? state.meanings.get(reason)?.help ?? "" : by === "socket" ? "Mostly for want of room: a full accept queue, SYN queue or receive buffer." : "");
  table(byId("drops"), "Lost packets by reason", ["Reason", "By", "Packets/s"], drops.map((drop) => [
    { text: drop.reason, note: note(drop), bar: drop.value / drops[0].value, className: { weir: "drop", kernel: "kernel", socket: "overflow" }[drop.by] },
    { text: where[drop.by] },
    { text: rate(drop.value), className: "number" },
  ]));
};

const showList = (moment) => {
  const lane = moment.services.find(({ name }) => name === state.chosen);
  setText(byId("list-title"), lane ? `Workers of ${lane.name}` : "Services");
  const full = (queue, text = depth(queue)) => ({ text, className: filled(queue) >= 0.8 ? "bad" : filled(queue) >= 0.5 ? "warn" : "" });
  if (lane) {
    const head = ["Worker", "State", "Connections/s", "Open", "SYN queue", lane.protocol === "udp" ? "Receive bytes" : "Accept queue", "Oldest waits", "Accept p50", "Accept p99", "Lost/s"];
    table(byId("list"), "Workers", head, lane.workers.map((worker) => [
      `${worker.index} ${worker.server ?? ""}`,
      { text: worker.state, className: worker.state === "ready" ? "" : worker.state === "draining" ? "warn" : "bad" },
      rate(worker.connections), worker.open?.toLocaleString("en") ?? "–", full(worker.queues.syn), full(worker.queues.accept ?? worker.queues.receive),
      time(worker.queues.oldest_wait), time(worker.accept_median), time(worker.accept_p99),
      { text: rate(worker.lost), className: worker.lost > 0 ? "bad" : "" },
    ]));
    return;
  }
  const head = ["Service", "Defence", "Connections/s", "Waiting", "Dropped/s", "Lost/s", "SYN queue", "Packets/s", "Accept p99", "Workers", "Address"];
  table(byId("list"), "Services", head, moment.services.map((lane) => {
    const mode = lane.defence?.mode ?? "–";
    return [
      { text: lane.name, choose: lane.name },
      { text: mode, className: mode === "flood" ? "bad" : mode === "lingering" ? "warn" : "" },
      rate(lane.rates?.connections), full(lane.queues.accept ?? lane.queues.receive), rate(lane.rates?.dropped.packets), rate(lane.rates?.lost), full(lane.queues.syn), rate(lane.rates?.seen.packets),
      time(lane.rates?.accept_p99), (lane.workers.length + lane.folded).toLocaleString("en"), `${lane.protocol} ${lane.address}`,
    ];
  }));
};

const show = () => {
  const { moment } = state;
  if (!moment) return;
  setText(byId("instance"), moment.instance);
  document.title = moment.services.some((lane) => lane.defence?.mode === "flood") ? "Flood · Weir" : `Weir ${moment.instance}`;
  const names = moment.services.map((lane) => lane.name);
  const options = ["", ...names];
  each(byId("choice"), "option", options, (option, name) => {
    if (option.value !== name) option.value = name;
    setText(option, name || "all services");
  });
  if (state.chosen && !names.includes(state.chosen)) state.chosen = "";
  if (byId("choice").value !== state.chosen) byId("choice").value = state.chosen;

  showState(moment);
  drawWay(scenes.way, moment, state.chosen);
  const past = rows();
  const known = (key) => past.some((row) => row[key] !== null && row[key] !== undefined);
  const chosen = (lines) => lines.filter(({ key }) => known(key));
  chart(scenes.opening, "opening", past, [
    { key: "opening", label: "SYNs and new flows", className: "syn", area: true },
    { key: "answered", label: "answered", className: "answer" },
    { key: "connections", label: "established", className: "good" },
  ], moment.at, "per second");
  chart(scenes.queues, "queues", past, chosen([
    { key: "accept", label: "accept queue", className: "good", area: true },
    { key: "syn", label: "SYN queue", className: "syn" },
    { key: "receive", label: "receive buffers, bytes", className: "answer" },
  ]), moment.at, "what waits");
  chart(scenes.losses, "losses", past, [
    { key: "dropped", label: "by Weir, at the card", className: "drop", area: true },
    ...chosen([
      { key: "kernel", label: "by the kernel", className: "kernel" },
      { key: "no_room", label: "at a socket", className: "overflow" },
    ]),
  ], moment.at, "packets per second");
  showDrops(moment);
  showList(moment);
  showNotes(moment);
  const answers = moment.live ? "answers SYNs in a flood" : "answers no SYN now";
  setText(byId("about"), `Weir ${moment.version ?? ""}, attached for ${lasting(moment.uptime)}; ${moment.scheme} cookies, ${answers}.`);
};

const remember = (moment) => {
  for (const lane of moment.services) {
    const series = state.history.get(lane.name) ?? [];
    const row = rowOf(Math.round(moment.at * 10) / 10, lane.row);
    if (series.at(-1)?.at !== row.at) series.push(row);
    state.history.set(lane.name, series);
  }
  for (const [name, series] of state.history) {
    while (series.length && moment.at - series[0].at > SPAN) series.shift();
    if (!series.length) state.history.delete(name);
  }
};

const told = (mood, text) => {
  const element = byId("connection");
  if (element.dataset.state !== mood) element.dataset.state = mood;
  setText(element, text);
};

const listen = () => {
  const source = new EventSource("/api/v1/events");
  source.addEventListener("opening", ({ data }) => {
    const opening = JSON.parse(data);
    state.columns = opening.columns;
    state.meanings = new Map(opening.reasons.map((meaning) => [meaning.reason, meaning]));
    state.history = new Map(Object.entries(opening.history).map(([name, series]) => [name, series.map(([at, values]) => rowOf(at, values))]));
    state.latest = Date.now();
    state.moment = opening.moment;
    // One service needs no choice.
    if (!state.chosen && opening.moment?.services.length === 1) state.chosen = opening.moment.services[0].name;
    told("live", "live");
    show();
  });
  source.addEventListener("moment", ({ data }) => {
    state.moment = JSON.parse(data);
    state.latest = Date.now();
    remember(state.moment);
    told("live", "live");
    if (!document.hidden) show();
  });
  source.addEventListener("trouble", ({ data }) => told("lost", JSON.parse(data)));
  source.addEventListener("error", () => {
    told("lost", "no connection to the daemon; trying again");
    // A stream that was refused is not tried again by the browser.
    if (source.readyState === EventSource.CLOSED) setTimeout(listen, 5000);
  });
};

byId("choice").addEventListener("change", ({ target }) => {
  state.chosen = target.value;
  show();
});
byId("list").addEventListener("click", ({ target }) => {
  if (target.dataset.choose === undefined) return;
  state.chosen = target.dataset.choose;
  show();
  byId("choice").focus();
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) show();
});
let pending = 0;
new ResizeObserver(() => {
  cancelAnimationFrame(pending);
  pending = requestAnimationFrame(show);
}).observe(byId("main"));
setInterval(() => {
  if (state.latest && Date.now() - state.latest > 15000) told("lost", "the daemon has said nothing for a while");
}, 5000);
listen();
