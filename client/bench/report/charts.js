// Plots as SVG: lines, steps and dots over linear or logarithmic axes.
'use strict';

const SVG = 'http://www.w3.org/2000/svg';

function svgElement(parent, name, attributes, text) {
  const node = document.createElementNS(SVG, name);
  for (const key in attributes) node.setAttribute(key, attributes[key]);
  if (text !== undefined) node.textContent = text;
  parent.appendChild(node);
  return node;
}

const colorOf = index => `var(--s${index % 8})`;

// About `count` round numbers that span [low, high].
function linearTicks(low, high, count) {
  const raw = (high - low) / count || 1;
  const power = Math.pow(10, Math.floor(Math.log10(raw)));
  const step = [1, 2, 5, 10].map(m => m * power).find(s => s >= raw);
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; ++i) {
    ticks.push(i * step);
  }
  return ticks;
}

// Powers of ten, with 2 and 5 between them where there is room.
function logTicks(low, high, count) {
  const decades = Math.log10(high / low);
  const marks = decades > count ? [1] : decades * 3 > count ? [1, 3] : [1, 2, 5];
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); ++power) {
    for (const mark of marks) {
      const tick = mark * Math.pow(10, power);
      if (tick >= low * 0.999 && tick <= high * 1.001) ticks.push(tick);
    }
  }
  return ticks.length > 1 ? ticks : [low, high];
}

function makeScale(low, high, from, to, log) {
  if (!(high > low)) high = log ? low * 2 : low + 1;
  const map = log ? Math.log : value => value;
  const scale = value => from + (map(value) - map(low)) / (map(high) - map(low)) * (to - from);
  scale.invert = pixel => {
    const mapped = map(low) + (pixel - from) / (to - from) * (map(high) - map(low));
    return log ? Math.exp(mapped) : mapped;
  };
  scale.low = low;
  scale.high = high;
  return scale;
}

// Draws into `parent`. options: title, xTitle, yTitle, xFormat, yFormat, xLog, yLog, yMax, xRange,
// height, shade ([from, to] on x), series: [{name, color, points: [[x, y], ...], intervals: [[x, low,
// high], ...], dots, step, width}]. Points with a missing coordinate break a line.
function drawChart(parent, options) {
  const width = options.width || 540;
  const height = options.height || 260;
  const margin = {left: 58, right: 14, top: 10, bottom: 40};
  const holder = document.createElement('div');
  if (options.wide) holder.className = 'wide';
  parent.appendChild(holder);
  if (options.title) {
    const title = document.createElement('h3');
    title.textContent = options.title;
    holder.appendChild(title);
  }
  const usable = (x, y) => Number.isFinite(x) && Number.isFinite(y) && x !== null && y !== null &&
      (!options.xLog || x > 0) && (!options.yLog || y > 0);
  const points = [];
  for (const series of options.series) {
    const ends = (series.intervals || []).flatMap(([x, low, high]) => [[x, low], [x, high]]);
    for (const [x, y] of [...series.points, ...ends]) if (usable(x, y)) points.push([x, y]);
  }
  if (points.length === 0) {
    const none = document.createElement('p');
    none.className = 'about';
    none.textContent = 'Nothing was measured.';
    holder.appendChild(none);
    return;
  }
  let [xLow, xHigh] = options.xRange || [Infinity, -Infinity];
  let yLow = options.yLog ? Infinity : 0;
  let yHigh = options.yMax || 0;
  for (const [x, y] of points) {
    if (!options.xRange) { xLow = Math.min(xLow, x); xHigh = Math.max(xHigh, x); }
    yLow = Math.min(yLow, y);
    if (!options.yMax) yHigh = Math.max(yHigh, y);
  }
  if (!options.yMax) yHigh = options.yLog ? yHigh * 1.1 : yHigh * 1.06 || 1;
  if (options.yLog) yLow /= 1.1;
  const svg = svgElement(holder, 'svg', {viewBox: `0 0 ${width} ${height}`, role: 'img',
                                         'aria-label': options.title || options.yTitle});
  const x = makeScale(xLow, xHigh, margin.left, width - margin.right, options.xLog);
  const y = makeScale(yLow, yHigh, height - margin.bottom, margin.top, options.yLog);
  const bottom = height - margin.bottom;

  if (options.shade) {
    const from = Math.max(x(options.shade[0]), margin.left);
    const to = Math.min(x(options.shade[1]), width - margin.right);
    svgElement(svg, 'rect', {x: from, y: margin.top, width: Math.max(0, to - from),
                             height: bottom - margin.top, fill: 'var(--card)'});
  }
  const yTicks = options.yLog ? logTicks(y.low, y.high, 6) : linearTicks(y.low, y.high, 5);
  for (const tick of yTicks) {
    svgElement(svg, 'line', {x1: margin.left, x2: width - margin.right, y1: y(tick), y2: y(tick),
                             class: 'grid'});
    svgElement(svg, 'text', {x: margin.left - 7, y: y(tick) + 4, 'text-anchor': 'end'},
               options.yFormat(tick));
  }
  const xCount = width / 90;
  const xTicks = options.xLog ? logTicks(x.low, x.high, xCount) : linearTicks(x.low, x.high, xCount);
  for (const tick of xTicks) {
    svgElement(svg, 'line', {x1: x(tick), x2: x(tick), y1: margin.top, y2: bottom, class: 'grid'});
    svgElement(svg, 'text', {x: x(tick), y: bottom + 15, 'text-anchor': 'middle'},
               options.xFormat(tick));
  }
  svgElement(svg, 'line', {x1: margin.left, x2: width - margin.right, y1: bottom, y2: bottom,
                           class: 'axis'});
  svgElement(svg, 'text', {x: (margin.left + width - margin.right) / 2, y: height - 6,
                           'text-anchor': 'middle'}, options.xTitle || '');
  const middle = (margin.top + bottom) / 2;
  svgElement(svg, 'text', {x: 12, y: middle, 'text-anchor': 'middle',
                           transform: `rotate(-90 12 ${middle})`}, options.yTitle || '');

  for (const series of options.series) {
    for (const [px, low, high] of series.intervals || []) {
      if (!usable(px, low) || !usable(px, high)) continue;
      svgElement(svg, 'line', {x1: x(px), x2: x(px), y1: y(low), y2: y(high), stroke: series.color,
                               'stroke-width': 5, opacity: 0.25});
    }
    if (series.dots) {
      for (const [px, py] of series.points) {
        if (!usable(px, py)) continue;
        svgElement(svg, 'circle', {cx: x(px).toFixed(1), cy: y(py).toFixed(1),
                                   r: series.radius || 2, fill: series.color,
                                   opacity: series.opacity || 0.55});
      }
      if (!series.line) continue;
    }
    let path = '';
    let last = null;
    for (const [px, py] of series.points) {
      if (!usable(px, py)) { last = null; continue; }
      const at = `${x(px).toFixed(1)} ${y(py).toFixed(1)}`;
      if (last === null) path += `M${at}`;
      else if (series.step) path += `H${x(px).toFixed(1)}V${y(py).toFixed(1)}`;
      else path += `L${at}`;
      last = py;
    }
    svgElement(svg, 'path', {d: path, fill: 'none', stroke: series.color,
                             'stroke-width': series.width || 1.8, 'stroke-linejoin': 'round'});
  }
  addTip(svg, options, x, y, usable, margin, width, bottom);
}

// The nearest point's values beside the pointer.
function addTip(svg, options, x, y, usable, margin, width, bottom) {
  const group = svgElement(svg, 'g', {visibility: 'hidden'});
  const dot = svgElement(group, 'circle', {r: 4, fill: 'none', stroke: 'var(--ink)'});
  const label = svgElement(group, 'text', {class: 'tip'});
  svg.addEventListener('mousemove', event => {
    const box = svg.getBoundingClientRect();
    const px = (event.clientX - box.left) / box.width * svg.viewBox.baseVal.width;
    const py = (event.clientY - box.top) / box.height * svg.viewBox.baseVal.height;
    let best = null;
    for (const series of options.series) {
      for (const [vx, vy] of series.points) {
        if (!usable(vx, vy)) continue;
        const distance = Math.hypot(x(vx) - px, (y(vy) - py) / 3);
        if (best === null || distance < best.distance) best = {distance, vx, vy, series};
      }
    }
    if (best === null || px < margin.left || py > bottom) {
      group.setAttribute('visibility', 'hidden');
      return;
    }
    group.setAttribute('visibility', 'visible');
    const cx = x(best.vx);
    dot.setAttribute('cx', cx);
    dot.setAttribute('cy', y(best.vy));
    const left = cx > width * 0.6;
    label.setAttribute('x', cx + (left ? -9 : 9));
    label.setAttribute('y', Math.max(y(best.vy) - 8, 20));
    label.setAttribute('text-anchor', left ? 'end' : 'start');
    const name = options.series.length > 1 ? `${best.series.name}: ` : '';
    label.textContent = `${name}${options.xFormat(best.vx)}, ${options.yFormat(best.vy)}`;
  });
  svg.addEventListener('mouseleave', () => group.setAttribute('visibility', 'hidden'));
}
