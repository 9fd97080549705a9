"use strict";
// The map: the cells' columns, tips, tabs, filters, the address. No text of a run ever becomes markup: `el` sets text.

const $ = (id) => document.getElementById(id);
const data = JSON.parse($("index").textContent);
const total = data.ratio.length;

/** An element with its class, attributes and children; a string is a text. */
function el(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) if (value !== null && value !== false) made.setAttribute(key, value);
  made.append(...children.flat().filter((child) => child !== null && child !== false && child !== ""));
  return made;
}

const word = (name, index) => data.words[name][data.columns[name][index]];
const idOf = (index) => data.ids[index] ?? `${word("scenario", index)}@${word("creator", index)}:${word("loader", index)}[${word("device", index)}]`;
const letterOf = (index) => data.letters[data.columns.verdict[index]];
const badge = (index) => el("span", { class: `badge v-${word("verdict", index)}` }, letterOf(index));
const release = (name) => (data.labels[name] && data.labels[name] !== name ? `${data.labels[name].split(" ")[0]} (${name})` : name);
const isDeviation = (index) => data.deviations.includes(word("verdict", index));

/** A figure with three digits, as in the other formats. */
function figure(value) {
  if (value === null || value === undefined) return "–";
  const number = Number(value);
  if (!Number.isFinite(number)) return Number.isNaN(number) ? "nan" : number > 0 ? "inf" : "-inf";
  if (number === 0) return "0";
  return Math.abs(number) < 0.01 || Math.abs(number) >= 1e4 ? number.toExponential(2).replace(/e([+-])(\d)$/, "e$10$2") : String(Number(number.toPrecision(3)));
}

/** An error as a multiple of its allowance: `0.31×`, `1.9e+06×`. */
function times(value) {
  const ratio = Number(value);
  if (value === null || Number.isNaN(ratio)) return "–";
  if (ratio === 0 || ratio === Infinity) return ratio ? "inf×" : "0×";
  if (ratio >= 1e4 || ratio < 0.01) return `${ratio.toExponential(1).replace(/e([+-])(\d)$/, "e$10$2")}×`;
  return `${ratio < 100 ? Number(ratio.toPrecision(2)) : Math.round(ratio).toLocaleString("en")}×`;
}

// Tips ----------------------------------------------------------------------------------------------------------------

/** The four lines about a cell. */
function lines(index) {
  const ratio = data.ratio[index];
  const clean = { exact: "equal to the bit", close: "equal within the measured noise" }[word("verdict", index)];
  return [
    `${letterOf(index)} ${word("verdict", index)}${data.expected[index] ? " (known break)" : ""} · ${word("scenario", index)}`,
    `saved by ${release(word("creator", index))}, loaded by ${release(word("loader", index))} on ${word("device", index)}`,
    word("title", index) || clean || "no reason given",
    data.expected[index] && word("issue", index) ? word("issue", index) : ratio === null ? "no size" : `error ${times(ratio)} its allowance`,
  ];
}

function showTip(square) {
  const tip = $("tip"), box = square.getBoundingClientRect();
  tip.replaceChildren(...lines(Number(square.dataset.c)).map((line) => el("div", {}, line)));
  tip.hidden = false;
  const below = box.bottom + tip.offsetHeight + 8 < innerHeight;
  tip.style.top = `${below ? box.bottom + 6 : box.top - tip.offsetHeight - 6}px`;
  tip.style.left = `${Math.max(6, Math.min(box.left, innerWidth - tip.offsetWidth - 8))}px`;
}

// Filters -------------------------------------------------------------------------------------------------------------

const COLUMNS = ["family", "method", "verdict", "scenario", "creator", "loader", "device", "change"];
const STATES = {
  bad: (index) => isDeviation(index) && !data.expected[index],
  known: (index) => Boolean(data.expected[index]),
  clean: (index) => ["exact", "close", "warned"].includes(word("verdict", index)),
  undetermined: (index) => data.undetermined.includes(word("verdict", index)),
};
STATES.expected = STATES.known;  // how links of older reports spell them
STATES.untold = STATES.undetermined;

/** Whether a difference has the sign that a comparison asks for. */
function compares(order, sign) {
  return { "<": order < 0, "<=": order <= 0, ">": order > 0, ">=": order >= 0, "=": order === 0, "==": order === 0, "!=": order !== 0 }[sign];
}

/** The order of two versions; `1.0.dev0` comes before `1.0`. */
function versions(left, right) {
  const parts = (text) => text.split("+")[0].match(/\d+|[a-z]+/gi) ?? [];
  const [a, b] = [parts(left), parts(right)];
  for (let at = 0; at < Math.max(a.length, b.length); at++) {
    const [x, y] = [a[at] ?? "0", b[at] ?? "0"];
    const [nx, ny] = [/^\d/.test(x) ? Number(x) : x === "post" ? 0.5 : -1, /^\d/.test(y) ? Number(y) : y === "post" ? 0.5 : -1];
    if (nx !== ny) return nx - ny;
    if (nx === -1 && x !== y) return x < y ? -1 : 1;
  }
  return 0;
}

/** A word of a query as a function that tests a cell. */
function testOf(token) {
  const bare = (text) => text.replaceAll('"', "").toLowerCase();
  const compared = /^(?:(loader|creator)\.)?([\w-]+)(<=|>=|==|!=|<|>|=)([\w.+]+)$/.exec(token);
  if (compared) {
    const [, side = "creator", name, sign, wanted] = compared;
    if (name === "ratio") return (index) => data.ratio[index] !== null && compares(Number(data.ratio[index]) - Number(wanted), sign);
    const known = data.words[side].map((environment) => data.environments[environment]?.[name]);
    return (index) => {
      const found = known[data.columns[side][index]];
      return found !== undefined && compares(versions(found, wanted), sign);
    };
  }
  const [, key, value] = /^([a-z]+):(.*)$/s.exec(token) ?? [];
  const wanted = bare(value ?? "").split(",").filter(Boolean);
  if (COLUMNS.includes(key)) {
    const exact = data.words[key].some((known) => wanted.includes(known.toLowerCase()));
    const label = (known) => [known, data.labels[known] ?? ""].map((text) => text.toLowerCase());
    const fits = (known) => wanted.some((want) => label(known).some((text) => (exact ? text === want : text.startsWith(want))));
    const good = data.words[key].map((known) => !wanted.length || fits(known));
    return (index) => good[data.columns[key][index]];
  }
  if (key === "is") return (index) => wanted.some((want) => STATES[want]?.(index));
  if (key === "cause") return (index) => wanted.includes(String(data.cause[index]));
  const text = bare(token);
  const titled = data.words.title.map((title) => title.toLowerCase().includes(text));
  const method = data.words.method.map((name) => name.toLowerCase().includes(text));
  return (index) => titled[data.columns.title[index]] || method[data.columns.method[index]] || idOf(index).toLowerCase().includes(text);
}

/** The words of a query; quotation marks hold a word together. */
const tokens = (query) => query.match(/(?:[^\s"]|"[^"]*"?)+/g) ?? [];

/** The cells that a query matches; null for all. */
function select(query) {
  const tests = tokens(query).map((token) => {
    const not = token.length > 1 && token.startsWith("-"), test = testOf(not ? token.slice(1) : token);
    return not ? (index) => !test(index) : test;
  });
  if (!tests.length) return null;
  const chosen = new Uint8Array(total);
  for (let index = 0; index < total; index++) chosen[index] = tests.every((test) => test(index)) ? 1 : 0;
  return chosen;
}

let chosen = null;
const stale = new Set();

/** Apply the query to count, chips and tabs now, and to a panel when it is shown. */
function applyQuery() {
  const query = $("query").value;
  chosen = select(query);
  const count = chosen ? chosen.reduce((sum, each) => sum + each, 0) : total;
  $("count").textContent = chosen ? `${count.toLocaleString("en")} of ${total.toLocaleString("en")} cells` : `${total.toLocaleString("en")} cell${total === 1 ? "" : "s"}`;
  const words = tokens(query);
  for (const chip of document.querySelectorAll(".chip")) chip.setAttribute("aria-pressed", words.includes(chip.dataset.query));
  for (const panel of document.querySelectorAll(".panel")) stale.add(panel);
  refresh();
  for (const row of document.querySelectorAll("#cells tr:has([data-c])")) row.classList.toggle("out", Boolean(chosen) && !chosen[row.querySelector("[data-c]").dataset.c]);
  markTabs();
}

/** Keep the releases in sight under the filters, unless the map is wider than the page. */
function fit() {
  const bar = document.querySelector(".bar"), panel = document.querySelector(".panel.on"), groups = panel?.querySelector(".heads");
  document.documentElement.style.setProperty("--bar", getComputedStyle(bar).position === "sticky" ? `${bar.offsetHeight}px` : "0px");
  panel?.classList.toggle("fits", Boolean(groups) && groups.offsetWidth <= panel.clientWidth);
}

/** Apply the query to the panel that is shown. */
function refresh() {
  const panel = document.querySelector(".panel.on");
  if (!panel || !stale.delete(panel)) return;
  for (const table of panel.querySelectorAll(".heat")) {
    let any = false;
    for (const row of table.tBodies[0].rows) {
      let seen = false;
      for (const square of row.cells) {
        if (square.dataset.c === undefined) continue;
        const hit = !chosen || chosen[square.dataset.c] === 1;
        square.classList.toggle("dim", !hit);
        seen ||= hit;
      }
      row.classList.toggle("out", !seen);
      any ||= seen;
    }
    table.parentElement.classList.toggle("out", !any);
  }
}

function markTabs() {
  const tabs = [...document.querySelectorAll("[role=tab]")];
  if (!tabs.length) return;
  const alive = new Set();
  for (let index = 0; index < total; index++) if (!chosen || chosen[index]) alive.add(`${word("loader", index)}\n${word("device", index)}`);
  for (const tab of tabs) tab.classList.toggle("none", !alive.has(`${tab.dataset.loader}\n${tab.dataset.device}`));
}

/** Add a word to the query, or remove it. */
function toggleWord(wanted) {
  const words = tokens($("query").value), rest = words.filter((each) => each !== wanted);
  $("query").value = (rest.length === words.length ? [...words, wanted] : rest).join(" ");
  applyQuery();
  remember();
}

/** Show one creator under one loader. */
function choosePair(box) {
  const others = tokens($("query").value).filter((each) => !each.startsWith("creator:"));
  $("query").value = [...others, box.dataset.query].join(" ");
  applyQuery();
  remember();
  const tab = [...document.querySelectorAll("[role=tab]")].find((each) => each.dataset.loader === box.dataset.loader);
  if (tab) chooseTab(tab, false);
}

// Tabs ----------------------------------------------------------------------------------------------------------------

function chooseTab(tab, focus = true) {
  for (const other of document.querySelectorAll("[role=tab]")) {
    const on = other === tab;
    other.setAttribute("aria-selected", on);
    other.tabIndex = on ? 0 : -1;
    $(other.getAttribute("aria-controls")).classList.toggle("on", on);
  }
  if (focus) tab.focus();
  refresh();
  fit();
  rove(document.querySelector(".panel.on td[data-c]"));
}

// Walking the map -----------------------------------------------------------------------------------------------------

let current = null;

/** Make one square the one that Tab reaches. */
function rove(square) {
  if (current) current.tabIndex = -1;
  current = square;
  if (square) square.tabIndex = 0;
}

const shown = (row) => row.offsetParent !== null && !row.classList.contains("out");

/** The square that an arrow key leads to; null at the edge. */
function neighbour(square, key) {
  const across = { ArrowLeft: "previousElementSibling", ArrowRight: "nextElementSibling" }[key];
  if (across) {
    let next = square[across];
    while (next && next.dataset.c === undefined) next = next[across];
    return next;
  }
  const rows = [...square.closest(".panel").querySelectorAll("tbody tr")].filter(shown);
  const step = key === "ArrowDown" ? 1 : -1;
  for (let at = rows.indexOf(square.parentElement) + step; rows[at]; at += step) {
    const next = rows[at].cells[square.cellIndex];
    if (next?.dataset.c !== undefined) return next;
  }
  return null;
}

// The address ---------------------------------------------------------------------------------------------------------

const readable = (text) => encodeURIComponent(text).replace(/%(40|3A|5B|5D|2F|2C)/gi, (code) => decodeURIComponent(code));
let opened = null;

/** Write the query and the open cell to the address bar. */
function remember() {
  const query = $("query").value.trim(), parts = [];
  if (query) parts.push(`q=${encodeURIComponent(query)}`);
  if (opened !== null) parts.push(query ? `cell=${readable(idOf(opened))}` : readable(idOf(opened)));
  history.replaceState(null, "", parts.length ? `#${parts.join("&")}` : location.pathname + location.search);
}

function decoded(text) {
  try { return decodeURIComponent(text); } catch { return text; }
}

/** Show what the address bar names. */
function recall() {
  const hash = location.hash.slice(1);
  if ($(hash)?.matches("section, details")) return unfold(hash);
  const parts = Object.fromEntries(hash.split("&").map((part) => /^(q|cell)=(.*)$/s.exec(part)?.slice(1) ?? ["cell", part]));
  const query = decoded(parts.q ?? "");
  if (query !== $("query").value) { $("query").value = query; applyQuery(); }
  const wanted = decoded(parts.cell ?? "");
  if (!wanted) return opened === null ? undefined : closeDrawer();
  for (let index = 0; index < total; index++) if (idOf(index) === wanted) return openCell(index);
  $("said").textContent = `this report has no cell ${wanted}`;
}

function unfold(id) {
  const found = $(id);
  if (found?.tagName === "DETAILS") found.open = true;
  found?.scrollIntoView();
}

/** The square of a cell, its tab chosen. */
function squareOf(index) {
  const square = document.querySelector(`.panel td[data-c="${index}"]`);
  const tab = square && document.querySelector(`[role=tab][aria-controls="${square.closest(".panel").id}"]`);
  if (tab && tab.getAttribute("aria-selected") !== "true") chooseTab(tab, false);
  return square;
}
