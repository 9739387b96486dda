"""The page's script: the browser of triples. Without it, and in print, every triple is shown."""

SCRIPT = """
(() => {
  "use strict";
  const find = (name) => document.getElementById(name);
  const triples = [...document.querySelectorAll(".triple")];
  addEventListener("beforeprint", () => {
    for (const part of document.querySelectorAll("details")) part.open = true;
  });
  if (!triples.length) return;
  const texts = triples.map((triple) => triple.textContent.toLowerCase());
  let shown = triples, at = 0;
  const draw = () => {
    for (const triple of triples) triple.hidden = triple !== shown[at];
    find("place").textContent = shown.length ? `${at + 1} of ${shown.length}` : "none fits";
    find("previous").disabled = at <= 0;
    find("next").disabled = at >= shown.length - 1;
  };
  const filter = () => {
    const verdict = find("verdict-filter").value, words = find("text-filter").value.toLowerCase().trim();
    const limit = (name) => find(`${name}-filter`).value === "" ? null : Number(find(`${name}-filter`).value);
    const similar = limit("similarity"), shortest = limit("shortest"), longest = limit("longest");
    shown = triples.filter(({ dataset }, index) =>
      (!verdict || dataset.verdict === verdict) && texts[index].includes(words)
      && (similar === null || Number(dataset.similarity ?? NaN) >= similar)
      && (shortest === null || Number(dataset.words) >= shortest)
      && (longest === null || Number(dataset.words) <= longest));
    at = 0;
    draw();
  };
  const step = (by) => {
    at = Math.min(Math.max(at + by, 0), shown.length - 1);
    draw();
  };
  find("previous").addEventListener("click", () => step(-1));
  find("next").addEventListener("click", () => step(1));
  find("verdict-filter").addEventListener("change", filter);
  for (const name of ["text", "similarity", "shortest", "longest"]) {
    find(`${name}-filter`).addEventListener("input", filter);
  }
  find("browser").addEventListener("keydown", (event) => {
    if (event.target.matches("input, select")) return;
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });
  find("controls").hidden = false;
  filter();
})();
"""
