// Tables that are sorted by their columns; the heat map's groups and its two views.
{
  const names = new Intl.Collator("en", { numeric: true });

  // What is seen of a cell; its number, if it is one.
  const value = (row, column, view) => {
    const cell = row.cells[column];
    const shown = cell.querySelector(`.in-${view}`) || cell;
    const text = shown.textContent.replace("★", "").replaceAll(",", "").trim();
    const first = cell.tagName === "TH" ? cell.firstChild.textContent.trim() : text;
    const number = Number.parseFloat(text);
    return cell.tagName !== "TH" && !Number.isNaN(number) ? number : first;
  };
  const empty = (v) => v === "" || v === "–";
  const compare = (a, b) =>
    typeof a === "number" && typeof b === "number" ? a - b : names.compare(String(a), String(b));

  for (const table of document.querySelectorAll("table:has(button.sort)")) {
    const body = table.querySelector("tbody.rows");
    const rows = [...body.rows];
    const heads = [...table.tHead.rows[0].cells];
    const state = { column: null, descending: false, by: "", view: table.classList.contains("gaps") ? "gaps" : "scores" };

    const sorted = (some) => {
      if (state.column === null) return some;
      const key = (row) => value(row, state.column, state.view);
      return [...some].sort((a, b) => {
        const [x, y] = [key(a), key(b)];
        if (empty(x) || empty(y)) return empty(x) - empty(y); // what is not known comes last
        return state.descending ? compare(y, x) : compare(x, y);
      });
    };

    const mean = (some, column, view) => {
      const numbers = some.map((row) => value(row, column, view)).filter((v) => typeof v === "number");
      return numbers.length ? numbers.reduce((a, b) => a + b, 0) / numbers.length : null;
    };

    const headOf = (name, some) => {
      const row = document.createElement("tr");
      const head = document.createElement("th");
      head.scope = "rowgroup";
      head.textContent = name;
      const count = document.createElement("small");
      count.textContent = some.length === 1 ? "1 language" : `mean of ${some.length} languages`;
      head.append(count);
      row.append(head);
      heads.slice(1).forEach((cellHead, place) => {
        const cell = row.insertCell();
        if (cellHead.classList.contains("meta")) { cell.className = "meta"; return; }
        for (const view of ["scores", "gaps"]) {
          const shown = document.createElement("b");
          shown.className = `in-${view}`;
          const number = mean(some, place + 1, view);
          const sign = view === "gaps" && number !== null && number >= -0.0005 ? "+" : "";
          shown.textContent = number === null ? "–" : sign + (number + 0).toFixed(3).replace(/^-0\.000$/, "0.000");
          cell.append(shown);
        }
      });
      return row;
    };

    const show = () => {
      for (const old of table.querySelectorAll("tbody.grouped")) old.remove();
      body.hidden = state.by !== "";
      if (!state.by) { body.append(...sorted(rows)); return; }
      const groups = new Map();
      for (const row of rows) {
        const name = state.by === "level" ? `Resources ${row.dataset.level}` : row.dataset[state.by];
        groups.set(name, [...(groups.get(name) || []), row]);
      }
      const parts = [...groups].map(([name, some]) => ({ head: headOf(name, some), some, name }));
      parts.sort((a, b) => names.compare(a.name, b.name));
      for (const { head, some } of state.column === null ? parts : bySum(parts)) {
        const part = document.createElement("tbody");
        part.className = "grouped";
        part.append(head, ...sorted(some));
        table.append(part);
      }
    };

    // Groups go by the mean of the column that the languages go by.
    const bySum = (parts) => {
      if (!heads[state.column].classList.contains("number")) return parts;
      const key = ({ some }) => mean(some, state.column, state.view) ?? Number.NEGATIVE_INFINITY;
      return [...parts].sort((a, b) => (state.descending ? key(b) - key(a) : key(a) - key(b)));
    };

    heads.forEach((head, column) => {
      head.querySelector("button").addEventListener("click", () => {
        const again = state.column === column;
        // Numbers begin with the largest.
        state.descending = again ? !state.descending : head.classList.contains("number");
        state.column = column;
        for (const other of heads) other.setAttribute("aria-sort", "none");
        head.setAttribute("aria-sort", state.descending ? "descending" : "ascending");
        show();
      });
    });
    document.querySelector(`select[data-group="${table.id}"]`)?.addEventListener("change", (event) => {
      state.by = event.target.value;
      show();
    });
    for (const radio of document.querySelectorAll(`input[data-table="${table.id}"]`)) {
      const turn = () => {
        if (!radio.checked) return;
        state.view = radio.value;
        const around = table.closest("section");
        for (const view of ["scores", "gaps"]) {
          table.classList.toggle(view, view === state.view);
          around.classList.toggle(`view-${view}`, view === state.view);
        }
        show();
      };
      radio.addEventListener("change", turn);
      turn(); // a browser may remember what was chosen before
    }
  }
}
