// Keeps the page as it is now: asks for its words every two seconds and puts
// them where they have changed. Everything is set as text, never as markup.
"use strict";
(() => {
  const period = 2000; // ms, and more where the answers take long
  const byID = (id) => document.getElementById(id);
  let view = null;
  let sort = null; // {column, down}; null: as the server has them, trouble first
  const shownTables = {}; // by ID: what render has put there

  const element = (tag, attributes, ...children) => {
    const e = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value !== "" && value !== undefined) e.setAttribute(name, value);
    }
    e.append(...children);
    return e;
  };
  const setText = (e, text) => { if (e.textContent !== text) e.textContent = text; };
  // once calls make for a part of the page when its words are others than before.
  const before = {};
  const once = (name, words, make) => {
    const now = JSON.stringify(words);
    if (before[name] !== now) { before[name] = now; make(words); }
  };
  const link = (address) => element("a", {class: "l", href: address, rel: "noreferrer"}, "Troubleshooting");

  const fillCell = (e, cell) => {
    e.replaceChildren(element("span", {class: "t"}, cell.t));
    if (cell.n) e.append(element("small", {class: "n"}, cell.n));
    if (cell.l) e.append(link(cell.l));
  };
  const cellClass = (column, cell) => [column.number ? "num" : "", cell.o || ""].filter(Boolean).join(" ");

  // render brings a table to the rows wanted, in their order. A row that was there
  // keeps its elements, so that what is selected in it stays selected.
  const render = (table, rows) => {
    const body = byID("t-" + table.id).tBodies[0];
    let shown = shownTables[table.id];
    if (!shown) { // the server's rows
      body.replaceChildren();
      shown = shownTables[table.id] = new Map();
    }
    const wanted = new Set(rows.map((r) => r.id));
    for (const [id, s] of shown) {
      if (!wanted.has(id)) { s.tr.remove(); shown.delete(id); }
    }
    let next = body.firstElementChild;
    for (const row of rows) {
      let s = shown.get(row.id);
      if (!s) {
        s = {tr: element("tr", {role: "row"}), cells: []};
        table.columns.forEach((column, i) => s.tr.append(i === 0
          ? element("th", {scope: "row", role: "rowheader"})
          : element("td", {role: "cell", "data-label": column.name})));
        shown.set(row.id, s);
      }
      if (s.tr.className !== (row.tone || "")) s.tr.className = row.tone || "";
      row.c.forEach((cell, i) => {
        const words = JSON.stringify(cell);
        if (s.cells[i] === words) return;
        s.cells[i] = words;
        const e = s.tr.children[i];
        if (i > 0) e.className = cellClass(table.columns[i], cell);
        fillCell(e, cell);
      });
      if (next === s.tr) next = next.nextElementSibling;
      else body.insertBefore(s.tr, next);
    }
    byID("t-" + table.id).hidden = rows.length === 0;
    const empty = byID("e-" + table.id);
    empty.hidden = rows.length !== 0;
    setText(empty, table.rows.length ? "None is as the filter wants it." : table.empty);
  };

  const collator = new Intl.Collator("en", {numeric: true});
  const byName = (a, b) => collator.compare(a.c[0].t, b.c[0].t) || (a.id < b.id ? -1 : 1);

  const containers = () => {
    const table = view.tables.find((t) => t.id === "containers");
    const words = byID("filter").value.trim().toLowerCase();
    const route = byID("route").value;
    const trouble = byID("trouble").checked;
    const rows = table.rows.filter((r) =>
      (!route || r.m === route) && (!trouble || r.tone) &&
      (!words || [r.c[0], r.c[1], r.c[7]].some((c) => (c.t + "\n" + (c.n || "")).toLowerCase().includes(words)) || r.id.startsWith(words)));
    if (sort) rows.sort((a, b) => {
      const [x, y] = [a.c[sort.column], b.c[sort.column]];
      const by = table.columns[sort.column].number ? (x.k || 0) - (y.k || 0) : collator.compare(x.t, y.t);
      return (sort.down ? -by : by) || byName(a, b);
    });
    render(table, rows);
    setText(byID("shown"), rows.length === table.rows.length ? "" : rows.length + " of " + table.rows.length + " shown");
  };

  const sortBy = (column) => {
    const number = view.tables[0].columns[column].number;
    if (sort && sort.column === column) sort = sort.down === !!number ? {column, down: !number} : null;
    else sort = {column, down: !!number};
    showSort();
    containers();
  };
  const showSort = () => {
    [...byID("t-containers").tHead.rows[0].cells].forEach((th, i) => {
      th.setAttribute("aria-sort", !sort || sort.column !== i ? "none" : sort.down ? "descending" : "ascending");
    });
    byID("sort").value = sort ? String(sort.column) : "";
  };
  const tools = () => {
    view.tables[0].columns.forEach((column, i) => {
      const button = element("button", {type: "button"}, column.name);
      button.addEventListener("click", () => sortBy(i));
      byID("t-containers").tHead.rows[0].cells[i].replaceChildren(button);
      byID("sort").append(new Option(column.name.toLowerCase(), String(i)));
    });
    byID("sort").prepend(new Option("trouble first", ""));
    byID("sort").addEventListener("change", (event) => {
      const i = event.target.value;
      sort = i === "" ? null : {column: Number(i), down: !!view.tables[0].columns[i].number};
      showSort();
      containers();
    });
    for (const id of ["filter", "route", "trouble"]) byID(id).addEventListener("input", containers);
    showSort();
    byID("tools").hidden = false;
  };

  const show = (next) => {
    if (next.assets !== document.documentElement.dataset.assets) { // another version of the agent
      location.reload();
      return;
    }
    const first = view === null;
    view = next;
    if (first) tools();
    setText(byID("verdict"), view.verdict);
    setText(byID("figures"), view.figures);
    setText(byID("time"), view.time);
    byID("headline").className = view.tone;
    if (document.title !== view.verdict + " - log_capturer") document.title = view.verdict + " - log_capturer";
    once("problems", view.problems, (problems) => {
      byID("problems").replaceChildren(...problems.map((p) => element("li", {},
        element("p", {class: "what"}, p.what), element("p", {class: "remedy"}, p.remedy), link(p.see))));
      byID("problems").hidden = problems.length === 0;
    });
    once("tiles", view.tiles, (tiles) => byID("tiles").replaceChildren(...tiles.map((t) => {
      const li = element("li", {class: t.tone}, element("span", {class: "label"}, t.label), element("strong", {}, t.value), element("small", {}, t.note));
      if (t.full !== undefined) {
        li.append(element("meter", {min: "0", max: "100", low: "50", high: "80", optimum: "0", value: String(t.full), "aria-label": "how full it is"}, t.full + " %"));
      }
      return li;
    })));
    once("facts", view.facts, (lists) => byID("facts").replaceChildren(...lists.map((list) =>
      element("section", {class: "facts"}, element("h3", {}, list.title), element("dl", {}, ...list.facts.map((f) =>
        element("div", {class: f.tone}, element("dt", {}, f.label), element("dd", {}, f.value))))))));
    containers();
    for (const table of view.tables.slice(1)) render(table, table.rows);
  };

  const live = (on, text) => {
    byID("live").className = on ? "on" : "off";
    setText(byID("live"), text);
  };
  let timer = 0;
  let asking = false;
  const ask = async () => {
    clearTimeout(timer);
    if (asking || document.hidden) return;
    asking = true;
    const began = performance.now();
    try {
      const answer = await fetch("/ui/page.json", {cache: "no-store", signal: AbortSignal.timeout(10000)});
      if (!answer.ok) throw new Error("status " + answer.status);
      show(await answer.json());
      live(true, "live,");
    } catch (error) {
      live(false, "no answer from the agent; as of");
    }
    asking = false;
    // A page must not cost the agent more than a small part of its time.
    timer = setTimeout(ask, Math.max(period, 10 * (performance.now() - began)));
  };
  document.addEventListener("visibilitychange", ask);
  ask();
})();
