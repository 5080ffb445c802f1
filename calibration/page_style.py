"""How a page looks on a screen, a phone and paper, light and dark, and how its tables sort.

What `page.py` puts into the one file: nothing here asks the network for anything.
"""

_LIGHT = """--paper: #ffffff; --text: #1a202c; --muted: #5f6875; --line: #d9dde3;
  --band: #e2e6ec; --soft: #f5f7fa; --before: #2b6cb0; --after: #c05621; --bad: #c53030;
  --good: #2f855a;"""
_DARK = """--paper: #14181f; --text: #e5e7eb; --muted: #9aa3af; --line: #333b47;
  --band: #343c49; --soft: #1c222b; --before: #7db4ec; --after: #f0a46b; --bad: #f58585;
  --good: #6fcf97;"""

STYLE = (
    f"""
:root {{ color-scheme: light dark; {_LIGHT} }}
@media (prefers-color-scheme: dark) {{ :root {{ {_DARK} }} }}
@media print {{ :root {{ color-scheme: light; {_LIGHT} }} }}
"""
    + """
@page { margin: 14mm 10mm; }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; padding: 2rem 1.2rem 4rem; max-width: 70rem; background: var(--paper);
  color: var(--text); font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .2rem; }
h2 { font-size: 1.35rem; margin: 3.2rem 0 .4rem; padding-top: .9rem;
  border-top: 2px solid var(--text); }
h3 { font-size: 1.05rem; margin: 2.1rem 0 .3rem; }
p { max-width: 44rem; margin: .3rem 0 .7rem; }
a { color: var(--before); }
.made { color: var(--muted); font-size: .9rem; max-width: none; overflow-wrap: anywhere; }
nav { margin: 1.2rem 0 0; font-size: .92rem; } nav a { margin-right: 1.1rem; }

.verdict { border-left: .3rem solid var(--good); background: var(--soft);
  padding: .8rem 1.1rem .7rem; margin: .9rem 0; border-radius: 0 .4rem .4rem 0; }
.verdict.bad { border-color: var(--bad); }
.verdict .headline { font-size: 1.1rem; font-weight: 600; max-width: none; margin: 0 0 .35rem; }
.verdict .sides { display: grid; gap: .3rem 2rem; font-size: .9rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); }
.verdict .sides p { margin: 0; max-width: none; color: var(--muted); }
.verdict strong { color: var(--good); } .verdict strong.bad { color: var(--bad); }

.figures { display: grid; gap: 1.4rem 2.2rem; margin: .8rem 0 1.2rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr)); }
.figures.pairs { grid-template-columns: repeat(auto-fill, minmax(min(100%, 30rem), 1fr)); }
figure { margin: 0; break-inside: avoid; }
figure.wide { max-width: 40rem; margin: .8rem 0 1.2rem; } figure.wide .panels { overflow-x: auto; }
figure.wide svg { min-width: 27rem; }
.panels { display: grid; gap: .6rem 1rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 14rem), 1fr)); }
figure.wide .panels { grid-template-columns: 1fr; }
figure svg { display: block; width: 100%; height: auto; stroke-linejoin: round;
  stroke-linecap: butt; }
figure svg text { fill: currentColor; }
.when { font-size: .82rem; font-weight: 600; color: var(--before); text-align: center; }
.when.after { color: var(--after); }
figcaption { font-size: .86rem; line-height: 1.4; color: var(--muted); margin-top: .3rem; }

.scroll { overflow-x: auto; margin: .4rem 0 1rem; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; }
th, td { padding: .28rem 1.1rem .28rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); white-space: nowrap; }
thead th { vertical-align: bottom; white-space: normal; border-bottom: 1px solid var(--muted); }
td.number, th.number { text-align: right; }
td.long { white-space: normal; min-width: 16rem; max-width: 52rem; overflow-wrap: anywhere; }
td small { color: var(--muted); font-size: .92em; margin-left: .45em; }
td.bad { color: var(--bad); font-weight: 600; } td.good { color: var(--good); }
td.bad small { color: inherit; font-weight: 400; opacity: .85; }
th button { all: unset; cursor: pointer; font-weight: 600; }
th button:focus-visible { outline: 2px solid var(--before); outline-offset: 2px; }
th button::after { content: "\\a0\\2195"; color: var(--muted); font-weight: 400; opacity: .55; }
th button:hover::after { opacity: 1; }
th[aria-sort=ascending] button::after { content: "\\a0\\2191"; color: var(--text); opacity: 1; }
th[aria-sort=descending] button::after { content: "\\a0\\2193"; color: var(--text); opacity: 1; }

.maps { display: flex; flex-wrap: wrap; gap: .6rem 2.5rem; align-items: flex-end; }
.map th { font-weight: 400; white-space: nowrap; } .map thead th { text-align: center; border: 0;
  padding: .1rem .3rem; } .map thead tr:first-child th { font-weight: 600;
  white-space: normal; }
.map td, .map tbody th { border: 0; } .map tbody th { padding: .3rem .9rem .3rem 0; }
.map td { text-align: center; padding: .3rem .4rem; min-width: 2.7rem;
  border: 1px solid var(--paper); }
.map td.bad { box-shadow: inset 0 0 0 2px var(--bad); color: inherit; }
.map .start { border-left: .8rem solid var(--paper); }

@media (max-width: 40rem) {
  body { padding: 1.2rem 1rem 3rem; } h1 { font-size: 1.45rem; } h2 { margin-top: 2.4rem; }
  .verdict { padding: .7rem .8rem; } .verdict .headline { font-size: 1.02rem; }
  th, td { padding-right: .9rem; } td small { display: block; margin: 0; }
  .scroll th:first-child, .scroll td:first-child { position: sticky; left: 0;
    background: var(--paper); } td.long { min-width: 14rem; }
  .map td { min-width: 2.3rem; padding: .3rem .2rem; } }
@media print {
  body { max-width: none; padding: 0; font-size: 9.5pt; } h2 { margin-top: 2rem; }
  p, td.long { max-width: none; } table { font-size: 7.5pt; } th { white-space: normal; }
  th, td { padding-right: .35rem; } td.long { min-width: 0; } nav { display: none; }
  td small { margin-left: .3em; } .map { font-size: 6.5pt; }
  .map td { min-width: 0; padding: .2rem .15rem; } .map .start { border-left-width: .4rem; }
  .scroll, figure.wide .panels { overflow: visible; } th button::after { content: "" !important; }
  tr, .verdict, .map { break-inside: avoid; } h2, h3, h3 + p, thead { break-after: avoid; }
  .figures.pairs { grid-template-columns: 1fr 1fr; gap: 1rem; }
  .figures { grid-template-columns: 1fr 1fr 1fr; } .panels { gap: .3rem;
    grid-template-columns: repeat(auto-fit, minmax(7rem, 1fr)); }
  figure.wide { max-width: 13cm; } figure.wide svg { min-width: 0; }
  .verdict, .map td, .map td.bad { print-color-adjust: exact;
    -webkit-print-color-adjust: exact; } }
"""
)

SCRIPT = """
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
    const key = (row) => row.cells[column].dataset.sort ?? row.cells[column].textContent;
    const order = (one, other) => {
      const [a, b] = [key(one), key(other)];
      if (a === "" || b === "") return (a === "") - (b === "");
      const difference = Number(a) - Number(b);
      return sign * (Number.isNaN(difference) ? a.localeCompare(b) : difference);
    };
    const body = table.tBodies[0];
    body.append(...[...body.rows].sort(order));
  }));
}
"""
