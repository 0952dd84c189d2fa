"""The style of a report: light and dark, from 400 pixels wide to as wide as is easy to read."""

STYLE = """
:root { color-scheme: light dark; --back: #fbfbfa; --card: #fff; --text: #1c2126; --muted: #5d6670;
  --line: #dfe3e6; --full: #2563c9; --delta: #0b8f83; --ok: #3b8f3e; --warn: #b26a00;
  --bad: #c8283c; --quiet: #8a949e }
@media (prefers-color-scheme: dark) { :root { --back: #14171a; --card: #1d2226; --text: #e8ebed;
  --muted: #9aa5af; --line: #343b42; --full: #6ea8ff; --delta: #3fc7b7; --ok: #6cc56f;
  --warn: #eda94b; --bad: #ff7484; --quiet: #77828d } }
* { box-sizing: border-box }
body { margin: 0; background: var(--back); color: var(--text);
  font: 15px/1.45 system-ui, sans-serif }
main { max-width: 1240px; margin: 0 auto; padding: 20px 16px 60px }
h1 { font-size: 1.6rem; margin: 0; overflow-wrap: anywhere }
h2 { font-size: 1.1rem; margin: 0 0 12px; overflow-wrap: anywhere }
h3 { font-size: .85rem; font-weight: 600; margin: 0; color: var(--muted) }
p { margin: 0 } .muted, .tile p, .legend, .axis, .top { color: var(--muted); font-size: .85rem }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 16px; margin-top: 16px }
i { font-style: normal } .bad { color: var(--bad) }
.tiles { display: grid; gap: 12px; margin-top: 16px;
  grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)) }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 12px 14px }
.tile .big { font-size: 1.45rem; font-weight: 600; color: var(--text); line-height: 1.3 }
.tile .big.bad { color: var(--bad) }
.lane { display: grid; grid-template-columns: 84px 1fr; align-items: center; gap: 10px;
  margin: 5px 0; font-size: .85rem }
.lane > span { color: var(--muted); text-align: right; white-space: nowrap }
.lane > div { position: relative; height: 22px; background: var(--back); border-radius: 4px }
.run, .mark { position: absolute; top: 3px; bottom: 3px; background: var(--kind) }
.run { min-width: 2px; border-radius: 3px; opacity: .75 }
.mark { width: 4px; margin-left: -2px; border-radius: 2px }
@media (max-width: 700px) { .mark { width: 2px; margin-left: -1px } }
.axis { display: flex; justify-content: space-between; padding-top: 4px }
#timeline .axis { margin-left: 94px }
.full { --kind: var(--full) } .delta { --kind: var(--delta) } .ok { --kind: var(--ok) }
.warn { --kind: var(--warn) } .quiet { --kind: var(--quiet) } i.bad { --kind: var(--bad) }
.charts { display: grid; gap: 20px;
  grid-template-columns: repeat(auto-fit, minmax(min(320px, 100%), 1fr)) }
.bars { display: flex; align-items: flex-end; gap: 1px; height: 110px;
  border-bottom: 1px solid var(--line); border-top: 1px dashed var(--line) }
.bars i { flex: 1 1 0; max-width: 26px; min-height: 1px; background: var(--kind);
  border-radius: 2px 2px 0 0 }
.legend { display: flex; flex-wrap: wrap; align-items: center; gap: 6px 14px; margin-top: 10px }
.dot { display: inline-block; width: 9px; height: 9px; border-radius: 50%; margin-right: 6px;
  background: var(--kind) }
.film { display: grid; gap: 12px; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)) }
figure { margin: 0 } figcaption { font-size: .8rem; color: var(--muted) }
.map { width: 100%; display: block; image-rendering: pixelated; border-radius: 4px }
.scale { width: 160px; height: 10px; border-radius: 3px }
svg { width: 100%; aspect-ratio: 2; background: var(--back); border-radius: 4px; display: block }
path { fill: none; stroke-width: 1.5; vector-effect: non-scaling-stroke; stroke-linejoin: round }
.curve { stroke: var(--full) } .nan { stroke: var(--bad) }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-size: .85rem; min-width: 100% }
th { text-align: left; color: var(--muted); font-weight: 600; white-space: nowrap }
th, td { padding: 5px 14px 5px 0; border-bottom: 1px solid var(--line); vertical-align: top }
td { white-space: nowrap } .n { text-align: right }
.text { white-space: normal; overflow-wrap: anywhere; min-width: 13em }
.code { font-family: ui-monospace, monospace }
.share { display: inline-block; width: 46px; height: 8px; margin-right: 8px; border-radius: 4px;
  background: var(--line); overflow: hidden }
.share b { display: block; height: 100%; background: var(--full) }
"""
