"""How the report looks. The labels' colours are the overlay's; "neutral" is darker on white paper, where it would vanish."""

from __future__ import annotations

from pipeline.labels import COLOURS

_COLOURS = "".join(f".{label}{{--c:rgb({r} {g} {b})}}" for label, (r, g, b) in COLOURS.items())

STYLE = (
    """
:root{--page:#f6f7f9;--card:#fff;--ink:#1b1f24;--dim:#5b6470;--line:#dfe3e8;--empty:#eef0f3;--heat:32 126 204;--warn:#b23b00}
"""
    + _COLOURS
    + """
.neutral{--c:#b4bac3}
@media(prefers-color-scheme:dark){
:root{--page:#101216;--card:#181b21;--ink:#e8eaee;--dim:#9aa3af;--line:#2a2f38;--empty:#22262e;--heat:86 180 233;--warn:#ff9d5c}
.neutral{--c:rgb(232 232 232)}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif;
font-variant-numeric:tabular-nums;-webkit-text-size-adjust:100%}
main{max-width:1080px;margin:0 auto;padding:40px 20px 56px}
header{margin-bottom:24px}
h1{font-size:clamp(1.6rem,4.5vw,2.3rem);line-height:1.15;margin:.1em 0 .25em;overflow-wrap:anywhere;letter-spacing:-.015em}
h2{font-size:1.15rem;margin:0 0 .3em;overflow-wrap:anywhere}
p{margin:.3em 0}
.over{text-transform:uppercase;letter-spacing:.09em;font-size:.75rem;font-weight:600;color:var(--dim)}
.dim,small{color:var(--dim)}
.dim{font-size:.9rem;overflow-wrap:anywhere}
.warn{color:var(--warn)}
section,.plain{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:20px 22px;margin:16px 0}
section.note{border-left:4px solid rgb(var(--heat));font-size:.93rem}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(130px,1fr));gap:12px;margin:0 0 16px}
.figures div{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:14px 16px;display:flex;flex-direction:column}
.figures dd{margin:0;font-size:1.55rem;font-weight:650;line-height:1.2}
.figures dt{color:var(--dim);font-size:.85rem}
.total{margin:14px 0 18px}
.bar{display:flex;height:14px;border-radius:4px;overflow:hidden;background:var(--empty)}
.bar i{background:var(--c);min-width:1px}
.total .bar{height:22px}
.legend{list-style:none;display:flex;flex-wrap:wrap;gap:4px 18px;padding:0;margin:10px 0 0;font-size:.9rem}
.legend i,td i{display:inline-block;width:.72em;height:.72em;border-radius:3px;background:var(--c);margin-right:.45em}
.legend .none{color:var(--dim)}
.legend .none b{font-weight:400}
.uncertain i{height:.3em;vertical-align:.2em}
.timeline{--who:150px;margin-top:10px}
.timeline details{border-top:1px solid var(--line)}
.timeline summary{display:grid;grid-template-columns:var(--who) 1fr;gap:14px;align-items:center;padding:8px 0;
cursor:pointer;list-style:none}
.timeline summary::-webkit-details-marker{display:none}
.timeline summary:hover svg,.timeline summary:focus-visible svg{outline:2px solid rgb(var(--heat))}
.who{display:flex;gap:10px;align-items:center}
.who img,.noface{width:40px;height:40px;border-radius:8px;background:var(--empty);flex:none}
.who span{display:flex;flex-direction:column;line-height:1.25;min-width:0}
.who small{font-size:.78rem;white-space:nowrap}
.who b::after{content:" ▸";color:var(--dim);font-weight:400}
[open]>summary .who b::after{content:" ▾"}
.timeline svg{display:block;width:100%;height:26px;border-radius:4px;background:var(--empty)}
rect{fill:var(--c)}
.axis{padding-left:calc(var(--who) + 14px);font-size:.75rem;color:var(--dim)}
.axis div{position:relative;height:1.6em;margin:2px 0}
.axis span{position:absolute;transform:translateX(-50%);white-space:nowrap}
.axis span:first-child{transform:none}
.axis .end{transform:translateX(-100%)}
.inside{padding:4px 0 18px calc(var(--who) + 14px)}
.said p{font-size:.9rem}
.scroll{overflow-x:auto;max-height:26rem;overflow-y:auto;margin-top:8px}
table{border-collapse:collapse;width:100%;font-size:.88rem}
th,td{text-align:left;padding:5px 10px 5px 0;border-bottom:1px solid var(--line);vertical-align:middle;white-space:nowrap}
thead th{position:sticky;top:0;background:var(--card);color:var(--dim);font-weight:500}
tbody th{font-weight:500}
.times td[style]{text-align:right;padding:5px 10px;background:rgb(var(--heat)/calc(var(--v)*.55))}
.times thead th:nth-last-child(-n+7){text-align:right;padding:5px 10px}
.ledger tbody th{white-space:normal;overflow-wrap:anywhere;min-width:9rem}
.hash{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;font-size:.78rem;white-space:normal;overflow-wrap:anywhere;min-width:16rem}
code{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;font-size:.9em}
ul{padding-left:1.2em;margin:.4em 0}
li{margin:.25em 0}
.plain summary{cursor:pointer;font-weight:600}
footer{margin-top:24px;overflow-wrap:anywhere}
@media(max-width:640px){
main{padding:24px 12px 40px}
section,.plain{padding:16px 14px}
.figures{grid-template-columns:repeat(2,1fr)}
.timeline{--who:0px}
.timeline summary{grid-template-columns:1fr;gap:6px}
.axis,.inside{padding-left:0}
.axis span:nth-child(even):not(.end),.axis span:has(+.end:nth-child(even)){display:none}
.timeline .who span{flex-direction:row;gap:8px;align-items:baseline}
.who img,.noface{width:28px;height:28px}
}
@media print{body{background:#fff}section,.plain,.figures div{break-inside:avoid}.scroll{max-height:none}}
"""
)
