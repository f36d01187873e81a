"use strict";

// A column of numbers sorts by the first number of each entry; entries without one come last, whichever way it goes.
const NUMBER = /^[≤\s]*([-−+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?)/i;

function value(cell, numeric) {
  const text = cell.textContent.trim();
  if (!numeric) return text;
  const found = NUMBER.exec(text);
  return found ? Number(found[1].replaceAll(",", "").replace("−", "-")) : NaN;
}

function compare(a, b, sign) {
  if (typeof a === "string") return sign * a.localeCompare(b);
  if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
  return sign * (a - b);
}

function sortable(table) {
  const bodies = [...table.tBodies].filter((body) => !body.classList.contains("anchors"));
  const groups = bodies.flatMap((body) => [...body.querySelectorAll("tr.group")]);
  const homes = bodies.map((body) => [body, [...body.rows]]);
  const rows = homes.flatMap(([, members]) => members).filter((row) => !groups.includes(row));
  const heads = [...table.querySelectorAll("thead th[scope=col]")];

  // Ascending, then descending, then the order of the report. Sorted rows stand together, each with its group's name.
  function sort(head) {
    const next = { none: "ascending", ascending: "descending", descending: "none" }[head.getAttribute("aria-sort")];
    heads.forEach((other) => other.setAttribute("aria-sort", other === head ? next : "none"));
    table.classList.toggle("flat", next !== "none" && groups.length > 0);
    groups.forEach((group) => { group.hidden = next !== "none"; });
    if (next === "none") return homes.forEach(([body, members]) => body.append(...members));
    const numeric = head.classList.contains("number");
    const keyed = rows.map((row) => [value(row.cells[head.cellIndex], numeric), row]);
    keyed.sort(([a], [b]) => compare(a, b, next === "ascending" ? 1 : -1));
    bodies[0].append(...keyed.map(([, row]) => row));
  }

  const hint = document.createElement("span");
  hint.className = "sorts";
  hint.textContent = " Click a heading to sort.";
  (table.caption.firstElementChild ?? table.caption).append(hint);
  for (const head of heads) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sort(head));
    head.append(button);
    head.setAttribute("aria-sort", "none");
  }
}

// Only what scrolls is a stop for the keyboard.
function focusable() {
  for (const frame of document.querySelectorAll(".scroll, pre")) {
    if (frame.scrollWidth > frame.clientWidth) frame.tabIndex = 0;
    else frame.removeAttribute("tabindex");
  }
}

function reveal() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target instanceof HTMLDetailsElement) {
    target.open = true;
    target.querySelector("summary").focus();
  }
}

document.querySelectorAll("table.sortable").forEach(sortable);
document.querySelectorAll("details").forEach((details) => details.addEventListener("toggle", focusable));
addEventListener("resize", focusable);
addEventListener("hashchange", reveal);
focusable();
reveal();

const unfold = document.getElementById("unfold");
if (unfold) {
  unfold.hidden = false;
  unfold.addEventListener("click", () => {
    const open = unfold.getAttribute("aria-pressed") !== "true";
    unfold.setAttribute("aria-pressed", String(open));
    document.querySelectorAll("details.cell").forEach((cell) => { cell.open = open; });
  });
}
