
"use strict";

for (const stage of document.querySelectorAll(".stage")) {
  const slider = stage.querySelector("input");
  const move = () => {
    stage.style.setProperty("--at", `${slider.value}%`);
    slider.setAttribute("aria-valuetext", `${slider.value} % before, ${100 - slider.value} % after`);
  };
  slider.addEventListener("input", move);
  move();
}

const PAGE = 100;
const filters = document.getElementById("filters");
const more = document.getElementById("more");
const rows = Array.from(document.querySelectorAll("#items tbody tr"));
const words = rows.map((row) => row.textContent.toLowerCase());
let most = PAGE;

function fits(row, place) {
  const data = new FormData(filters);
  return ["verdict", "kind", "folder"].every((name) => !data.get(name) || data.get(name) === row.dataset[name])
    && words[place].includes(data.get("text").trim().toLowerCase());
}

function sift() {
  let found = 0;
  rows.forEach((row, place) => {
    const fitting = fits(row, place);
    found += fitting;
    row.hidden = !fitting || found > most;
  });
  const shown = Math.min(found, most);
  filters.querySelector("output").textContent =
    shown < found ? `${shown} of ${found} shown` : `${found} shown`;
  more.hidden = shown === found;
}

filters.hidden = false;
filters.addEventListener("submit", (event) => event.preventDefault());
filters.addEventListener("input", () => { most = PAGE; sift(); });
more.addEventListener("click", () => { most += 5 * PAGE; sift(); });
filters.reset();
sift();
