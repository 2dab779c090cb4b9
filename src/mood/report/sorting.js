// A click on a heading sorts its table by that column, the best first; another click turns the order round.
for (const table of document.querySelectorAll("table.sortable")) {
  table.tHead.addEventListener("click", (event) => {
    const heading = event.target.closest("th");
    if (!heading) return;
    const place = heading.cellIndex;
    const now = heading.getAttribute("aria-sort");
    const down = now ? now === "ascending" : heading.dataset.first !== "ascending";
    const key = (row) => {
      const cell = row.cells[place];
      const text = cell.dataset.value ?? cell.textContent;
      const number = parseFloat(text.replace("+", ""));
      return Number.isNaN(number) ? text : number;
    };
    const order = (one, other) => {
      const [a, b] = [key(one), key(other)];
      if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
      const found = typeof a === "number" ? a - b : a.localeCompare(b);
      return down ? -found : found;
    };
    for (const other of heading.parentNode.cells) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", down ? "descending" : "ascending");
    table.tBodies[0].append(...[...table.tBodies[0].rows].sort(order));
  });
}
