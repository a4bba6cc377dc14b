"""The look and the behaviour of the page; nothing here comes from a run's files."""

CSS = """
:root{color-scheme:light dark;--bg:#fff;--panel:#f4f6f8;--ink:#15191e;--soft:#56606b;--rule:#d8dde3;
--line:#0a5ea8;--raw:#9cc3e6;--mark:#9a4b00;--wash:#fff3e3;
--s0:#0a5ea8;--s1:#c2410c;--s2:#15803d;--s3:#7e22ce;--s4:#b8860b;--s5:#be185d;--s6:#0f766e;--s7:#56606b;
--sans:system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;
--mono:ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono","Liberation Mono",monospace}
@media (prefers-color-scheme:dark){:root{--bg:#101317;--panel:#191e23;--ink:#e7eaed;--soft:#9ca7b2;
--rule:#2d343b;
--line:#74b8f5;--raw:#2f5677;--mark:#f2ab52;--wash:#2b2115;
--s0:#74b8f5;--s1:#fb923c;--s2:#4ade80;--s3:#c084fc;--s4:#facc15;--s5:#f472b6;--s6:#2dd4bf;--s7:#9ca7b2;}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;scroll-behavior:smooth}
body{margin:0;background:var(--bg);color:var(--ink);font:15px/1.55 var(--sans)}
main,.top{max-width:1240px;margin:0 auto;padding:0 28px}
h1,h2,h3,p,figure,table,dl{margin:0}
h1{font-size:30px;line-height:1.2;font-weight:650;letter-spacing:-.012em;overflow-wrap:anywhere}
.run>header h2{font-size:25px;line-height:1.2;font-weight:650;letter-spacing:-.01em;overflow-wrap:anywhere}
.part>h2,.part>h3{font-size:15px;font-weight:650;line-height:1.35}
h4{font-size:13px;font-weight:650;margin:0 0 8px}
code,pre,kbd,output,.mono{font-family:var(--mono);font-size:.87em}
a{color:var(--line);text-underline-offset:2px}
:focus-visible{outline:2px solid var(--line);outline-offset:3px;border-radius:2px}
.skip{position:absolute;left:-999px}.skip:focus{left:12px;top:8px;background:var(--bg);padding:6px 10px;
z-index:9}
.run{border-top:1px solid var(--rule);padding:34px 0 10px}.run.only{border-top:0}
.run>header{padding-bottom:22px}
.chain{margin-top:8px;font-size:17px;overflow-wrap:anywhere}.chain .to{color:var(--soft);padding:0 .1em}
.paper{margin-top:6px;color:var(--soft);max-width:90ch}
.facts{display:flex;flex-wrap:wrap;gap:4px 26px;margin-top:12px;font-size:13.5px;color:var(--soft)}
.facts b{color:var(--ink);font-weight:600;font-variant-numeric:tabular-nums}
.part{border-top:1px solid var(--rule);padding:22px 0 30px;display:grid;
grid-template-columns:172px minmax(0,1fr);
column-gap:36px;scroll-margin-top:10px}
.part>*{grid-column:2}.part>h2,.part>h3{grid-column:1;grid-row:1 / span 9}
.part>.body{grid-column:2}
.none{color:var(--soft)}.small{font-size:12.5px;line-height:1.5;color:var(--soft);max-width:100ch;
margin-top:12px}
table{border-collapse:collapse;font-variant-numeric:tabular-nums lining-nums;font-size:14px}
th{font-weight:500;text-align:left}td,th{padding:5px 14px 5px 0;border-bottom:1px solid var(--rule);
vertical-align:baseline}
thead th{font-size:12.5px;color:var(--soft);line-height:1.35;vertical-align:bottom}
td.n,th.n{text-align:right;white-space:nowrap}td:last-child,th:last-child{padding-right:0}
td .u{color:var(--soft);font-size:12.5px}.dir{color:var(--soft);font-size:12.5px;white-space:nowrap}
td b{font-weight:700}
.wide{overflow-x:auto}.wide table{min-width:100%}
.axes{display:grid;grid-template-columns:repeat(3,minmax(0,1fr));gap:8px 36px;align-items:start}
.axes table{width:100%}th small{display:block;font-size:12px;line-height:1.35;color:var(--soft)}
.axes caption{text-align:left;font-weight:650;font-size:13px;padding-bottom:4px;
border-bottom:1px solid var(--ink)}
.axes caption span{font-weight:400;color:var(--soft)}
.cmp thead tr:first-child td{border-bottom:0}.cmp thead tr:first-child th{color:var(--ink);font-weight:650;
border-bottom:0;padding-bottom:0}
.cmp th[scope=row]{min-width:190px;position:sticky;left:0;background:var(--bg)}
.cmp th[scope=row] a{font-weight:600}
.cmp th[scope=row] span{display:block;font-size:12.5px;line-height:1.4;color:var(--soft)}
.cmp thead th.n{white-space:normal;min-width:66px;max-width:118px}
.cmp thead th small{display:block;font-size:11.5px}
.cmp .first{border-left:1px solid var(--rule);padding-left:14px}
.bar{display:flex;flex-wrap:wrap;gap:10px 18px;align-items:center;margin-bottom:14px}
fieldset{border:0;padding:0;margin:0;display:flex;flex-wrap:wrap;gap:0}
legend{float:left;padding:0;margin-right:10px;font-size:13px;color:var(--soft);line-height:32px}
fieldset label{position:relative;display:inline-flex}
fieldset input{position:absolute;opacity:0;inset:0;margin:0;cursor:pointer}
fieldset label span{padding:0 12px;font-size:13px;line-height:30px;border:1px solid var(--rule);
margin-left:-1px}
fieldset input:checked+span{background:var(--ink);color:var(--bg);border-color:var(--ink)}
fieldset input:focus-visible+span{outline:2px solid var(--line);outline-offset:2px;z-index:1}
button{font:inherit;font-size:13px;line-height:30px;padding:0 14px;border:1px solid var(--rule);
border-radius:4px;
background:var(--panel);color:var(--ink);cursor:pointer}
button:hover{border-color:var(--soft)}
.hold{border-color:var(--ink);user-select:none;-webkit-user-select:none;touch-action:none;font-weight:600}
kbd{border:1px solid var(--rule);border-radius:3px;padding:1px 6px;margin-left:6px;font-weight:400;
color:var(--soft);background:var(--bg)}
.state{font-size:13px;color:var(--soft);min-width:15em}.state b{color:var(--ink)}
.flip.on .state b{color:var(--mark)}
.flip.on .tiles,.flip.on .clips{background:var(--wash)}
.flip.on .hold{background:var(--mark);border-color:var(--mark);color:var(--bg)}
.bench{display:grid;grid-template-columns:minmax(0,1fr) 424px;gap:28px;align-items:start}
.tiles{display:grid;grid-template-columns:repeat(auto-fill,minmax(var(--tile,104px),1fr));gap:6px;
padding:6px;margin:-6px;
touch-action:pan-y;user-select:none;-webkit-user-select:none;-webkit-touch-callout:none;cursor:pointer;
border-radius:4px}
.tile,.big{position:relative;display:block;aspect-ratio:var(--ar,1);overflow:hidden;background:var(--panel);
isolation:isolate}
.tile i,.big i{position:absolute;inset:0;background-repeat:no-repeat;background-position:var(--x) var(--y);
-webkit-print-color-adjust:exact;print-color-adjust:exact}
.flip.on .tile .d,.nojs .tiles:active .d{opacity:0}
.tile.at{outline:2px solid var(--line);outline-offset:1px}
.lens figcaption,.pair figcaption{font-size:12.5px;color:var(--soft);padding-top:3px}
.lens{display:grid;gap:10px 12px;position:sticky;top:12px;grid-template-columns:1fr 1fr;align-items:start}
.lens figure{display:grid;grid-template-columns:1fr;gap:0}
.lens .diff{filter:brightness(4)}.lens .diff .d{mix-blend-mode:difference}
.lens h4{margin:0 0 4px;font-size:14px;font-weight:650}.lens dl{display:grid;
grid-template-columns:auto auto;justify-content:start;gap:2px 14px;
font-size:13px;font-variant-numeric:tabular-nums}.lens dt{color:var(--soft)}.lens dd{margin:0;
text-align:right;white-space:nowrap}
.lens dt.now,.lens dd.now{color:var(--ink);font-weight:600}
.classes{display:grid;gap:5px}
.class{display:grid;grid-template-columns:92px minmax(0,1fr);gap:14px;align-items:center}
.class>span{font-size:13px;overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
.row{display:grid;grid-template-columns:repeat(var(--n,10),minmax(0,var(--tile,76px)));gap:5px}
.pairs{display:grid;grid-template-columns:repeat(auto-fill,minmax(var(--pair,190px),1fr));gap:16px 20px}
.pair{display:grid;gap:4px}.pair.beside{grid-template-columns:1fr 1fr}
.curves{display:grid;grid-template-columns:repeat(auto-fill,minmax(270px,1fr));gap:20px 26px}
.body>h3,.body>h4{margin:26px 0 10px}.body>h3:first-child,.body>h4:first-child{margin-top:0}
.curve figcaption{display:flex;gap:10px;align-items:baseline;font-size:13px;
border-bottom:1px solid var(--rule);padding-bottom:3px}
.curve b{font-family:var(--mono);font-size:12.5px;font-weight:600;overflow-wrap:anywhere}
.curve output{margin-left:auto;white-space:nowrap}.curve .lost{color:var(--mark);font-size:12px}
.curve svg{display:block;width:100%;height:auto;margin-top:4px;touch-action:pan-y;overflow:visible}
.curve .none{padding:40px 0;text-align:center;font-size:13px}
.curve text{fill:var(--soft);font:11px var(--sans);font-variant-numeric:tabular-nums}
.rule{stroke:var(--rule);stroke-width:1}.base,.tick{stroke:var(--soft);stroke-width:1}
polyline{fill:none;stroke-linejoin:round;vector-effect:non-scaling-stroke}
.raw{stroke:var(--raw);stroke-width:1}polyline.mean{stroke:var(--line);stroke-width:1.8}
circle.mean{fill:var(--line)}circle.raw{fill:var(--raw);stroke:none}
polyline.held{stroke:var(--s1);stroke-width:1.8;stroke-dasharray:5 3}circle.held{fill:var(--s1)}
figcaption .held{color:var(--s1);font-size:12px}
polyline[class^=s]{stroke-width:1.6}
polyline.s0{stroke:var(--s0)}.legend .s0{--c:var(--s0)}
polyline.s1{stroke:var(--s1)}.legend .s1{--c:var(--s1)}
polyline.s2{stroke:var(--s2)}.legend .s2{--c:var(--s2)}
polyline.s3{stroke:var(--s3)}.legend .s3{--c:var(--s3)}
polyline.s4{stroke:var(--s4)}.legend .s4{--c:var(--s4)}
polyline.s5{stroke:var(--s5)}.legend .s5{--c:var(--s5)}
polyline.s6{stroke:var(--s6)}.legend .s6{--c:var(--s6)}
polyline.s7{stroke:var(--s7)}.legend .s7{--c:var(--s7)}
.run.only h3{margin:26px 0 8px}
.legend{display:flex;flex-wrap:wrap;gap:4px 22px;margin:2px 0 12px;font-size:13px}
.legend span::before{content:'';display:inline-block;width:18px;height:3px;margin-right:7px;vertical-align:middle;
background:var(--c)}
.curve .cur{visibility:hidden}line.cur{stroke:var(--ink);stroke-width:1}circle.cur{fill:var(--bg);
stroke:var(--ink);stroke-width:1.5}
.curve .show .cur{visibility:visible}
.clips{display:grid;grid-template-columns:repeat(auto-fill,minmax(250px,1fr));gap:20px;padding:6px;
margin:-6px;border-radius:4px}
.clip{display:grid;gap:5px;min-width:0}
.clip .sides{position:relative;touch-action:pan-y;user-select:none;-webkit-user-select:none;cursor:pointer}
.clip .side{display:block}.clip .side.d{position:absolute;inset:0;background:var(--bg)}
.flip.on .side.d{visibility:hidden}
.wave{display:block;width:100%;height:48px;background:var(--panel)}.wave path{fill:var(--line)}
.clip img{display:block;width:100%;height:110px}
.clip audio{width:100%;height:34px}
.clip label{font-size:12.5px;color:var(--soft)}
details summary{cursor:pointer;font-size:13.5px}
.tree{font:12.5px/1.65 var(--mono);overflow-x:auto;background:var(--panel);padding:12px 16px;
margin-top:10px;border-radius:4px}
.tree details details,.tree .leaf,.tree .list{margin-left:18px}.tree summary{font-size:12.5px}
.tree .leaf{white-space:pre-wrap;overflow-wrap:anywhere}.tree .k{color:var(--soft)}.tree .c{font-weight:600}
.tree .leaf{padding-left:14px}
.cmd{display:flex;gap:10px;align-items:stretch;margin-bottom:16px}
.cmd pre{flex:1;margin:0;min-width:0;background:var(--panel);padding:8px 12px;border-radius:4px;
white-space:pre-wrap;overflow-wrap:anywhere;line-height:1.5}
.cmd button{align-self:flex-start;min-width:78px;line-height:34px}
.env{max-width:760px;width:100%}.env th{color:var(--soft);width:180px}.env td{overflow-wrap:anywhere}
.foot{border-top:1px solid var(--rule);color:var(--soft);font-size:12.5px;padding:14px 0 40px}
.vh{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap}
.nojs .js{display:none}
@media (max-width:1080px){.axes{grid-template-columns:1fr 1fr}.bench{grid-template-columns:minmax(0,1fr)}
.lens{position:static;grid-template-columns:repeat(3,minmax(0,1fr));max-width:560px}
.lens .say{grid-column:1/-1;grid-row:1}}
@media (max-width:860px){.part{display:block}.part>h2,.part>h3{margin-bottom:14px;font-size:17px}}
@media (max-width:620px){main,.top{padding:0 16px}h1{font-size:25px}.chain{font-size:15.5px}
.axes{grid-template-columns:1fr;gap:22px}.tiles{--tile:var(--phone,64px)!important;gap:4px}
.pairs{--pair:160px!important;gap:10px 12px}.class{grid-template-columns:1fr;gap:4px;margin-bottom:8px}
.row{grid-template-columns:repeat(min(var(--n,10),5),minmax(0,1fr))}
.env th{width:120px}.run{padding-top:24px}.cmp th[scope=row]{min-width:112px;max-width:140px}
.cmp th[scope=row] span{display:none}
.cmd{flex-direction:column}.state{min-width:0;width:100%}
.hold{line-height:42px}button{min-height:40px}fieldset label span{line-height:38px}kbd{display:none}}
@media (prefers-reduced-motion:reduce){html{scroll-behavior:auto}}
@media print{.js,.bar{display:none}.part{break-inside:avoid}}
"""

JS = """
document.documentElement.classList.remove('nojs');
for(const f of document.querySelectorAll('.flip')){
  const names=JSON.parse(f.dataset.names),psnr=JSON.parse(f.dataset.psnr||'[]'),
    state=f.querySelector('.state b');
  const tiles=[...f.querySelectorAll('.tiles .tile')],area=f.querySelector('.tiles,.clips'),
    lens=f.querySelector('.lens');
  const hold=f.querySelector('.hold');let at=0,latched=false;
  const say=()=>{const on=f.classList.contains('on');state.textContent=on?'originals':names[f.dataset.d];
    hold.setAttribute('aria-pressed',on)};
  const show=on=>{f.classList.toggle('on',on);say()};
  const pick=i=>{if(!lens||!tiles[i])return;tiles[at].classList.remove('at');at=i;const t=tiles[i];
    t.classList.add('at');
    for(const p of['--x','--y'])lens.style.setProperty(p,t.style.getPropertyValue(p));
    lens.querySelector('h4').textContent='Image '+(i+1);
    lens.querySelectorAll('dd').forEach((e,j)=>{const q=psnr[j][i];
      e.textContent=q==null?'identical':q.toFixed(1)+' dB';
      e.classList.toggle('now',j==f.dataset.d);e.previousElementSibling.classList.toggle('now',
        j==f.dataset.d)})};
  for(const r of f.querySelectorAll('input[type=radio]'))r.addEventListener('change',()=>{f.dataset.d=r.value;
    const n=f.querySelector('.lens figcaption.now');if(n)n.textContent=names[r.value];say();pick(at)});
  const press=e=>{if(e.button)return;if(e.target.closest('audio,a'))return;
    const i=tiles.indexOf(e.target.closest('.tile'));if(i>=0)pick(i);show(true)};
  const free=()=>{if(!latched)show(false)};
  for(const b of[area,hold]){b.addEventListener('pointerdown',press);
    b.addEventListener('contextmenu',e=>{
      if(e.pointerType==='touch'||matchMedia('(pointer:coarse)').matches)e.preventDefault()});
    b.addEventListener('keydown',e=>{if(e.target.closest('audio'))return;
      if(e.key===' '||e.key==='Enter'){e.preventDefault();if(!e.repeat)show(true);return}
      if(b===hold||!tiles.length)return;
      const per=tiles.filter(t=>t.offsetTop===tiles[0].offsetTop).length,
        d={ArrowRight:1,ArrowLeft:-1,ArrowDown:per,ArrowUp:-per}[e.key];
      if(d&&tiles[at+d]){e.preventDefault();pick(at+d)}});
    b.addEventListener('keyup',e=>{if(e.key===' '||e.key==='Enter'){e.preventDefault();free()}});
    b.addEventListener('blur',free)}
  hold.addEventListener('click',e=>{if(e.detail===0&&!e.pointerType){latched=!latched;show(latched)}});
  for(const n of['pointerup','pointercancel','blur'])addEventListener(n,free);
  area.addEventListener('pointermove',e=>{const i=tiles.indexOf(e.target.closest('.tile'));
    if(i>=0&&i!==at)pick(i)});
  say();pick(0)}
const fmt=v=>{if(v===0)return'0';const a=Math.abs(v);
  return a>=1e-3&&a<1e6?String(+v.toPrecision(4)):v.toExponential(2)};
for(const s of document.querySelectorAll('svg[data-curve]')){
  const c=JSON.parse(s.dataset.curve),[l,t,r,b]=s.dataset.box.split(' ').map(Number),
    out=s.parentNode.querySelector('output'),
    rest=out.textContent,line=s.querySelector('line.cur'),dot=s.querySelector('circle.cur');
      let at=c.p.length-1;
  const g=c.log?Math.log10:v=>v;
  const mark=i=>{at=Math.max(0,Math.min(c.p.length-1,i));const[x,v]=c.p[at],
    px=l+(x-c.x[0])/(c.x[1]-c.x[0])*(r-l),
    py=b-(g(v)-g(c.y[0]))/(g(c.y[1])-g(c.y[0]))*(b-t);
    line.setAttribute('x1',px);line.setAttribute('x2',px);dot.setAttribute('cx',px);dot.setAttribute('cy',py);
    s.classList.add('show');out.textContent='step '+x+': '+fmt(v)};
  const off=()=>{s.classList.remove('show');out.textContent=rest};
  s.addEventListener('pointermove',e=>{const w=s.getBoundingClientRect(),
    x=c.x[0]+((e.clientX-w.left)/w.width*320-l)/(r-l)*(c.x[1]-c.x[0]);
    let n=0;c.p.forEach((p,i)=>{if(Math.abs(p[0]-x)<Math.abs(c.p[n][0]-x))n=i});mark(n)});
  s.addEventListener('pointerleave',off);s.addEventListener('blur',off);s.addEventListener('focus',()=>{
    if(s.matches(':focus-visible'))mark(at)});
  s.addEventListener('keydown',e=>{const d={ArrowRight:1,ArrowLeft:-1,Home:-1e9,End:1e9}[e.key];if(d){
    e.preventDefault();mark(at+d)}})}
for(const b of document.querySelectorAll('button.copy'))b.addEventListener('click',async()=>{
  const p=b.parentNode.querySelector('pre');let ok=true;
  try{await navigator.clipboard.writeText(p.textContent)}catch(_){const s=getSelection();
    s.selectAllChildren(p);
    try{ok=document.execCommand('copy')}catch(_){ok=false}}
  b.textContent=ok?'Copied':'Selected';setTimeout(()=>b.textContent='Copy',1600)});
"""
