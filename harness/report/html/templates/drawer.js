// The drawer: one cell in full, built when it is opened.

const CANNOT_UNPACK = "This browser cannot unpack the details of a cell: it has no DecompressionStream. "
  + "Chrome 80, Firefox 113, Safari 16.4 and newer have it. The same data is in report.json.";
const chunks = new Map();

/** The details of the cells in a chunk, from gzipped JSON. */
async function unpacked(id) {
  const bytes = Uint8Array.from(atob($(id).textContent), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

/** The details of a cell by field name; a field without content is missing. */
async function detailOf(index) {
  const id = `chunk-${Math.floor(index / data.chunk)}`;
  if (!chunks.has(id)) chunks.set(id, unpacked(id));
  return (await chunks.get(id))[index % data.chunk];
}

const place = (at) => (at?.length ? `[${at.join(", ")}]` : "");
const ratioOf = (error, allowance) => (Number(error) === 0 ? 0 : Number(allowance) > 0 ? Number(error) / Number(allowance) : Infinity);

/** A heading and its content; nothing if there is no content. */
const part = (title, ...children) => (children.flat().filter(Boolean).length ? [el("h3", {}, title), ...children] : []);
const list = (items, name = "") => (items?.length ? el("ul", { class: name }, items.map((item) => el("li", {}, item))) : null);
const codes = (items) => list((items ?? []).map((item) => el("code", {}, item)), "keys");

function table(head, rows, name = null) {
  const numeric = (at) => (head[at].endsWith("#") ? "num" : null);
  return el("table", { class: name },
    el("thead", {}, el("tr", {}, head.map((title, at) => el("th", { class: numeric(at) }, title.replace("#", ""))))),
    el("tbody", {}, rows.map((row) => el("tr", {}, row.map((value, at) => el("td", { class: numeric(at), colspan: at === row.length - 1 && head.length > row.length && head.length - at }, value))))));
}

function copyButton(text, label = "copy") {
  const button = el("button", { type: "button", class: "copy" }, label);
  button.addEventListener("click", async () => {
    let done = true;
    try { await navigator.clipboard.writeText(text()); } catch { done = copyBySelection(text()); }
    button.textContent = done ? "copied" : "select and copy";
    $("said").textContent = done ? "copied" : "copying is not allowed here";
    setTimeout(() => (button.textContent = label), 1500);
  });
  return button;
}

/** Copy in a browser that has no clipboard for local files. */
function copyBySelection(text) {
  const area = el("textarea", { class: "unseen" });
  area.value = text;
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  return done;
}

const copyable = (text) => el("div", { class: "lineup" }, el("pre", {}, text), copyButton(() => text));

// Sketches ------------------------------------------------------------------------------------------------------------

function svg(name, attributes, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/** Elements by decade of their difference; the dashed line is the allowance. */
function histogram(bars, allowance) {
  const most = Math.max(...bars), step = 24, height = 62, base = 92;
  const drawn = svg("svg", { viewBox: `0 0 ${bars.length * step} 110`, role: "img", "aria-label": "elements by size of their difference" });
  const limit = Number(allowance) > 0 ? Math.log10(Number(allowance)) : null;
  bars.forEach((count, at) => {
    const low = at - 20, tall = count ? Math.max(2, (Math.log10(1 + count) / Math.log10(1 + most)) * height) : 0;
    const kind = at === 0 ? "same" : limit !== null && low <= Math.floor(limit) ? "bar" : "over";
    const bar = svg("rect", { x: at * step + 2, y: base - tall, width: step - 4, height: tall, class: kind, rx: 1.5 }, svg("title", {}, `${count.toLocaleString("en")} elements ${at === 0 ? "equal" : at === 1 ? "below 1e-18" : `from 1e${low}`}`));
    drawn.append(bar);
    if (count) drawn.append(svg("text", { x: at * step + step / 2, y: base - tall - 3, "text-anchor": "middle" }, count >= 1e4 ? `${Math.round(count / 1000)}k` : String(count)));
    if (at === 0 || (at > 3 && at % 3 === 2)) drawn.append(svg("text", { x: at * step + (at ? 2 : step / 2), y: base + 12, "text-anchor": "middle" }, at === 0 ? "equal" : `1e${low}`));
  });
  drawn.append(svg("line", { x1: 0, x2: bars.length * step, y1: base + .5, y2: base + .5, class: "axis" }));
  if (limit !== null) {
    const x = Math.max(1, Math.min(bars.length, limit + 20)) * step;
    drawn.append(svg("line", { x1: x, x2: x, y1: 2, y2: base, class: "mark" }), svg("text", { x: x + 4, y: 10 }, "allowance"));
  }
  return drawn;
}

/** One row per layer in execution order. The middle of the track is the allowance; a decade is 6 % of its width. */
function layers(detail) {
  if (!detail.layers) return null;
  const ratios = detail.layers.map(([, , error, allowance]) => ratioOf(error, allowance));
  const rows = detail.layers.map(([name, kind, error], at) => {
    const track = el("i", { class: ratios[at] > 1 ? "over" : "" });
    track.style.width = `${ratios[at] === 0 ? 0 : Math.max(1, Math.min(100, 50 + 6 * Math.log10(Math.min(ratios[at], 1e9))))}%`;
    return el("tr", { class: `${kind}${name === detail.first ? " first" : ""}` },
      el("td", { class: "name", title: kind }, name), el("td", { class: "track" }, track), el("td", { class: "num" }, figure(error)), el("td", { class: "num" }, times(ratios[at])));
  });
  return el("table", { class: "layers" }, el("thead", {}, el("tr", {}, el("th", {}, "layer"), el("th", {}, "┆ allowance"), el("th", { class: "num" }, "|Δ|"), el("th", { class: "num" }, "÷"))), el("tbody", {}, rows));
}

// Parts ---------------------------------------------------------------------------------------------------------------

function sizes(detail) {
  if (!detail.size) return [];
  const [greatest, allowance, ratio, golden, now, scale, elements, differing] = detail.size;
  const box = (label, value, name = "") => el("div", {}, el("span", {}, label), el("b", { class: name }, value));
  const beyond = Number(greatest) > Number(allowance) ? "bad" : "";
  const about = `${detail.array.filter(Boolean).join(", ")} ${place(detail.shape)}`;
  const counted = `${differing.toLocaleString("en")} of ${elements.toLocaleString("en")} elements`;
  if (greatest === null) // token ids, which have no size
    return [el("div", { class: "trio" }, box("golden", golden), box("now", now)), el("p", { class: "quiet" }, `${about}, first at ${place(detail.at)}; ${counted} differ`)];
  return [
    el("div", { class: "trio" }, box("golden", golden), box("now", now), box("difference", figure(greatest), beyond), box("÷ allowance", times(ratio), beyond)),
    el("p", { class: "quiet" }, `${about}${detail.at ? `, greatest at ${place(detail.at)}` : ""}; allowance ${figure(allowance)}; ${counted} beyond it; golden's RMS ${figure(scale)}`),
    detail.bars?.length && el("div", {}, histogram(detail.bars, allowance)),
  ].filter(Boolean);
}

function probes(detail) {
  const letters = Object.fromEntries(data.words.verdict.map((verdict, place) => [verdict, data.letters[place]]));
  const rows = (detail.probes ?? []).map(([name, verdict, said, array, error, allowance]) => {
    const mark = verdict === "skipped" ? el("span", { class: "quiet", title: "skipped" }, "–") : el("span", { class: `badge v-${verdict}`, title: verdict }, letters[verdict]);
    if (!array) return [name, mark, verdict === "skipped" ? el("span", { class: "quiet" }, `skipped: ${said}`) : said];
    return [name, mark, array.replace(`${name}/`, "") + (said ? ` (${said})` : ""), figure(error), figure(allowance), times(ratioOf(error, allowance))];
  });
  return rows.length ? table(["probe", "", "greatest in", "|Δ|#", "allowance#", "÷#"], rows, "probes") : null;
}

function keys(found) {
  if (!found) return [];
  const [arrived, lost, undecided, unexpected] = found;
  const named = [["never arrived", lost], ["undecided (fused or recomputed: the output decides)", undecided], ["unexpected", unexpected]];
  return [el("p", { class: lost.length ? "bad" : "" }, arrived), ...named.filter(([, names]) => names.length).flatMap(([label, names]) => [el("p", {}, `${label}: ${names.length}`), codes(names)])];
}

/** Which keys are renamed on loading: by the bare base, the PEFT model, a plain wrapper and PEFT itself, side by side. */
function conversion(views) {
  if (!views) return [];
  const code = (text) => el("code", {}, text);
  const first = (examples, kept) => (examples.length ? el("span", {}, code(examples[0][0]), " → ", code(examples[0][1])) : kept.length ? el("span", {}, code(kept[0]), " stays") : "");
  const sums = views.map(([of, given, changed, all, error, , examples, kept]) => [of, given && code(given), error ? el("span", { class: "bad" }, error) : `${changed} of ${all}`, error ? "" : first(examples, kept)]);
  const models = views.filter(([, , , , error, list]) => !error && list.length);
  const count = Math.max(0, ...models.map(([, , , , , list]) => list.length));
  const scopes = [...Array(count).keys()].map((at) => [code(models.map((view) => view[5][at]?.[0]).find(Boolean) ?? ""), ...models.map((view) => (view[5][at] ? code(view[5][at][1] || "none") : "–"))]);
  return [table(["for", "class", "keys changed", "such as"], sums), scopes.length ? table(["conversion", ...models.map(([of]) => `scope: ${of}`)], scopes) : null].filter(Boolean);
}

/** The packages that differ: [name, version of the creator, version of the loader]. */
function packages(index) {
  const before = data.environments[word("creator", index)] ?? {}, now = data.environments[word("loader", index)] ?? {};
  const rank = (name) => (data.packages.includes(name) ? data.packages.indexOf(name) : data.packages.length);
  const differing = [...new Set([...Object.keys(before), ...Object.keys(now)])].filter((name) => (before[name] || "") !== (now[name] || ""));
  return differing.sort((a, b) => rank(a) - rank(b) || (a < b ? -1 : 1)).map((name) => [name, before[name] || "–", now[name] || "–"]);
}

function expectation(found, recorded) {
  if (!found) return null;
  const more = (recorded ?? []).map(([label, said]) => el("div", {}, label ? el("i", {}, `${label}: `) : "", said));
  const [name, issue, lasts, reason] = found;
  const link = /^https:\/\/[\w.~:/?#@!$&'*+,;=%-]+$/.test(issue) ? el("a", { href: issue, rel: "noopener noreferrer" }, issue) : issue;
  return el("div", { class: "callout" }, el("b", {}, `known break: ${name}`), lasts ? `, ${lasts}` : "", el("br"), reason, issue ? el("br") : "", link, ...more);
}

function sameCause(index) {
  const cause = data.cause[index];
  const count = cause ? data.cause.filter((each) => each === cause).length - 1 : 0;
  if (!count) return null;
  const button = el("button", { type: "button", class: "link" }, `${count.toLocaleString("en")} other cell${count === 1 ? " shares" : "s share"} this cause`);
  button.addEventListener("click", () => toggleWord(`cause:${cause}`));
  return el("p", {}, button);
}

/** A code block that its content cannot end. */
function fenced(text) {
  const longest = Math.max(2, ...(text.match(/`+/g) ?? []).map((run) => run.length));
  const fence = "`".repeat(longest + 1);
  return `${fence}text\n${text}\n${fence}`;
}

/** The cell as text for an issue tracker. All text from outside is in code blocks. */
function issueText(index, detail) {
  const found = (detail.found ?? []).map(([where, said]) => `${where}: ${said}`);
  const size = detail.size ? [`${detail.array[0]}: golden ${detail.size[3]}, now ${detail.size[4]}${detail.at ? ` at ${place(detail.at)}` : ""}`] : [];
  if (detail.size && detail.size[0] !== null) size.push(`|Δ| ${figure(detail.size[0])}, allowance ${figure(detail.size[1])} (measured), so ${times(detail.size[2])}`);
  const facts = [`${word("verdict", index)}: ${idOf(index)}`, `method: ${word("method", index)} (${word("family", index)})`, ...found, ...size,
    detail.first ? `first layer that differs: ${detail.first}` : "", ...(detail.keys?.[1] ?? []).map((key) => `never arrived: ${key}`), detail.reason ?? ""];
  const trace = detail.error ? ["Traceback (its end):", "", fenced(detail.error[3] || `${detail.error[1]}: ${detail.error[2]}`), ""] : [];
  return [`An adapter saved with PEFT ${data.environments[word("creator", index)]?.peft ?? word("creator", index)} does not behave the same under PEFT ${data.environments[word("loader", index)]?.peft ?? word("loader", index)}.`.replace(/[^\w .-]/g, ""), "",
    fenced(facts.filter(Boolean).join("\n")), "", ...trace,
    "Packages that differ (saved with, loaded with):", "", fenced(packages(index).map(([name, a, b]) => `${name.padEnd(18)} ${a.padEnd(14)} ${b}`).join("\n")), "",
    "To reproduce, with peft-regress:", "", fenced(detail.reproduce ?? ""), ""].join("\n");
}

// The whole -----------------------------------------------------------------------------------------------------------

function heading(index, detail) {
  const close = el("button", { type: "button", id: "close", "aria-label": "Close" }, "✕ esc");
  close.addEventListener("click", closeDrawer);
  const about = [`saved by ${release(word("creator", index))}`, `loaded by ${release(word("loader", index))}`, word("device", index), word("family", index), detail.took ? `${detail.took[0]} s` : ""];
  return el("header", {},
    el("h2", { id: "drawer-title", tabindex: "-1" }, badge(index), word("scenario", index)),
    el("div", { class: "tools" }, copyButton(() => location.href, "link"), close),
    el("p", { class: "quiet" }, el("b", { class: STATES.bad(index) ? "bad" : "" }, word("verdict", index)), ` · ${about.filter(Boolean).join(" · ")}`));
}

/** The findings, without the lost keys: those are listed under the checkpoint. */
function findings(detail) {
  const named = new Set(detail.keys?.[1] ?? []);
  return (detail.found ?? []).map(([where, said, details, letter, verdict], at) =>
    el("div", {}, el("p", { class: at ? "finding" : "finding lead" }, el("span", { class: `badge v-${verdict}`, title: verdict }, letter), el("span", {}, `${where}: ${said}`)), codes(details.filter((each) => !named.has(each)))));
}

function warned(found) {
  return list((found ?? []).map(([text, where]) => [where && el("span", { class: "quiet" }, `${where}: `), text].filter(Boolean)));
}

function whole(index, detail) {
  const error = detail.error, apart = packages(index);
  const moved = detail.moved ? el("p", { class: "quiet" }, `moved by: ${detail.moved}`) : null;
  const issue = el("details", {}, el("summary", {}, "text for an issue "), copyable(issueText(index, detail)));
  return [
    heading(index, detail),
    detail.reason ? el("p", { class: "lead lines" }, detail.reason) : null,
    expectation(detail.expectation, detail.recorded),
    ...findings(detail),
    sameCause(index),
    ...part("Error", error && el("p", { class: "bad" }, `${error[0]}: ${error[1]}: ${error[2]}`), error?.[3] && el("pre", {}, error[3])),
    ...part("Golden, now, difference", ...sizes(detail)),
    moved,
    ...part("Layer by layer, in execution order", layers(detail)),
    ...part("Probes", probes(detail)),
    ...part("Checkpoint", ...keys(detail.keys)),
    ...part("Conversion of names", ...conversion(detail.conversion)),
    ...part("Config", codes(detail.config)),
    ...part("New warnings", warned(detail.warnings)),
    ...part("Log", detail.log && el("pre", {}, detail.log)),
    ...part("The creator's own reload", detail.creator ? [el("p", {}, detail.creator)] : []),
    ...part("Fixed (the creator's own library gets it wrong)", list(detail.fixed)),
    ...part("Standing defects (the creator's own library has them too)", list(detail.standing)),
    ...part("Notes", list(detail.notes)),
    ...part(`Packages that differ (${apart.length})`, apart.length && table(["package", word("creator", index), word("loader", index)], apart)),
    ...part("Fixture", detail.fixture && el("p", {}, el("code", {}, detail.fixture), detail.origin ? ` (${detail.origin})` : "")),
    ...part("Reproduce", detail.reproduce && copyable(detail.reproduce)),
    ...part("Upstream", issue),
  ].filter(Boolean);
}

/** Open the drawer with a cell; resolves when its details are shown. */
async function openCell(index, focus = true) {
  const square = squareOf(index), drawer = $("drawer");
  opened = index;
  document.querySelector("td.at")?.classList.remove("at");
  square?.classList.add("at");
  if (square) rove(square);
  $("tip").hidden = true;
  remember();
  const shown = "DecompressionStream" in window ? whole(index, await detailOf(index)) : [heading(index, {}), el("p", { class: "bad" }, CANNOT_UNPACK)];
  if (opened !== index) return;
  drawer.replaceChildren(...shown);
  drawer.hidden = false;
  drawer.scrollTop = 0;
  document.body.classList.add("open");
  if (square && focus) square.scrollIntoView({ block: "nearest", inline: "nearest" });  // the open drawer moves it
  if (focus) $("drawer-title").focus({ preventScroll: true });
}

function closeDrawer() {
  if (opened === null) return;
  const square = squareOf(opened);
  opened = null;
  $("drawer").hidden = true;
  $("drawer").replaceChildren();
  document.body.classList.remove("open");
  square?.classList.remove("at");
  square?.focus({ preventScroll: true });
  $("tip").hidden = true;
  remember();
}

// Events --------------------------------------------------------------------------------------------------------------

document.addEventListener("click", (event) => {
  const cell = event.target.closest("td[data-c], a[data-c]"), filter = event.target.closest("[data-query]"), tab = event.target.closest("[role=tab]");
  const anchor = event.target.closest('a[href^="#"]:not([data-c])');
  if (cell) { event.preventDefault(); openCell(Number(cell.dataset.c)); }
  else if (anchor) { event.preventDefault(); unfold(anchor.getAttribute("href").slice(1)); }
  else if (filter?.dataset.loader) choosePair(filter);
  else if (filter) { toggleWord(filter.dataset.query); if (filter.classList.contains("link")) $("map").scrollIntoView(); }
  else if (tab) chooseTab(tab);
  else if (!event.target.closest(".help")) document.querySelector(".help").open = false;
});
document.addEventListener("pointerover", (event) => {
  const square = event.target.closest?.(".heat td[data-c]");
  if (square) showTip(square); else $("tip").hidden = true;
});
document.addEventListener("focusin", (event) => {
  const square = event.target.closest(".heat td[data-c]");
  if (!square) return;
  square.setAttribute("aria-label", lines(Number(square.dataset.c)).join("; "));
  showTip(square);
});
document.addEventListener("focusout", () => ($("tip").hidden = true));
document.addEventListener("scroll", () => ($("tip").hidden = true), { passive: true });
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") return void (opened !== null && closeDrawer());
  if (event.key === "/" && !event.target.closest("input, textarea")) { event.preventDefault(); return $("query").focus(); }
  const square = event.target.closest("td[data-c]"), tab = event.target.closest("[role=tab]"), sideways = ["ArrowLeft", "ArrowRight"].includes(event.key);
  if (square && (event.key === "Enter" || event.key === " ")) { event.preventDefault(); openCell(Number(square.dataset.c)); }
  else if (square && event.key.startsWith("Arrow")) {
    const next = neighbour(square, event.key);
    event.preventDefault();
    if (next) { rove(next); next.focus(); if (opened !== null) openCell(Number(next.dataset.c), false); }
  } else if (tab && sideways) {
    const next = event.key === "ArrowLeft" ? tab.previousElementSibling : tab.nextElementSibling;
    if (next) chooseTab(next);
  }
});
let waiting = 0;
$("query").addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(() => { applyQuery(); remember(); }, 120); });
addEventListener("hashchange", recall);
rove(document.querySelector(".panel.on td[data-c]"));
recall();
new ResizeObserver(fit).observe(document.querySelector("main"));
