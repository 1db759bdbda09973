"use strict";
// Every picture is drawn already. This adds what a pointer or a key asks for: the numbers of a mark, and one series alone.
(() => {
  const tip = document.getElementById("tip");

  // A CSV as rows of fields; fields may be quoted and hold commas, quotes and line ends.
  const parse = (text) => {
    const rows = [[]];
    const fields = /("(?:[^"]|"")*"|[^",\n]*)(,|\n|$)/g;
    for (let match = fields.exec(text); match && match.index < text.length; match = fields.exec(text)) {
      const field = match[1];
      rows[rows.length - 1].push(field.startsWith('"') ? field.slice(1, -1).replaceAll('""', '"') : field);
      if (match[2] === "\n") rows.push([]);
    }
    return rows.filter((row) => row.length > 1 || row[0]);
  };

  const rowsOf = (figure) => {
    if (!figure.rows) {
      const link = document.getElementById(figure.dataset.csv);
      const bytes = Uint8Array.from(atob(link.href.slice(link.href.indexOf(",") + 1)), (each) => each.charCodeAt(0));
      figure.rows = parse(new TextDecoder().decode(bytes));
    }
    return figure.rows;
  };

  // The marks of a panel: where each is, in the panel's own units, and which row it stands for.
  const marksOf = (panel) => {
    if (panel.marks) return panel.marks;
    const marks = [];
    for (const element of panel.querySelectorAll("[data-row]")) {
      const row = Number(element.dataset.row);
      const number = (name) => Number(element.getAttribute(name));
      const series = element.closest(".series")?.dataset.series ?? "";
      if (element.tagName === "polyline") {
        element.getAttribute("points").split(" ").forEach((point, place) => {
          const [x, y] = point.split(",").map(Number);
          marks.push({ x, y, row: row + place, series });
        });
      } else if (element.tagName === "rect") {
        const bar = element.classList.contains("bar");
        marks.push({ x: number("x") + number("width") / (bar ? 1 : 2), y: number("y") + number("height") / 2, row, series });
      } else {
        marks.push({ x: number("x"), y: number("y"), row, series });
      }
    }
    panel.marks = marks;
    return marks;
  };

  const hide = () => {
    tip.hidden = true;
    document.querySelectorAll(".hot").forEach((each) => each.remove());
  };

  const show = (panel, mark) => {
    hide();
    const [headings, ...rows] = rowsOf(panel.closest("figure"));
    const values = rows[mark.row];
    if (!values) return;
    tip.replaceChildren(...headings.flatMap((heading, place) => {
      if (values[place] === "" || values[place] === undefined) return [];
      const line = document.createElement("div");
      const name = document.createElement("span");
      const value = document.createElement("span");
      name.textContent = heading.replaceAll("_", " ");
      value.textContent = values[place];
      line.append(name, " ", value);
      return [line];
    }));
    const ring = document.createElementNS("http://www.w3.org/2000/svg", "circle");
    for (const [name, value] of Object.entries({ cx: mark.x, cy: mark.y, r: 7, class: "hot" })) ring.setAttribute(name, value);
    panel.append(ring);
    tip.hidden = false;
    const place = new DOMPoint(mark.x, mark.y).matrixTransform(panel.getScreenCTM());
    const left = Math.min(Math.max(8, place.x + 14), innerWidth - tip.offsetWidth - 8);
    const below = place.y + 14 + tip.offsetHeight < innerHeight;
    tip.style.left = `${left}px`;
    tip.style.top = `${below ? place.y + 14 : Math.max(8, place.y - tip.offsetHeight - 14)}px`;
  };

  const shown = (panel) => {
    const chosen = panel.closest("figure").chosen;
    return chosen?.size ? marksOf(panel).filter((mark) => chosen.has(mark.series)) : marksOf(panel);
  };

  for (const panel of document.querySelectorAll("svg.panel")) {
    panel.addEventListener("pointermove", (event) => {
      const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(panel.getScreenCTM().inverse());
      let nearest = null;
      let least = 26 ** 2;
      for (const mark of shown(panel)) {
        const distance = (mark.x - at.x) ** 2 + (mark.y - at.y) ** 2;
        if (distance < least) [nearest, least] = [mark, distance];
      }
      if (nearest) show(panel, nearest); else hide();
    });
    panel.addEventListener("pointerleave", hide);
    panel.addEventListener("blur", hide);
    panel.addEventListener("keydown", (event) => {
      const marks = shown(panel);
      const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 1, ArrowUp: -1, Home: -Infinity, End: Infinity };
      if (event.key === "Escape") return hide();
      if (!(event.key in steps) || !marks.length) return undefined;
      event.preventDefault();
      let place = panel.place ?? (steps[event.key] > 0 ? -1 : marks.length);
      const series = marks[Math.min(Math.max(place, 0), marks.length - 1)].series;
      if (/Up|Down/.test(event.key)) {
        // to the first mark of the next series, or of the one before
        do place += steps[event.key]; while (marks[place] && marks[place].series === series);
      } else {
        place += steps[event.key];
      }
      panel.place = Math.min(Math.max(place, 0), marks.length - 1);
      return show(panel, marks[panel.place]);
    });
  }

  for (const button of document.querySelectorAll(".legend button")) {
    button.addEventListener("click", () => {
      const figure = button.closest("figure");
      figure.chosen ??= new Set();
      const name = button.dataset.series;
      if (!figure.chosen.delete(name)) figure.chosen.add(name);
      button.setAttribute("aria-pressed", String(figure.chosen.has(name)));
      figure.classList.toggle("choosing", figure.chosen.size > 0);
      for (const series of figure.querySelectorAll(".series")) {
        series.classList.toggle("chosen", figure.chosen.has(series.dataset.series));
      }
      figure.querySelectorAll("svg.panel").forEach((panel) => { panel.place = undefined; });
    });
  }
  addEventListener("scroll", hide, { passive: true });
})();
