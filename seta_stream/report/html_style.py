"""How the page looks, and the little that it does: CSS and JavaScript as texts. Pure."""

from __future__ import annotations

from typing import Final

STYLE: Final = """
:root{color-scheme:light dark;--paper:#fff;--raised:#f4f6f8;--ink:#22303c;--muted:#54636f;--edge:#c9d1d8;--back:#d5dbe1;
--kept:#1f77b4;--link:#155d92;--warn:#8a4b00}
@media (prefers-color-scheme:dark){:root{--paper:#12181e;--raised:#1b242c;--ink:#e3e9ee;--muted:#a3b2be;--edge:#3a4753;
--back:#36434f;--kept:#4f9fdc;--link:#8cc4f0;--warn:#f0b673}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;text-size-adjust:100%;scroll-padding-top:1rem}
body{margin:0;background:var(--paper);color:var(--ink);
font:1rem/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;
overflow-wrap:anywhere}
header,main,footer{max-width:62rem;margin:0 auto;padding:0 1rem}
h1{font-size:1.5rem;line-height:1.25;margin:1.5rem 0 .25rem}
h2{font-size:1.25rem;margin:2.5rem 0 .5rem;padding-top:1rem;border-top:1px solid var(--edge)}
h3{font-size:1rem;margin:1.5rem 0 0}
figcaption h3{margin:0}
p{margin:.25rem 0 .75rem}
.muted,figcaption p{color:var(--muted)}
.mono{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;font-size:.875em}
a{color:var(--link)}
:focus-visible{outline:3px solid var(--kept);outline-offset:2px;border-radius:2px}
.skip{position:absolute;left:-99rem}
.skip:focus{left:1rem;top:.5rem;background:var(--paper);padding:.5rem;z-index:1}
.hidden{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap}
nav ul,.legend,.cards,.facts{list-style:none;margin:0;padding:0;display:flex;flex-wrap:wrap;gap:.25rem 1rem}
nav a{display:inline-block;padding:.25rem 0}
.facts{display:grid;grid-template-columns:repeat(auto-fill,minmax(9.5rem,1fr));gap:.75rem;margin:1rem 0}
.facts>div{background:var(--raised);border-radius:.5rem;padding:.6rem .8rem}
.facts dt{color:var(--muted);font-size:.875rem}
.facts dd{margin:0;font-size:1.25rem;font-weight:600}
.facts dd small{display:block;font-size:.8125rem;font-weight:400;color:var(--muted)}
.notes{border-left:4px solid var(--warn);padding:.25rem .9rem;margin:1rem 0;background:var(--raised)}
figure{margin:1.25rem 0 2rem;position:relative}
figure output{display:block;min-height:1.5em;font-size:.875rem;color:var(--muted)}
.legend{font-size:.875rem;margin:.25rem 0 .5rem}
.mark{display:inline-block;width:1rem;height:.8rem;margin-right:.4rem;vertical-align:-.05rem;
border:1px solid var(--ink)}
.mark.kept{background:var(--kept)}.mark.back{background:var(--back)}
.mark.half{background:linear-gradient(var(--kept),var(--kept)) 0/50% 100% no-repeat,var(--back)}
.mark.line{height:0;border-width:2px 0 0;vertical-align:.25rem}
.mark.dashed{height:0;border-width:2px 0 0;border-style:dashed;vertical-align:.25rem}
.mark.outer{background:var(--kept);opacity:.35}.mark.inner{background:var(--kept);opacity:.7}
svg{display:block;width:100%;height:100%;overflow:visible}
svg .back{fill:var(--back)}svg .kept{fill:var(--kept)}
svg .line{fill:none;stroke:var(--ink);stroke-width:1.5;vector-effect:non-scaling-stroke}
svg .dashed{stroke-dasharray:6 4}
svg .window{fill:none;stroke:var(--kept);stroke-width:3;vector-effect:non-scaling-stroke}
.row{display:grid;grid-template-columns:5rem minmax(0,1fr) 5.25rem;gap:.5rem;align-items:end;font-size:.8125rem}
.row>span:first-child{text-align:right}
.row>span{white-space:nowrap}
.row>svg{height:3.1rem;overflow:hidden}
.row.foot{height:1.6rem}
.ridges .ticks{border-top:1px solid var(--muted);position:relative;height:100%;overflow:visible}
.ticks{position:relative;height:1.4rem;font-size:.8125rem;color:var(--muted)}
.ticks span{position:absolute;top:.15rem;transform:translateX(-50%);white-space:nowrap}
.framed{padding-left:4.25rem;position:relative}
.framed .plot,.framed .scale{height:11rem}
.framed .plot{border-bottom:1px solid var(--muted);position:relative}
.framed .scale{position:absolute;left:0;right:0;top:0;font-size:.8125rem;color:var(--muted)}
.framed .scale span{position:absolute;left:0;right:0;line-height:1;transform:translateY(50%);
width:3.9rem;text-align:right;white-space:nowrap}
.framed .cursor{position:absolute;top:0;bottom:0;width:2px;margin-left:-1px;background:var(--ink)}
.axis{text-align:center;font-size:.8125rem;color:var(--muted)}
.scroll{overflow:auto;max-height:26rem;border:1px solid var(--edge);border-radius:.35rem;margin:.35rem 0}
table{border-collapse:collapse;width:100%;
font-size:.875rem;font-variant-numeric:tabular-nums;overflow-wrap:normal}
th,td{padding:.25rem .6rem;text-align:right;white-space:nowrap;border-bottom:1px solid var(--edge)}
thead th{position:sticky;top:0;background:var(--raised)}
th:first-child{text-align:left;white-space:normal;min-width:5rem}
tbody th{font-weight:400}
summary{cursor:pointer;padding:.35rem 0;
font-size:.875rem;color:var(--link)}
.meter{display:inline-block;width:4.5rem;height:.7rem;background:var(--back);margin-right:.5rem;vertical-align:-.02rem}
.meter span{display:block;height:100%;background:var(--kept)}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(9.5rem,1fr));gap:.75rem;margin:.75rem 0 1.5rem}
.cards li{background:var(--raised);border-radius:.5rem;padding:.6rem;font-size:.8125rem;min-width:0}
.cards img{display:block;max-width:100%;height:auto;margin:0 auto .4rem;background:#fff}
.cards strong{display:block;font-size:1rem}
.cards p{margin:.15rem 0}
.cards .mono{font-size:.75rem}
.cards q{quotes:none}
footer{margin:3rem auto 2rem;font-size:.875rem;color:var(--muted)}
@media (max-width:34rem){.row{grid-template-columns:3.9rem minmax(0,1fr) 4.6rem;gap:.35rem;font-size:.75rem}
.framed{padding-left:3.75rem}.framed .scale span{width:3.5rem;font-size:.75rem}
.facts,.cards{grid-template-columns:repeat(auto-fill,minmax(8.25rem,1fr))}}
@media print{:root{color-scheme:light;--paper:#fff;--raised:#fff;--ink:#000;--muted:#333;--edge:#999;--back:#d5dbe1;
--kept:#1f77b4;--link:#000;--warn:#000}nav,.skip,output{display:none}.scroll{overflow:visible;max-height:none;border:0}
figure,.cards li,.row{break-inside:avoid}
*{print-color-adjust:exact;-webkit-print-color-adjust:exact}
th,td{white-space:normal;padding:.15rem .3rem}}
"""

SCRIPT: Final = """
"use strict";
for (const chart of document.querySelectorAll(".framed")) {
  const figure = chart.closest("figure"), output = figure.querySelector("output"), plot = chart.querySelector(".plot");
  const points = Number(chart.dataset.points), slots = Number(chart.dataset.slots);
  const heads = [...figure.querySelectorAll("thead th")], rows = [...figure.querySelectorAll("tbody tr")];
  const cursor = document.createElement("div");
  cursor.className = "cursor";
  let at = -1;
  const show = (place) => {
    at = Math.max(0, Math.min(points - 1, place));
    if (!rows[at]) return;
    cursor.style.left = 100 * (at + 0.5) / slots + "%";
    plot.append(cursor);
    const cells = [...rows[at].children];
    output.textContent = cells.map((cell, n) => heads[n].textContent + " " + cell.textContent).join(", ");
  };
  const hide = () => { cursor.remove(); output.textContent = ""; at = -1; };
  const moves = { ArrowLeft: () => at < 0 ? points - 1 : at - 1, ArrowRight: () => at + 1, Home: () => 0,
    End: () => points - 1 };
  chart.addEventListener("keydown", (event) => {
    if (event.key === "Escape") hide();
    if (!(event.key in moves) || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    show(moves[event.key]());
  });
  chart.addEventListener("blur", hide);
  const point = (event) => {
    const box = plot.getBoundingClientRect();
    show(Math.floor(slots * (event.clientX - box.left) / box.width));
  };
  plot.addEventListener("pointermove", point);
  plot.addEventListener("pointerdown", point);
  plot.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") hide(); });
}
let closed = [];
addEventListener("beforeprint", () => {
  closed = [...document.querySelectorAll("details:not([open])")];
  for (const one of closed) one.open = true;
});
addEventListener("afterprint", () => { for (const one of closed) one.open = false; });
"""
