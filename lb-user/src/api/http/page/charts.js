// Ten minutes as lines, with the floods behind them.

// What is kept, and what is shown while less is known, in seconds.
const SPAN = 600;
// While nobody reads the daemon looks more rarely: what is further apart than this is a gap.
const GAP = 31;
const SPANS = [60, 120, 300, SPAN];

// A round number not below `value`: 1, 2 or 5 with zeros.
const round = (value) => {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1)));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value * 0.999);
};

// The whiles in which `rows` have a mode of at least lingering: [{from, to, mode}] in seconds since 1970.
const floods = (rows) => {
  const bands = [];
  let before = null;
  for (const row of rows) {
    const near = before !== null && row.at - before.at < GAP;
    if (row.mode > 0) {
      if (near && before.mode === row.mode) bands.at(-1).to = row.at;
      else bands.push({ from: near ? before.at : row.at, to: row.at, mode: row.mode });
    }
    before = row;
  }
  return bands;
};

// `lines` are {key, label, className}; rows are {at, mode, and one number or null for each key}.
const chart = (scene, id, rows, lines, now, unit) => {
  const width = Math.max(scene.root.clientWidth, 280);
  const height = 190;
  const [left, right, top, bottom] = [44, 6, 16, 22];
  const age = now - (rows[0]?.at ?? now);
  const span = SPANS.find((seconds) => seconds >= age - 1) ?? SPAN;
  const x = (at) => width - right - ((now - at) / span) * (width - left - right);
  const most = round(Math.max(1, ...rows.flatMap((row) => lines.map(({ key }) => row[key] ?? 0))));
  const y = (value) => height - bottom - (value / most) * (height - top - bottom);
  scene.draw(width, height, () => {
    floods(rows).forEach(({ from, to, mode }, index) => {
      const [start, end] = [Math.max(x(from), left), Math.max(x(to), x(from) + 2)];
      if (end <= left) return;
      const className = mode === 2 ? "flood" : "lingering";
      scene.put(`band${index}`, "rect", { class: `band ${className}`, x: start, y: top, width: end - start, height: height - top - bottom });
      scene.put(`top${index}`, "rect", { class: `bandtop ${className}`, x: start, y: top - 4, width: end - start, height: 4, rx: 2 });
    });
    for (const share of [0, 0.5, 1]) {
      const at = y(most * share);
      scene.put(`grid${share}`, "line", { class: "grid", x1: left, x2: width - right, y1: at, y2: at });
      scene.put(`tick${share}`, "text", { x: left - 8, y: at + 4, "text-anchor": "end" }, share === 0 ? "0" : tick(most * share));
    }
    for (const [share, anchor] of [[1, "start"], [0.5, "middle"], [0, "end"]]) {
      const ago = span * share;
      const text = ago === 0 ? "now" : ago < 60 ? `${ago} s ago` : `${ago / 60} min ago`;
      scene.put(`time${share}`, "text", { x: x(now - ago), y: height - 4, "text-anchor": anchor }, text);
    }
    for (const { key, className, area } of lines) {
      // A while without a look is a gap.
      const runs = [];
      let last = null;
      for (const row of rows) {
        if (row[key] === null || row[key] === undefined || x(row.at) < left) continue;
        if (last === null || row.at - last > GAP) runs.push([]);
        last = row.at;
        runs.at(-1).push([x(row.at).toFixed(1), y(row[key]).toFixed(1)]);
      }
      const path = runs.map((run) => `M${run.map((point) => point.join(",")).join("L")}`).join("");
      if (area) {
        const shapes = runs.map((run) => `M${run[0][0]},${y(0)}L${run.map((point) => point.join(",")).join("L")}L${run.at(-1)[0]},${y(0)}Z`);
        scene.put(`area-${key}`, "path", { class: `area ${className}`, d: shapes.join("") });
      }
      scene.put(`line-${key}`, "path", { class: `line ${className}`, d: path });
    }
  });
  each(byId(`${id}-legend`), "li", lines, (item, { key, label, className }) => {
    item.className = className;
    if (!item.firstElementChild) item.append(document.createElement("span"), " ", document.createElement("b"));
    setText(item.children[0], label);
    setText(item.children[1], rate(rows.at(-1)?.[key]));
  });
  perMinute(byId(`${id}-table`), rows, lines, now, unit);
};

// The chart in words: the most of each minute.
const perMinute = (element, rows, lines, now, unit) => {
  const lasts = [...Array(10).keys()].map((minute) => {
    const these = rows.filter(({ at }) => now - at >= minute * 60 && now - at < (minute + 1) * 60);
    const most = lines.map(({ key }) => {
      const values = these.map((row) => row[key]).filter((value) => value !== null && value !== undefined);
      return values.length ? rate(Math.max(...values)) : "–";
    });
    const mode = ["calm", "lingering", "flood"][Math.max(0, ...these.map((row) => row.mode))];
    return [minute === 0 ? "last minute" : `${minute} to ${minute + 1} min ago`, ...most, these.length ? mode : "–"];
  });
  table(element, `The most in each minute, ${unit}`, ["When", ...lines.map(({ label }) => label), "Defence"], lasts);
};
