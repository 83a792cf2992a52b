// The browser of examples. Texts of data sets and models are set as text, never as HTML.
{
  const PAGE = 10;
  const make = (name, text, attributes = {}) => {
    const element = document.createElement(name);
    if (text !== undefined) element.textContent = text;
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return element;
  };

  // What cannot be seen is shown: NUL and lone halves of surrogate pairs.
  const visible = (text) => String(text).replaceAll("\0", "␀").toWellFormed();

  const browse = (section) => {
    const data = JSON.parse(document.getElementById(section.dataset.source).textContent);
    const find = (name) => section.querySelector(`.${name}`);
    const filters = { language: find("language"), method: find("method"), outcome: find("outcome"), text: find("text") };
    const list = find("examples");
    const where = find("where");
    let page = 0;

    data.languages.forEach((language, place) => filters.language.append(make("option", language.name, { value: place })));
    data.methods.forEach((method, place) => filters.method.append(make("option", method.name, { value: place })));

    // The mean over seeds: right is all of the score, by every seed; wrong is none of it, by any.
    const score = (example, method) => {
      const asked = example.s[method].filter((value) => value !== null);
      return asked.length ? asked.reduce((a, b) => a + b, 0) / asked.length : null;
    };
    const outcome = (example, method) => {
      const value = score(example, method);
      if (value === null) return null;
      return value > 0.999 ? "right" : value > 0 ? "part" : "wrong";
    };
    for (const example of data.examples) {
      example.search = [example.id, ...Object.values(example.fields), ...example.gold, ...example.a.flat()]
        .filter((text) => text !== null).join("\n").toLowerCase().normalize("NFKC");
    }

    const chosen = () => {
      const { language, method, text } = filters;
      const answered = filters.outcome.value;
      const wanted = text.value.trim().toLowerCase().normalize("NFKC");
      return data.examples.filter((example) => {
        if (language.value !== "" && example.l !== Number(language.value)) return false;
        if (wanted && !example.search.includes(wanted)) return false;
        if (!answered) return true;
        const all = data.methods.map((_, place) => outcome(example, place));
        if (answered === "differ") return new Set(all.filter((value) => value !== null)).size > 1;
        const of = method.value === "" ? all.filter((value) => value !== null) : [all[Number(method.value)]];
        return answered === "part" ? of.includes("part") : of.length > 0 && of.every((value) => value === answered);
      });
    };

    // Each answer once, with how many seeds gave it.
    const answerCell = (answers) => {
      const cell = make("td");
      const counts = new Map();
      for (const answer of answers) if (answer !== null) counts.set(answer, (counts.get(answer) || 0) + 1);
      const asked = answers.filter((answer) => answer !== null).length;
      for (const [answer, count] of counts) {
        const line = make("div");
        line.append(make("bdi", visible(answer) || "(nothing)", { dir: "auto" }));
        if (counts.size > 1) line.append(make("small", ` ${count} of ${asked} seeds`));
        cell.append(line);
      }
      if (!asked) cell.textContent = "not asked";
      return cell;
    };

    const outcomeCell = (example, method) => {
      const value = score(example, method);
      if (value === null) return make("td", "");
      const kind = outcome(example, method);
      const cell = make("td", { right: "✓ right", part: "◐ in part", wrong: "✗ wrong" }[kind], { class: kind });
      if (kind === "part") cell.append(make("small", ` (${data.score} ${value.toFixed(2)})`));
      return cell;
    };

    const card = (example) => {
      const item = make("li");
      const language = data.languages[example.l];
      item.append(make("h4", `${language.name}, example ${visible(example.id)}`));
      const fields = make("dl", undefined, { class: "fields" });
      for (const [name, text] of Object.entries(example.fields)) {
        const pair = make("div");
        pair.append(make("dt", name), make("dd", visible(text), { lang: language.tag, dir: language.dir }));
        fields.append(pair);
      }
      const gold = make("div");
      gold.append(make("dt", example.gold.length > 1 ? "right answers" : "right answer"));
      for (const text of example.gold) gold.append(make("dd", visible(text), { dir: "auto", class: "gold" }));
      fields.append(gold);
      item.append(fields);

      const region = make("div", undefined, { class: "scroll", role: "region", tabindex: "0", "aria-label": `Answers to example ${visible(example.id)}, ${language.name}` });
      const table = make("table", undefined, { class: "plain answers" });
      table.append(make("caption", "Answers" + (example.p ? "; percent of each choice among the choices, the mean over seeds" : ""), { class: "hidden" }));
      const head = make("tr");
      for (const name of ["Method", "Outcome", "Answer"]) head.append(make("th", name, { scope: "col" }));
      if (example.p) {
        for (const label of data.labels) {
          const isGold = example.gold.includes(label);
          head.append(make("th", (isGold ? "✓ " : "") + visible(label), { scope: "col", class: isGold ? "gold" : "" }));
        }
      }
      table.append(make("thead"));
      table.tHead.append(head);
      const body = make("tbody");
      data.methods.forEach((method, place) => {
        const row = make("tr");
        row.append(make("th", method.name, { scope: "row" }), outcomeCell(example, place), answerCell(example.a[place]));
        for (const percent of example.p ? example.p[place] || data.labels.map(() => "") : []) {
          const cell = make("td", percent === "" ? "" : `${percent}%`, { class: "percent" });
          cell.style.setProperty("--share", `${percent || 0}%`);
          row.append(cell);
        }
        body.append(row);
      });
      table.append(body);
      region.append(table);
      item.append(region);
      return item;
    };

    const show = () => {
      const some = chosen();
      const pages = Math.max(1, Math.ceil(some.length / PAGE));
      page = Math.min(page, pages - 1);
      const first = page * PAGE;
      const shown = some.slice(first, first + PAGE);
      list.replaceChildren(...shown.map(card));
      list.start = first + 1;
      where.textContent = some.length ? `${first + 1} to ${first + shown.length} of ${some.length}` : "No example is like that";
      // Buttons keep the focus at the ends, so they are marked, not disabled.
      find("previous").setAttribute("aria-disabled", String(page === 0));
      find("next").setAttribute("aria-disabled", String(page === pages - 1));
      return pages;
    };

    const turn = (by) => {
      const pages = Math.max(1, Math.ceil(chosen().length / PAGE));
      const next = Math.min(pages - 1, Math.max(0, page + by));
      if (next !== page) { page = next; show(); }
    };
    find("previous").addEventListener("click", () => turn(-1));
    find("next").addEventListener("click", () => turn(1));
    for (const filter of Object.values(filters)) {
      filter.addEventListener("input", () => { page = 0; show(); });
    }
    show();
  };
  for (const section of document.querySelectorAll("section.browser")) browse(section);
}
