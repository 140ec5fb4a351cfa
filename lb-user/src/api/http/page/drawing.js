// The way of packets: card, verdicts, listener, workers. From left to right where there is room, else from top to bottom.

const SHOWN = 8;

// As wide as the rate is large, by its logarithm.
const breadth = (value) => (value > 0 ? Math.min(2 + 2.2 * Math.log10(1 + value), 16) : 1.5);

const strain = (share) => (share >= 0.8 ? "drop" : share >= 0.5 ? "answer" : "good");

// What is drawn: rates of the card and of the verdicts, listeners, and workers of the one that is chosen.
const wayOf = (moment, chosen, narrow) => {
  const lanes = moment.services.filter((lane) => !chosen || lane.name === chosen);
  const over = (pick) => (moment.seen ? sum(lanes.map((lane) => (lane.rates ? pick(lane.rates) : 0))) : null);
  const ours = over((rates) => rates.seen.packets);
  const answered = over((rates) => rates.answered.packets);
  const dropped = over((rates) => rates.dropped.packets);
  const all = chosen ? ours : moment.seen?.packets;
  const bytes = chosen ? over((rates) => rates.seen.bytes) : moment.seen?.bytes;
  const verdicts = [
    { key: "drop", className: "drop", name: "Dropped", value: dropped, note: "refused, with a reason" },
    { key: "answer", className: "answer", name: "Answered", value: answered, note: "SYN cookies from the card" },
    { key: "good", className: "good", name: "Delivered", value: moment.seen ? Math.max(ours - answered - dropped, 0) : null, note: "to the listeners" },
  ];
  // What goes on to the listeners lies nearest to them.
  const pass = { key: "pass", className: "pass", name: "Not ours", value: moment.passed?.packets, note: "passes untouched" };
  if (!chosen && narrow) verdicts.unshift(pass);
  else if (!chosen) verdicts.push(pass);
  return { all, bytes, verdicts, lanes };
};

const drawWay = (scene, moment, chosen) => {
  const width = Math.max(scene.root.clientWidth, 280);
  const narrow = width < 640;
  const { all, bytes, verdicts, lanes } = wayOf(moment, chosen, narrow);
  const single = lanes.length === 1 ? lanes[0] : null;
  const listeners = lanes.slice(0, SHOWN);
  // The workers of one listener each; of several all together.
  const workers = single ? single.workers.slice(0, SHOWN) : narrow ? [] : listeners;
  const unshown = single ? single.workers.length - workers.length + single.folded : lanes.length - listeners.length + moment.folded;

  // Where the boxes are.
  const gap = 10;
  const column = narrow ? width : Math.min((width - 3 * 74) / 4, 250);
  const step = (width - column) / 3;
  const at = (index) => (narrow ? 0 : index * step);
  const [verdictHeight, listenerHeight, workerHeight] = [64, single ? 118 : 58, single ? 46 : 58];
  const stack = (count, height) => count * (height + gap) - gap;
  const tall = Math.max(stack(verdicts.length, verdictHeight), stack(listeners.length, listenerHeight), stack(workers.length, workerHeight) + (unshown ? 24 : 0), 100);
  const middle = (count, height) => (tall - stack(count, height)) / 2;
  const indent = narrow ? 30 : 0;
  let down = 0;
  const place = (index, count, height) => {
    const start = narrow ? down : middle(count, height);
    const inset = narrow && (index === 1 || index === 3) ? indent : 0;
    const boxes = [...Array(count).keys()].map((row) => ({ x: at(index) + inset, y: start + row * (height + gap), w: column - inset, h: height }));
    if (narrow && count) down = boxes.at(-1).y + height + 22;
    return boxes;
  };
  const [card] = place(0, 1, narrow ? 64 : 100);
  const verdictBoxes = place(1, verdicts.length, verdictHeight);
  const listenerBoxes = place(2, listeners.length, listenerHeight);
  const workerBoxes = place(3, workers.length, workerHeight);
  const height = (narrow ? down - (unshown ? 0 : 20) : tall) + 2;

  const paint = () => {
    // Edges first: they lie below.
    const edge = (key, from, to, value, className) => {
      let path;
      if (narrow) {
        const [x, y, turn] = [from.x + 14, from.y + from.h, to.y + to.h / 2];
        path = to.x > from.x ? `M${x},${y}V${turn - 10}q0,10 10,10H${to.x}` : `M${from.x + 24},${y}V${to.y}`;
      } else {
        const [x, y, tx, ty] = [from.x + from.w, from.y + from.h / 2, to.x, to.y + to.h / 2];
        path = `M${x},${y}C${(x + tx) / 2},${y} ${(x + tx) / 2},${ty} ${tx},${ty}`;
      }
      const moves = value > 0;
      scene.put(`edge-${key}`, "path", { class: `edge ${className}${moves ? "" : " idle"}`, d: path, "stroke-width": narrow ? Math.min(breadth(value), 6) : breadth(value) });
      if (moves) scene.put(`drift-${key}`, "path", { class: `drift ${className}`, d: path });
    };
    verdicts.forEach(({ key, value, className }, index) => edge(key, card, verdictBoxes[index], value, className));
    const delivered = verdicts.findIndex(({ key }) => key === "good");
    listeners.forEach((lane, index) => {
      const flows = lane.rates ? lane.rates.seen.packets - lane.rates.answered.packets - lane.rates.dropped.packets : 0;
      if (!narrow || index === 0) edge(`to-${lane.name}`, verdictBoxes[delivered], listenerBoxes[index], narrow ? verdicts[delivered].value : flows, "good");
    });
    workers.forEach((worker, index) => {
      const value = single ? worker.connections : worker.rates?.connections ?? 0;
      edge(`worker${index}`, listenerBoxes[single ? 0 : index], workerBoxes[index], value, "good");
    });

    const box = (key, { x, y, w, h }, className) => {
      scene.put(`box-${key}`, "rect", { class: "box", x: x + 0.5, y: y + 0.5, width: w - 1, height: h - 1, rx: 9 });
      scene.put(`tag-${key}`, "rect", { class: `tag ${className}`, x, y: y + 9, width: 4, height: h - 18, rx: 2 });
    };
    const write = (key, x, y, className, text, anchor = "start") => scene.put(key, "text", { class: className, x, y, "text-anchor": anchor }, text);
    const gauge = (key, x, y, w, queue) => {
      const share = Math.min(filled(queue), 1);
      scene.put(`${key}-track`, "rect", { class: "track", x, y, width: w, height: 5, rx: 2.5 });
      scene.put(`${key}-fill`, "rect", { class: `fill ${strain(share)}`, x, y, width: Math.max(share * w, queue?.length ? 3 : 0), height: 5, rx: 2.5 });
    };
    const letters = (w) => Math.max(Math.floor(w / 7.4), 6);

    const drawWorker = (key, place, worker) => {
      const queue = worker.queues.accept ?? worker.queues.receive;
      const well = worker.state === "ready";
      box(key, place, well ? strain(filled(queue)) : worker.state === "draining" ? "answer" : "drop");
      write(`${key}-name`, place.x + 16, place.y + 19, "name", clip(`${worker.index}  ${worker.server ?? "nobody known"}`, letters(place.w - 74)));
      write(`${key}-rate`, place.x + place.w - 12, place.y + 19, "number", rate(worker.connections), "end");
      const open = worker.open === null ? worker.state : `${worker.open.toLocaleString("en")} open`;
      const note = well ? (worker.accept_p99 ? `p99 ${time(worker.accept_p99)}` : open) : worker.state;
      write(`${key}-note`, place.x + 16, place.y + 37, well ? "" : worker.state === "draining" ? "warn" : "bad", note);
      if (queue) gauge(`${key}-g`, place.x + place.w - 92, place.y + 31, 80, queue);
    };
    // The workers of a listener: a bar for the queue of each.
    const drawGroup = (key, place, lane) => {
      const all = lane.workers.length + lane.folded;
      const away = lane.workers.filter(({ state }) => state !== "ready").length;
      const full = lane.workers.filter(({ queues }) => filled(queues.accept ?? queues.receive) >= 0.8).length;
      box(key, place, away || full ? "answer" : "good");
      write(`${key}-name`, place.x + 16, place.y + 22, "name", lane.balanced ? plural(all, "worker") : plural(1, "listener"));
      const note = [full ? `${full} nearly full` : "", away ? `${away} not serving` : ""].filter(Boolean).join(", ");
      write(`${key}-note`, place.x + place.w - 12, place.y + 22, "warn", note, "end");
      const few = lane.workers.slice(0, 24);
      const each = Math.min((place.w - 28) / few.length, 34);
      few.forEach(({ queues }, index) => gauge(`${key}-${index}`, place.x + 16 + index * each, place.y + 38, each - 4, queues.accept ?? queues.receive));
    };

    box("card", card, "pass");
    write("card-name", card.x + 16, card.y + 22, "name", clip(moment.interfaces.join(", ") || "no interface", letters(card.w - 26)));
    write("card-rate", card.x + 16, card.y + 48, "rate", rate(all));
    if (narrow) write("card-bytes", card.x + card.w - 12, card.y + 48, "", `packets/s · ${bits(bytes)}`, "end");
    else {
      write("card-packets", card.x + 16, card.y + 66, "", "packets");
      write("card-bytes", card.x + 16, card.y + 84, "", bits(bytes));
    }
    verdicts.forEach(({ key, name, value, note, className }, index) => {
      const place = verdictBoxes[index];
      box(key, place, className);
      write(`${key}-name`, place.x + 16, place.y + 24, "name", name);
      write(`${key}-rate`, place.x + place.w - 12, place.y + 28, "rate", rate(value), "end");
      write(`${key}-note`, place.x + 16, place.y + 46, "", note);
    });
    listeners.forEach((lane, index) => {
      const place = listenerBoxes[index];
      const key = `lane${index}`;
      const mode = lane.defence?.mode ?? "calm";
      box(key, place, mode === "flood" ? "drop" : mode === "lingering" ? "answer" : strain(filled(lane.queues.accept ?? lane.queues.receive)));
      const number = lane.rates ? rate(lane.rates.connections) : "–";
      write(`${key}-name`, place.x + 16, place.y + 22, "name", clip(lane.name, letters(place.w - 92)));
      write(`${key}-rate`, place.x + place.w - 12, place.y + 23, "number", number, "end");
      write(`${key}-unit`, place.x + place.w - 12, place.y + 39, "", lane.protocol === "udp" ? "flows" : "connections", "end");
      write(`${key}-note`, place.x + 16, place.y + 39, mode === "flood" ? "bad" : mode === "lingering" ? "warn" : "", mode === "calm" ? (lane.balanced ? plural(lane.workers.length + lane.folded, "worker") : "not balanced") : mode);
      const queues = lane.protocol === "udp" ? [["receive buffer", lane.queues.receive]] : [["SYN queue", lane.queues.syn], ["accept queue", lane.queues.accept]];
      queues.filter(([, queue]) => queue).forEach(([name, queue], row) => {
        if (!single) {
          if (name !== "SYN queue") gauge(`${key}-queue`, place.x + 16, place.y + 47, place.w - 28, queue);
          return;
        }
        const y = place.y + 62 + row * 28;
        write(`${key}-q${row}`, place.x + 16, y, "", name);
        write(`${key}-d${row}`, place.x + place.w - 12, y, "", depth(queue), "end");
        gauge(`${key}-g${row}`, place.x + 16, y + 6, place.w - 28, queue);
      });
    });
    if (single) workers.forEach((worker, index) => drawWorker(`worker${index}`, workerBoxes[index], worker));
    else workers.forEach((lane, index) => drawGroup(`group${index}`, workerBoxes[index], lane));
    if (unshown > 0) {
      const under = single ? workerBoxes.at(-1) : listenerBoxes.at(-1);
      write("unshown", under.x + 16, under.y + under.h + 20, "", `and ${plural(unshown, "more", "")}`.replace(/mores$/, "more"));
    }
  };
  scene.draw(width, height, paint);

  const words = verdicts.map(({ name, value }) => `${name} ${rate(value)}`).join(", ");
  setText(byId("way-text"), `${rate(all)} packets per second by ${moment.interfaces.join(", ")}: ${words}.`);
  const rows = verdicts.map(({ name, value, note }) => [{ text: name, note }, rate(value), all > 0 ? `${((100 * value) / all).toFixed(1)} %` : "–"]);
  table(byId("way-table"), "What becomes of packets", ["Verdict", "Packets/s", "Share"], [[{ text: "All packets", note: moment.interfaces.join(", ") }, rate(all), all > 0 ? "100 %" : "–"], ...rows]);
};
