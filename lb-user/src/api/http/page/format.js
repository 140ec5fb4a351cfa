// Numbers as people read them, and elements that are changed in place: what is focused or being read stays where it is.

const rate = (value) => {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size < 1e-9) return "0";
  if (size >= 999.5e3) return `${(value / 1e6).toFixed(size < 9.95e6 ? 2 : 1)} M`;
  if (size >= 9995) return `${(value / 1e3).toFixed(size < 99.95e3 ? 1 : 0)} k`;
  if (size >= 9.95) return Math.round(value).toLocaleString("en");
  return value < 0.05 ? "< 0.1" : value.toFixed(1);
};

// The same for an axis, whose numbers are round.
const tick = (value) => rate(value).replace(/\.0+(?=\D|$)/, "");

const bits = (bytes) => {
  if (bytes === null || bytes === undefined) return "–";
  const all = bytes * 8;
  for (const [size, unit] of [[1e9, "Gbit/s"], [1e6, "Mbit/s"], [1e3, "kbit/s"]]) {
    if (all >= size) return `${(all / size).toFixed(all < 10 * size ? 1 : 0)} ${unit}`;
  }
  return `${Math.round(all)} bit/s`;
};

const time = (seconds) => {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 1e-3) return `${Math.round(seconds * 1e6)} µs`;
  if (seconds < 1) return `${(seconds * 1e3).toFixed(seconds < 0.01 ? 1 : 0)} ms`;
  return seconds < 60 ? `${seconds.toFixed(1)} s` : lasting(seconds);
};

const lasting = (seconds) => {
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
};

const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;
const filled = (queue) => (queue && queue.limit > 0 ? queue.length / queue.limit : 0);
const depth = (queue) => (queue ? `${queue.length.toLocaleString("en")} of ${queue.limit.toLocaleString("en")}` : "–");
const sum = (values) => values.reduce((all, value) => all + (value ?? 0), 0);
const clip = (text, length) => (text.length > length ? `${text.slice(0, length - 1)}…` : text);

const byId = (id) => document.getElementById(id);
const setText = (element, text) => {
  if (element.textContent !== text) element.textContent = text;
};

// Makes `parent` have one child of this tag for each item, filled by `fill`.
const each = (parent, tag, items, fill) => {
  while (parent.children.length > items.length) parent.lastElementChild.remove();
  items.forEach((item, index) => {
    const child = parent.children[index] ?? parent.appendChild(document.createElement(tag));
    fill(child, item, index);
  });
};

// A table: `head` are the headings, each row is a list of cells: texts, or {text, className, note, choose, bar}.
// A column of which nothing is known is left out.
const table = (element, caption, allHead, allRows) => {
  const known = allHead.map((_, index) => !allRows.length || allRows.some((cells) => (cells[index].text ?? cells[index]) !== "–"));
  const [head, ...rows] = [allHead, ...allRows].map((cells) => cells.filter((_, index) => known[index]));
  if (!element.tHead) {
    element.createCaption().className = "unseen";
    element.createTHead().insertRow();
    element.createTBody();
  }
  setText(element.caption, caption);
  each(element.tHead.rows[0], "th", head, (cell, text) => {
    cell.scope = "col";
    setText(cell, text);
  });
  each(element.tBodies[0], "tr", rows, (line, cells) => {
    while (line.cells.length > cells.length) line.lastElementChild.remove();
    cells.forEach((content, index) => {
      const { text, className = "", note = "", choose, bar } = typeof content === "string" ? { text: content } : content;
      const tag = index === 0 && !choose ? "th" : "td";
      let cell = line.cells[index];
      if (!cell || cell.localName !== tag) {
        const made = document.createElement(tag);
        if (tag === "th") made.scope = "row";
        if (cell) cell.replaceWith(made);
        else line.appendChild(made);
        cell = made;
      }
      if (cell.className !== className) cell.className = className;
      const key = JSON.stringify([text, note, choose, bar]);
      if (cell.dataset.key === key) return;
      cell.dataset.key = key;
      if (choose !== undefined) {
        const button = cell.querySelector("button") ?? cell.appendChild(document.createElement("button"));
        button.type = "button";
        button.dataset.choose = choose;
        setText(button, text);
      } else {
        cell.textContent = text;
        if (note) cell.appendChild(document.createElement("small")).textContent = note;
        if (bar !== undefined) cell.appendChild(document.createElement("i")).style.width = `${Math.round(100 * bar)}%`;
      }
    });
  });
};

// A drawing whose elements have keys: what is put again is changed, what is not put again goes.
class Scene {
  constructor(root) {
    this.root = root;
    this.known = new Map();
  }

  draw(width, height, paint) {
    const before = this.known;
    this.before = before;
    this.known = new Map();
    this.root.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.root.setAttribute("height", height);
    paint(this);
    for (const [key, element] of before) if (!this.known.has(key)) element.remove();
  }

  put(key, tag, attributes, text) {
    let element = this.before.get(key);
    if (!element) {
      element = document.createElementNS("http://www.w3.org/2000/svg", tag);
      this.root.appendChild(element);
    }
    this.known.set(key, element);
    for (const [name, value] of Object.entries(attributes)) {
      const next = typeof value === "number" ? String(Math.round(value * 10) / 10) : value;
      if (element.getAttribute(name) !== next) element.setAttribute(name, next);
    }
    if (text !== undefined) setText(element, text);
    return element;
  }
}
