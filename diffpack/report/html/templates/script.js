(function () {
  "use strict";
  const order = new Intl.Collator("en", { numeric: true });

  function value(row, column) {
    const cell = row.cells[column];
    return cell.dataset.v === undefined ? cell.textContent.trim() : Number(cell.dataset.v);
  }

  // A table's bodies are models: a chain stays together, and goes where its latest version belongs.
  function key(body, column) {
    const rows = body.rows;
    return value(rows[rows.length - 1], column);
  }

  function compare(a, b) {
    return typeof a === "number" && typeof b === "number" ? a - b : order.compare(a, b);
  }

  function sortable(table) {
    const heads = Array.from(table.tHead.rows[0].cells);
    const bodies = Array.from(table.tBodies);
    const section = table.closest(".base");
    const status = section.querySelector("[data-sorted]");
    heads.forEach(function (head, column) {
      if (head.hasAttribute("data-unsorted")) return;
      const button = document.createElement("button");
      const words = head.textContent;
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      head.setAttribute("aria-sort", "none");
      const text = bodies.length > 0 && typeof key(bodies[0], column) === "string";
      const first = text || head.dataset.first === "up" ? "ascending" : "descending";
      const second = first === "ascending" ? "descending" : "ascending";
      button.addEventListener("click", function () {
        const before = head.getAttribute("aria-sort");
        const now = before === "none" ? first : before === first ? second : "none";
        heads.forEach(function (other) {
          if (other.hasAttribute("aria-sort")) other.setAttribute("aria-sort", "none");
        });
        head.setAttribute("aria-sort", now);
        const keyed = bodies.map(function (body, at) {
          return [key(body, column), at, body];
        });
        if (now !== "none") {
          const sign = now === "ascending" ? 1 : -1;
          keyed.sort(function (a, b) {
            return sign * compare(a[0], b[0]) || a[1] - b[1];
          });
        }
        table.append(...keyed.map(function (item) {
          return item[2];
        }));
        if (status) status.textContent = now === "none" ? "In their own order" : "Sorted by " + words + ", " + now;
      });
    });
  }

  function filter(input) {
    const section = document.getElementById(input.dataset.filter);
    const count = document.getElementById(input.dataset.filter + "-count");
    const rows = Array.from(section.querySelectorAll("tr[data-t]"));
    const texts = new Map();
    rows.forEach(function (row) {
      texts.set(row.dataset.t, (texts.get(row.dataset.t) || "") + " " + row.textContent.toLowerCase());
    });
    function show() {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      const found = new Set();
      texts.forEach(function (text, task) {
        if (words.every(function (word) { return text.includes(word); })) found.add(task);
      });
      const bodies = new Set();
      rows.forEach(function (row) {
        row.hidden = !found.has(row.dataset.t);
        bodies.add(row.parentNode);
      });
      bodies.forEach(function (body) {
        body.hidden = !Array.from(body.rows).some(function (row) { return row.dataset.t !== undefined && !row.hidden; });
      });
      count.textContent = found.size.toLocaleString("en") + " of " + texts.size.toLocaleString("en");
    }
    input.addEventListener("input", show);
    input.addEventListener("keydown", function (event) {
      if (event.key === "Escape" && input.value) {
        input.value = "";
        event.preventDefault();
        show();
      }
    });
    if (input.value) show();
  }

  // As the rest of the page writes shares: three digits; what is not nothing, or not all, never looks so.
  function share(fraction) {
    const number = 100 * fraction;
    if (number === 0) return "0";
    if (number < 0.001) return "<0.001";
    if (number >= 99.95 && number < 100) return ">99.9";
    return number.toFixed(number < 0.0995 ? 3 : number < 9.995 ? 2 : number < 100 ? 1 : 0);
  }

  function heat(select) {
    const id = select.dataset.heat;
    const table = document.getElementById(id + "-heat");
    const shown = table.querySelector("[data-shown]");
    const each = JSON.parse(document.getElementById(id + "-each").textContent);
    const cells = Array.from(table.querySelectorAll("td[data-c]"));
    const all = cells.map(function (cell) {
      return [cell.className, cell.title, cell.textContent];
    });
    const together = shown.textContent;
    const levels = 10;
    function level(density) {
      const along = Math.log(density / each.low) / Math.log(each.high / each.low);
      return "h" + Math.max(0, Math.min(levels - 1, Math.floor(along * (levels - 1) + 0.5)));
    }
    function show() {
      const one = select.value === "" ? null : each.tasks[Number(select.value)];
      shown.textContent = one === null ? together : select.selectedOptions[0].textContent;
      cells.forEach(function (cell, at) {
        if (one === null) {
          [cell.className, cell.title, cell.textContent] = all[at];
          return;
        }
        const place = Number(cell.dataset.c);
        const entries = each.entries[one[0]][place];
        const changed = one[1][place];
        const density = entries ? changed / entries : 0;
        cell.className = density ? level(density) : "";
        cell.title = changed.toLocaleString("en") + " of " + entries.toLocaleString("en") + " entries";
        cell.textContent = entries ? share(density) : "";
      });
    }
    select.addEventListener("change", show);
    if (select.value !== "") show();
  }

  document.documentElement.classList.add("js");
  document.querySelectorAll("table[data-sortable]").forEach(sortable);
  document.querySelectorAll("input[data-filter]").forEach(filter);
  document.querySelectorAll("select[data-heat]").forEach(heat);

  let opened = [];
  window.addEventListener("beforeprint", function () {
    opened = Array.from(document.querySelectorAll("details:not([open])"));
    opened.forEach(function (item) { item.open = true; });
  });
  window.addEventListener("afterprint", function () {
    opened.forEach(function (item) { item.open = false; });
  });
})();
