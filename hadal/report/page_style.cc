#include "hadal/report/page_style.h"

#include "hadal/base/text.h"
#include "hadal/report/svg.h"

namespace hadal {

const char* const kPageStyle = R"css(
:root{color-scheme:light dark;--bg:#f4f6f8;--card:#fff;--ink:#1b2530;--soft:#5c6b7a;--grid:#e6eaee;--edge:#d5dce3;
--c0:#2160c4;--c1:#cf5714;--c2:#0c8068;--c3:#a82a88;--c4:#866800;--c5:#6546c2;--c6:#bf2f47;--c7:#52687a}
@media (prefers-color-scheme:dark){:root{--bg:#10151a;--card:#182028;--ink:#e4eaf0;--soft:#93a2b1;--grid:#27313b;--edge:#33404c;
--c0:#6fa8ff;--c1:#ff9a57;--c2:#40cba9;--c3:#f07fd2;--c4:#ddb83f;--c5:#aa92ff;--c6:#ff7b90;--c7:#a1b9ca}}
*{box-sizing:border-box}
body{margin:0;padding:20px;background:var(--bg);color:var(--ink);font:14px/1.45 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
main{max-width:1180px;margin:0 auto}
h1{font-size:20px;margin:0 0 4px;overflow-wrap:anywhere}
h2{font-size:16px;margin:26px 0 8px}
h3{font-size:14px;margin:16px 0 6px}
pre{margin:0;white-space:pre-wrap;overflow-wrap:anywhere;font:12.5px/1.45 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
.legend{display:flex;flex-wrap:wrap;gap:4px 18px;margin:0 0 14px;padding:0;list-style:none}
.legend li{display:flex;align-items:center;gap:7px;overflow-wrap:anywhere;min-width:0}
.legend i{flex:none;width:14px;height:14px;border-radius:3px;background:currentColor}
.wide{overflow-x:auto;background:var(--card);border:1px solid var(--edge);border-radius:8px;margin-bottom:16px}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{padding:5px 14px;text-align:left;vertical-align:top;border-top:1px solid var(--grid)}
thead th{border-top:0;min-width:96px;max-width:320px;overflow-wrap:anywhere}
tbody th{font-weight:400;color:var(--soft);white-space:nowrap;position:sticky;left:0;background:var(--card)}
.grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,500px),1fr));gap:14px}
figure{position:relative;margin:0;padding:10px 12px 6px;background:var(--card);border:1px solid var(--edge);border-radius:8px;min-width:0}
figcaption{font-weight:600;display:flex;flex-wrap:wrap;justify-content:space-between;gap:2px 14px;overflow-wrap:anywhere}
.kinds{display:flex;flex-wrap:wrap;gap:2px 14px;font-weight:400;color:var(--soft);font-size:12.5px}
.kinds span{display:flex;align-items:center;gap:6px}
.key{width:24px;height:12px;color:var(--soft)}
.note,.notes{margin:2px 0 0;color:var(--soft);font-size:12.5px}
.notes{margin-top:18px;padding-left:18px;overflow-wrap:anywhere}
svg.plot{display:block;width:100%;height:auto;margin-top:4px;touch-action:pan-y}
.t{font-size:11.5px;fill:var(--soft)}
.rule{stroke:var(--grid);stroke-width:1}
path{fill:none;stroke:currentColor;vector-effect:non-scaling-stroke}
path.axis{stroke:var(--soft);stroke-width:1}
.line{stroke-width:1.8;stroke-linejoin:round;stroke-linecap:round}
.dash{stroke-dasharray:6 4}
.faint{stroke-width:1;stroke-opacity:.28;stroke-linejoin:round;stroke-linecap:round}
.dots{stroke-width:5.5;stroke-linecap:round}
.cursor{stroke:var(--soft);stroke-width:1;stroke-dasharray:3 3}
.c0{color:var(--c0)}.c1{color:var(--c1)}.c2{color:var(--c2)}.c3{color:var(--c3)}.c4{color:var(--c4)}.c5{color:var(--c5)}.c6{color:var(--c6)}.c7{color:var(--c7)}
image{image-rendering:pixelated}
.back{fill:var(--grid);fill-opacity:.6}
.box{fill:none;stroke:var(--edge)}
.scale{display:flex;flex-wrap:wrap;align-items:center;gap:4px 14px;margin:0 0 8px;color:var(--soft)}
.scale svg{width:250px;height:32px}
.tip{position:absolute;z-index:2;pointer-events:none;background:var(--card);border:1px solid var(--edge);border-radius:6px;padding:5px 9px;font-size:12.5px;box-shadow:0 3px 12px rgba(0,0,0,.22);max-width:90%;font-variant-numeric:tabular-nums}
.tip div{display:flex;gap:12px;justify-content:space-between}
.tip span{overflow-wrap:anywhere}
@media (max-width:620px){body{padding:10px}table{font-size:12px}thead th{min-width:58px;font-size:11px}tbody th{white-space:normal;min-width:76px}.t{font-size:16px}.plot .name{font-size:16px}th,td{padding:5px 3px}th:first-child{padding-left:8px}figure{padding:8px 6px 4px}figcaption{padding:0 4px}.scale .t{font-size:12px}}
@media print{body{background:none}figure{break-inside:avoid}}
)css";

const char* const kPageScript = R"js(
'use strict';
const number=v=>v===null?'not finite':Math.abs(v)>=1e5||v!==0&&Math.abs(v)<1e-3?v.toExponential(3):String(+v.toPrecision(5));
const whole=v=>Math.abs(v)>=100?Math.round(v).toLocaleString('en'):String(+v.toPrecision(4));
function tip(figure,event,rows,title){
  let box=figure.querySelector('.tip');
  if(!box){box=document.createElement('div');box.className='tip';figure.append(box);}
  box.replaceChildren();
  const head=document.createElement('div');head.textContent=title;box.append(head);
  for(const [name,value,colour] of rows){
    const row=document.createElement('div'),a=document.createElement('span'),b=document.createElement('b');
    a.textContent=name;b.textContent=value;if(colour!==undefined)row.className='c'+colour;
    row.append(a,b);box.append(row);
  }
  const area=figure.getBoundingClientRect(),x=event.clientX-area.left;
  const left=x<area.width/2?x+14:x-14-box.offsetWidth;
  box.style.left=Math.max(4,Math.min(area.width-box.offsetWidth-4,left))+'px';
  box.style.top=Math.max(4,Math.min(area.height-box.offsetHeight-4,event.clientY-area.top-20))+'px';
}
function place(svg,event){return new DOMPoint(event.clientX,event.clientY).matrixTransform(svg.getScreenCTM().inverse());}
function leave(figure){
  figure.addEventListener('pointerleave',()=>{
    figure.querySelector('.tip')?.remove();figure.querySelector('.cursor')?.setAttribute('d','');
  });
}
for(const figure of document.querySelectorAll('figure.chart')){
  const svg=figure.querySelector('svg.plot'),data=JSON.parse(figure.querySelector('script').textContent);
  const height=svg.viewBox.baseVal.height;
  svg.addEventListener('pointermove',event=>{
    const at=Math.min(1,Math.max(0,(place(svg,event).x-data.at)/data.wide)),x=data.x0+at*(data.x1-data.x0),rows=[];
    for(const curve of data.curves){
      let low=0,high=curve.x.length-1;
      while(low<high){const middle=low+high>>1;if(curve.x[middle]<x)low=middle+1;else high=middle;}
      if(low>0&&x-curve.x[low-1]<curve.x[low]-x)low--;
      rows.push([curve.name,number(curve.y[low])+(curve.y[low]===null?'':data.unit),curve.c]);
    }
    svg.querySelector('.cursor').setAttribute('d',`M${data.at+at*data.wide} 12V${height-48}`);
    tip(figure,event,rows,data.label+' '+whole(x));
  });
  leave(figure);
}
for(const figure of document.querySelectorAll('figure.heat')){
  const svg=figure.querySelector('svg.plot'),d=figure.dataset,n=k=>Number(d[k]);
  const bytes=atob(figure.querySelector('image').getAttribute('href').split(',')[1]);
  svg.addEventListener('pointermove',event=>{
    const p=place(svg,event),across=(p.x-n('at'))/n('wide'),down=(p.y-n('top'))/n('high');
    if(across<0||across>=1||down<0||down>=1)return;
    const column=Math.floor(across*n('columns')),expert=Math.floor(down*n('experts'));
    const level=bytes.charCodeAt(n('first')+expert*(n('columns')+1)+column);
    const ratio=level===64?'no tokens':level===0?'0':(level===1?'≤ ':level===63?'≥ ':'')+(2**((level-32)/15.5)).toFixed(2);
    tip(figure,event,[['tokens / mean',ratio]],`expert ${expert}, ${d.label} ${whole(n('x0')+across*(n('x1')-n('x0')))}`);
  });
  leave(figure);
}
)js";

std::string page_html(const std::string& title, const std::string& body) {
  return cat(
      "<!doctype html>\n<html lang=en><head><meta charset=utf-8>"
      "<meta name=viewport content=\"width=device-width,initial-scale=1\">"
      "<meta http-equiv=Content-Security-Policy content=\"default-src 'none';style-src 'unsafe-inline';"
      "script-src 'unsafe-inline';img-src data:\">\n<title>",
      escape_xml(title), "</title>\n<style>", kPageStyle, "</style></head>\n<body><main>\n<h1>",
      escape_xml(title), "</h1>\n", body, "</main>\n<script>", kPageScript, "</script></body></html>\n");
}

}  // namespace hadal
