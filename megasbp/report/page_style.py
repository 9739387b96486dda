"""The page's style sheet: one column, system fonts, figures in columns, dark mode, phones, print."""

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #fcfcfa; --panel: #f4f4f0; --ink: #1c1f24; --soft: #5b616b; --rule: #dcdcd6; --grid: #e8e8e3;
  --baseline: #6b7280; --sbp: #1d5fd1; --random: #b45309; --oracle: #0f766e; --other: #7c3aed;
  --self: #be185d; --continuation: #4d7c0f; --context: #0e7490; --packing: #a21caf; --second: #1e3a8a;
  --won: #15803d; --undecided: #a16207; --lost: #b91c1c;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #15171b; --panel: #1d2025; --ink: #e7e8ea; --soft: #a0a6b0; --rule: #343840; --grid: #272b31;
    --baseline: #9ca3af; --sbp: #6ea8fe; --random: #f0a44b; --oracle: #4fc4b8; --other: #b794f6;
    --self: #f472b6; --continuation: #a3d977; --context: #67d3e8; --packing: #e29bf0; --second: #a5b4fc;
    --won: #4ade80; --undecided: #facc15; --lost: #f87171;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0 auto; max-width: 52rem; padding: 2.5rem 1.25rem 4rem;
  background: var(--paper); color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", sans-serif;
}
h1 { font-size: 1.1rem; font-weight: 600; margin: 0; overflow-wrap: anywhere; }
h2 {
  font-size: 1.3rem; line-height: 1.25; margin: 3.5rem 0 .75rem; padding-top: .9rem;
  border-top: 1px solid var(--rule);
}
h3 { font-size: 1rem; margin: 1.75rem 0 .4rem; }
p { margin: .5rem 0; max-width: 42rem; }
li { overflow-wrap: anywhere; }
a { color: inherit; text-underline-offset: .15em; text-decoration-color: var(--soft); }
code { font: .85em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; overflow-wrap: anywhere; }
.soft, figcaption, .note { color: var(--soft); font-size: .875rem; }
.note { margin: .5rem 0 1.5rem; }
header {
  display: flex; flex-wrap: wrap; gap: .25rem 1rem; align-items: baseline; justify-content: space-between;
}
nav { display: flex; flex-wrap: wrap; gap: .2rem .9rem; margin: .5rem 0 1.75rem; font-size: .875rem; }
nav a { white-space: nowrap; }

.verdict { border-left: 4px solid var(--mark); padding: .15rem 0 .15rem 1.1rem; margin: 0 0 1.75rem; }
.verdict.won { --mark: var(--won); }
.verdict.lost { --mark: var(--lost); }
.verdict.undecided { --mark: var(--undecided); }
.verdict.unmeasured { --mark: var(--soft); }
.verdict .headline {
  font-size: 1.4rem; line-height: 1.3; font-weight: 600; margin: 0 0 .6rem; text-wrap: pretty;
}
.verdict .evidence { font-weight: 400; font-size: 1.05rem; color: var(--soft); }
.verdict ul { margin: .5rem 0 0; padding-left: 1.1rem; }
.verdict li { margin: .3rem 0; }
.scope { background: var(--panel); border-radius: .4rem; padding: .8rem 1.1rem; }
.scope h2 { all: unset; font-weight: 600; }
.scope p { margin: .25rem 0 0; white-space: pre-line; }

.scroll { overflow-x: auto; margin: 0 0 1.25rem; }
.scroll:has(+ .note) { margin-bottom: 0; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; margin: .25rem 0; }
caption { text-align: left; font-weight: 600; padding: .2rem 0 .35rem; white-space: nowrap; }
th, td { padding: .3rem 0 .3rem 1.4rem; text-align: right; vertical-align: top; }
th { font-weight: 500; color: var(--soft); border-bottom: 1px solid var(--rule); vertical-align: bottom; }
td { white-space: nowrap; border-bottom: 1px solid var(--grid); }
th.words, td.words { text-align: left; white-space: normal; }
th:first-child, td:first-child { padding-left: 0; min-width: 7rem; }
tr.total-first td { border-top: 1px solid var(--soft); }
tr.total td { font-weight: 600; }
.pair { display: flex; flex-wrap: wrap; gap: 0 3rem; align-items: flex-start; }

figure { margin: 1rem 0 1.75rem; }
figcaption { max-width: 42rem; margin-top: .4rem; }
.chart { display: block; width: 100%; height: auto; font-size: 12px; fill: var(--ink); overflow: visible; }
.narrow .chart { max-width: 28rem; }
.pair figure { flex: 0 1 22rem; }
.narrow { display: none; }
.tick, .axis-name { fill: var(--soft); }
.value { font-variant-numeric: tabular-nums; fill: var(--soft); }
.narrow .label, .narrow .value { paint-order: stroke; stroke: var(--paper); stroke-width: 5px; }
.middle { text-anchor: middle; }
.end { text-anchor: end; }
.grid { stroke: var(--grid); }
.axis { stroke: var(--soft); }
.zero { stroke: var(--ink); stroke-width: 1.25; }
.curve { fill: none; stroke: currentColor; stroke-width: 1.75; stroke-linejoin: round; }
.band { fill: currentColor; fill-opacity: 0.16; stroke: none; }
.whisker { stroke: currentColor; stroke-width: 2.5; stroke-linecap: round; }
.dot { fill: currentColor; }
.name { fill: currentColor; font-weight: 600; }
.bar { fill: var(--sbp); opacity: .8; }
.arm-baseline { color: var(--baseline); }
.arm-sbp { color: var(--sbp); }
.arm-self_samples { color: var(--self); }
.arm-random_pairs { color: var(--random); }
.arm-continuation { color: var(--continuation); }
.arm-in_context { color: var(--context); }
.arm-seed_packing { color: var(--packing); }
.arm-second_round { color: var(--second); }
.arm-oracle { color: var(--oracle); }
.arm-other { color: var(--other); }
.curve.arm-oracle { stroke-dasharray: 7 4; }
.curve.arm-random_pairs { stroke-dasharray: 2 3.5; }
.curve.arm-continuation { stroke-dasharray: 9 3 2 3; }
.curve.arm-in_context { stroke-dasharray: 1 3; }
.curve.arm-seed_packing { stroke-dasharray: 12 3; }
.curve.arm-second_round { stroke-dasharray: 4 2; }
.curve.arm-self_samples { stroke-dasharray: 6 3 1.5 3; }

.controls { display: flex; flex-wrap: wrap; gap: .5rem; align-items: center; margin: .75rem 0; }
button, select, input {
  font: inherit; font-size: .9rem; color: inherit; background: var(--panel); min-height: 2.5rem;
  border: 1px solid var(--rule); border-radius: .35rem; padding: .35rem .7rem;
}
button:hover:enabled { border-color: var(--soft); }
button:disabled { opacity: .45; }
:focus-visible { outline: 2px solid var(--sbp); outline-offset: 2px; }
.controls label { font-size: .85rem; color: var(--soft); }
.controls input[type=number] { width: 5rem; }
mark { color: inherit; background: none; }
mark.from-seed { background: color-mix(in srgb, var(--sbp) 22%, transparent); }
mark.from-corpus { text-decoration: underline var(--soft); text-underline-offset: .2em; }
input[type=search] { flex: 1 1 10rem; min-width: 8rem; }
#place { min-width: 6rem; text-align: center; font-variant-numeric: tabular-nums; }
.triple { border: 1px solid var(--rule); border-radius: .4rem; padding: .9rem 1.1rem; margin: .75rem 0; }
.triple h3 { margin: 0; overflow-wrap: anywhere; }
.texts { display: grid; grid-template-columns: repeat(3, minmax(0, 1fr)); gap: 1.25rem; margin-top: .75rem; }
.texts h4 { margin: 0 0 .25rem; font-size: .8rem; font-weight: 600; color: var(--soft); }
.texts p { margin: 0; font-size: .9rem; line-height: 1.5; white-space: pre-wrap; overflow-wrap: anywhere; }
.texts .made { border-left: 3px solid var(--sbp); padding-left: .8rem; }
.chip {
  display: inline-block; font-size: .78rem; padding: .05rem .5rem; margin: .25rem .3rem 0 0;
  border: 1px solid var(--rule); border-radius: 1rem; color: var(--soft);
}
.chip.yes { color: var(--won); border-color: currentColor; }
.chip.no { color: var(--lost); border-color: currentColor; }
[hidden] { display: none !important; }

dl {
  display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .35rem 1.25rem; font-size: .9rem;
}
dt { font-weight: 600; }
dd { margin: 0; overflow-wrap: anywhere; }
summary { cursor: pointer; padding: .5rem 0; }
footer {
  margin-top: 3.5rem; padding-top: 1rem; border-top: 1px solid var(--rule);
  color: var(--soft); font-size: .875rem;
}

@media (max-width: 44rem) {
  body { padding-top: 1.25rem; }
  h2 { margin-top: 2.5rem; }
  .verdict .headline { font-size: 1.2rem; }
  .wide { display: none; }
  .narrow { display: block; }
  .texts, dl { grid-template-columns: minmax(0, 1fr); }
  dd { margin-bottom: .5rem; }
  table { font-size: .84rem; }
  th, td { padding-left: .9rem; }
  caption { white-space: normal; }
}
@media print {
  :root {
    --paper: #fff; --panel: #fff; --ink: #000; --soft: #444; --rule: #bbb; --grid: #ddd;
    --baseline: #555; --sbp: #1d5fd1; --random: #b45309; --oracle: #0f766e; --other: #7c3aed;
    --self: #be185d; --continuation: #4d7c0f; --context: #0e7490; --packing: #a21caf; --second: #1e3a8a;
    --won: #15803d; --undecided: #a16207; --lost: #b91c1c;
  }
  body { max-width: none; padding: 0; font-size: 10pt; }
  nav, .controls { display: none; }
  .triple[hidden] { display: block !important; }
  h2 { margin-top: 1.5rem; }
  .scroll { overflow: visible; }
  .wide { display: block; }
  .narrow { display: none; }
  figure, table, .verdict, .triple { break-inside: avoid; }
  h2, h3, caption { break-after: avoid; }
}
"""
