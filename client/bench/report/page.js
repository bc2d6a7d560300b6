// The page: from the reports' JSON to tables and plots.

const data = JSON.parse(document.getElementById('data').textContent);
const runs = data.runs;
const page = document.getElementById('page');
const several = runs.length > 1;

function element(parent, name, className, text) {
  const node = document.createElement(name);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  parent.appendChild(node);
  return node;
}

const known = value => typeof value === 'number' && Number.isFinite(value);

function formatSeconds(value) {
  if (!known(value)) return '–';
  const size = Math.abs(value);
  if (size === 0) return '0';
  if (size >= 100) return `${value.toFixed(0)} s`;
  if (size >= 1) return `${Number(value.toPrecision(3))} s`;
  if (size >= 1e-3) return `${Number((value * 1e3).toPrecision(3))} ms`;
  return `${Number((value * 1e6).toPrecision(3))} µs`;
}

function formatNumber(value) {
  if (!known(value)) return '–';
  if (Math.abs(value) >= 1e9) return `${Number((value / 1e9).toPrecision(3))} G`;
  if (Math.abs(value) >= 1e6) return `${Number((value / 1e6).toPrecision(3))} M`;
  if (Math.abs(value) >= 1e4) return `${Number((value / 1e3).toPrecision(3))} k`;
  return String(Number(value.toPrecision(4)));
}

const formatFor = unit => unit === 's' ? formatSeconds : formatNumber;
const formatShare = value => known(value) ? `${Number((value * 100).toPrecision(4))}%` : '–';

function rangeText(estimate, format) {
  if (!known(estimate.low) && !known(estimate.high)) return '';
  if (!known(estimate.high)) return `≥ ${format(estimate.low)}`;
  if (!known(estimate.low)) return `≤ ${format(estimate.high)}`;
  return `${format(estimate.low)} to ${format(estimate.high)}`;
}

const loadName = run => run.config.arrivals ||
    `${run.config.concurrency} stream${run.config.concurrency === 1 ? '' : 's'}`;
const labels = runs.map(r => r.label);
const runName = run => labels.filter(l => l === run.label).length > 1
    ? (labels.every(l => l === run.label) ? loadName(run) : `${run.label}, ${loadName(run)}`)
    : run.label;

function section(title, about) {
  element(page, 'h2', '', title);
  if (about) element(page, 'p', 'about', about);
}

function legend(series) {
  if (series.length < 2) return;
  const list = element(page, 'div', 'legend');
  for (const {name, color} of series) {
    const item = element(list, 'span', '');
    element(item, 'i', '').style.background = color;
    item.appendChild(document.createTextNode(name));
  }
}

const runSeries = runs.map((run, i) => ({name: runName(run), color: colorOf(i)}));
const median = metric => metric.quantiles[0];
const p99 = metric => metric.quantiles[3];

function addHeader() {
  const names = [...new Set(labels)];
  element(page, 'h1', '', names.join(' and '));
  document.title = `liger-bench: ${names.join(', ')}`;
  const run = runs[0];
  const servers = [...new Set(runs.map(r => r.config.server))].join(', ');
  const model = run.server && run.server.name ? `, ${run.server.name}` : '';
  element(page, 'p', 'sub', several
      ? `${runs.length} runs, ${servers}${model}, from ${run.started}`
      : `${loadName(run)}, ${servers}${model}, ${run.started}; measured for ` +
        `${formatSeconds(run.window.end - run.window.start)} after ` +
        `${formatSeconds(run.config.warmup)} of warm-up`);
  const notes = [];
  for (const r of runs) {
    for (const warning of r.warnings) {
      notes.push(several ? `${runName(r)}: ${warning}` : warning);
    }
  }
  if (notes.length > 0) {
    const box = element(page, 'div', 'notes');
    for (const note of notes.slice(0, 12)) element(box, 'p', '', note);
    if (notes.length > 12) element(box, 'p', '', `... and ${notes.length - 12} further notes.`);
  }
}

function addTiles(run) {
  const tiles = element(page, 'div', 'tiles');
  const tile = (name, estimate, format) => {
    const box = element(tiles, 'div', 'tile');
    element(box, 'div', 'name', name);
    element(box, 'div', 'value', format(estimate.value));
    element(box, 'div', 'range', rangeText(estimate, format) || '\u00a0');
  };
  tile('Tokens a second', run.throughput.tokens_per_second, formatNumber);
  tile('Requests a second', run.throughput.requests_per_second, formatNumber);
  tile('First token, median', median(run.metrics.ttft), formatSeconds);
  tile('First token, p99', p99(run.metrics.ttft), formatSeconds);
  tile('Per output token, median', median(run.metrics.tpot), formatSeconds);
  if (Object.keys(run.goodput.goals).length > 0) {
    tile('Requests in goal', run.goodput.share, formatShare);
  }
}

function addRow(table, cells, tag) {
  const row = element(table, 'tr');
  for (const cell of cells) {
    if (typeof cell === 'string') { element(row, tag || 'td', '', cell); continue; }
    const node = element(row, 'td', cell.className || '', cell.text);
    if (cell.range) element(node, 'span', 'range', cell.range);
    if (cell.hint) element(node, 'span', 'hint', cell.hint);
  }
}

const cell = (estimate, format) =>
    ({text: format(estimate.value), range: rangeText(estimate, format)});

function newTable() { return element(element(page, 'div', 'scroll'), 'table'); }

function addRunsTable() {
  section('Runs', 'Under each value its 95% confidence interval. Latencies count from the time a ' +
          'request should have been sent.');
  const table = newTable();
  addRow(table, ['', 'Tokens/s', 'Requests/s', 'First token p50', 'p99', 'Per token p50', 'p99',
                 'End to end p99', 'In goal', 'Failed'], 'th');
  for (const run of runs) {
    const m = run.metrics;
    addRow(table, [
      {text: runName(run), hint: runName(run) === loadName(run) ? '' : loadName(run)},
      cell(run.throughput.tokens_per_second, formatNumber),
      cell(run.throughput.requests_per_second, formatNumber),
      cell(median(m.ttft), formatSeconds), cell(p99(m.ttft), formatSeconds),
      cell(median(m.tpot), formatSeconds), cell(p99(m.tpot), formatSeconds),
      cell(p99(m.e2e), formatSeconds),
      Object.keys(run.goodput.goals).length ? cell(run.goodput.share, formatShare) : '–',
      String(run.counts.errors)]);
  }
  if (data.search) {
    element(page, 'p', '', `Highest rate with ${formatShare(data.search.share)} of requests in ` +
            `goal: ${formatNumber(data.search.highest_kept)} a second ` +
            `(failed at ${formatNumber(data.search.lowest_failed)}).`);
  }
}

function addMetricTable(run) {
  section('Latencies', 'Of requests that succeeded. Under each value its 95% confidence interval, ' +
          'which allows for requests that depend on each other; a bound that the sample is too ' +
          'small to give is left out.');
  const table = newTable();
  addRow(table, ['', 'Mean', 'Median', 'p90', 'p95', 'p99', 'p99.9', 'Max'], 'th');
  for (const info of data.metric_info) {
    const metric = run.metrics[info.name];
    if (metric.count === 0) continue;
    const format = formatFor(info.unit);
    addRow(table, [{text: info.title, hint: info.about}, cell(metric.mean, format),
                   ...metric.quantiles.map(q => cell(q, format)), format(metric.max)]);
  }
}

function addCurves() {
  section('Distributions', 'The share of requests (for inter-token latency: of gaps) at or below ' +
          'a latency.');
  legend(runSeries);
  const charts = element(page, 'div', 'charts');
  for (const name of ['ttft', 'tpot', 'itl', 'e2e']) {
    const info = data.metric_info.find(m => m.name === name);
    const series = runs.map((run, i) => ({
      ...runSeries[i],
      points: run.metrics[name].curve.map((v, j) => [v, run.curve_probabilities[j]]),
    }));
    const values = series.flatMap(s => s.points.map(p => p[0])).filter(v => known(v) && v > 0);
    const low = Math.min(...values);
    const log = Math.max(...values) > 8 * low;
    drawChart(charts, {title: info.title, series, xLog: log, yMax: 1,
                       xFormat: formatSeconds, yFormat: v => `${Math.round(v * 1000) / 10}%`,
                       yTitle: 'at or below'});
  }
}

// What a run's load was, as a number: streams, or requests a second.
function loadOf(run) {
  if (!run.config.arrivals) return run.config.concurrency;
  return Number(run.config.arrivals.split(':')[1]);
}

function addLoadCurves() {
  const closed = runs.every(r => !r.config.arrivals);
  const open = runs.every(r => /^(poisson|constant|gamma)/.test(r.config.arrivals));
  const loads = new Set(runs.map(loadOf));
  if (!(closed || open) || loads.size < 2) return;
  section('Load', 'Each dot is a run, with its 95% confidence interval.');
  const groups = [...new Set(labels)].map((label, i) => ({
    name: label, color: colorOf(i),
    runs: runs.filter(r => r.label === label).sort((a, b) => loadOf(a) - loadOf(b)),
  }));
  legend(groups);
  const charts = element(page, 'div', 'charts');
  const chart = (title, xOf, pick, format, xTitle, xFormat, yLog) => {
    const series = groups.map(g => ({
      name: g.name, color: g.color, dots: true, line: true, radius: 3.5, opacity: 1,
      points: g.runs.map(r => [xOf(r), pick(r).value]),
      intervals: g.runs.map(r => [xOf(r), pick(r).low, pick(r).high]),
    }));
    drawChart(charts, {title, series, xTitle, xFormat, yFormat: format, yLog,
                       xLog: xOf === loadOf && closed});
  };
  const loadTitle = closed ? 'streams at once' : 'requests offered a second';
  const tokens = run => run.throughput.tokens_per_second.value;
  chart('Tokens a second', loadOf, r => r.throughput.tokens_per_second, formatNumber, loadTitle,
        formatNumber);
  chart('Time to first token, p99', loadOf, r => p99(r.metrics.ttft), formatSeconds, loadTitle,
        formatNumber, true);
  chart('Time per output token, median', tokens, r => median(r.metrics.tpot), formatSeconds,
        'tokens a second', formatNumber);
  chart('Time to first token, median', tokens, r => median(r.metrics.ttft), formatSeconds,
        'tokens a second', formatNumber, true);
}

// Sums `bins` into at most `count` wider ones and gives [time, rate a second].
function rates(bins, seconds, count) {
  const width = Math.max(1, Math.ceil(bins.length / count));
  const points = [];
  for (let i = 0; i < bins.length; i += width) {
    const slice = bins.slice(i, i + width);
    const sum = slice.reduce((a, b) => a + b, 0);
    points.push([(i + slice.length / 2) * seconds, sum / (slice.length * seconds)]);
  }
  return points;
}

// [time, requests that were under way], as steps.
function underWay(requests) {
  const changes = [];
  requests.sent.forEach((time, i) => {
    changes.push([time, 1]);
    if (known(requests.end[i])) changes.push([requests.end[i], -1]);
  });
  changes.sort((a, b) => a[0] - b[0]);
  let now = 0;
  return changes.map(([time, change]) => [time, now += change]);
}

function addTimeline() {
  section('Over time', several ? '' : 'The shaded part is what was measured.');
  legend(runSeries);
  const charts = element(page, 'div', 'charts');
  const shade = several ? null : [runs[0].window.start, runs[0].window.end];
  const last = Math.max(...runs.map(r => r.timeline.tokens.length * r.timeline.bin_seconds),
                        ...runs.map(r => r.window.end));
  const common = {xFormat: v => `${Number(v.toPrecision(4))} s`, xTitle: 'since the start', shade,
                  wide: true, width: 1080, height: 220, xRange: [0, last]};
  drawChart(charts, {...common, title: 'Tokens a second', yFormat: formatNumber,
    series: runs.map((run, i) => ({...runSeries[i], width: 1.4,
                                   points: rates(run.timeline.tokens, run.timeline.bin_seconds,
                                                 180)}))});
  const whole = runs.every(r => r.requests.sent.length === r.counts.sent);
  if (whole) {
    drawChart(charts, {...common, title: 'Requests under way', yFormat: formatNumber,
      series: runs.map((run, i) => ({...runSeries[i], step: true, width: 1.4,
                                     points: underWay(run.requests)}))});
  }
  const dots = runs.map((run, i) => ({...runSeries[i], dots: true, radius: 2.6,
    points: run.requests.sent.map((_, j) => run.requests.outcome[j] === 'OK'
        ? [run.requests.intended[j], run.requests.first_token[j] - run.requests.intended[j]]
        : [null, null])}));
  const failed = runs.map(run => ({name: 'failed', color: 'var(--bad)', dots: true, radius: 3,
    opacity: 0.9,
    points: run.requests.sent.map((_, j) => {
      const outcome = run.requests.outcome[j];
      const bad = outcome !== 'OK' && outcome !== 'cancelled';
      return bad ? [run.requests.intended[j], run.requests.end[j] - run.requests.intended[j]]
                 : [null, null];
    })}));
  drawChart(charts, {...common, title: 'Time to first token of each request' +
                     (runs.some(r => r.counts.errors) ? ' (red: failed, its whole time)' : ''),
                     yFormat: formatSeconds, series: [...dots, ...failed]});
}

function addErrors() {
  const rows = runs.flatMap(run => Object.entries(run.errors).map(([code, e]) => [run, code, e]));
  if (rows.length === 0) return;
  section('Errors');
  const table = newTable();
  addRow(table, [several ? 'Run' : 'Code', ...(several ? ['Code'] : []), 'Count', 'First at',
                 'The first one\u2019s message'], 'th');
  for (const [run, code, e] of rows) {
    addRow(table, [several ? runName(run) : code, ...(several ? [code] : []), String(e.count),
                   formatSeconds(e.first_at), {className: 'text', text: e.message}]);
  }
}

function addClient() {
  section('The client itself', 'A thread that is busy most of the time, or that waits for a ' +
          'processor, delays what it measures. Lateness is in the table of latencies.');
  const table = newTable();
  addRow(table, ['Thread', 'Busy', 'Waiting for a processor', 'Ran for'], 'th');
  for (const run of runs) {
    run.client.threads.forEach((thread, i) => addRow(table, [
      several ? `${runName(run)}, ${i}` : String(i), formatShare(thread.cpu_share),
      formatShare(thread.wait_share), formatSeconds(thread.wall_seconds)]));
  }
}

// Counters as rates, gauges as they are; what never changed is left out.
function addServerMetrics(run) {
  const times = run.scrape.seconds;
  const found = [];
  for (const [name, values] of Object.entries(run.scrape.series)) {
    const present = values.filter(known);
    if (present.length < 3 || present.every(v => v === present[0])) continue;
    const counter = /_(total|count|sum)(\{|$)/.test(name);
    const points = times.map((t, i) => {
      if (!counter) return [t, values[i]];
      return i === 0 ? [null, null]
                     : [t, (values[i] - values[i - 1]) / (times[i] - times[i - 1])];
    });
    found.push({name: counter ? `${name}, a second` : name, points});
  }
  // States first, then counters, then the sums of histograms; what is of the process itself last.
  const rank = ({name}) => (/^(process|exposer|go|python|promhttp)_/.test(name) ? 10 : 0) +
      (/_(sum|count)(\{|,)/.test(name) ? 2 : /, a second$/.test(name) ? 1 : 0);
  found.sort((a, b) => rank(a) - rank(b));
  if (found.length === 0) return;
  section('Server metrics', 'As the server exposes them, scraped each second; counters as rates.' +
          (found.length > 24 ? ` The first 24 of ${found.length} that changed.` : ''));
  const charts = element(page, 'div', 'charts small');
  for (const {name, points} of found.slice(0, 24)) {
    drawChart(charts, {title: name, width: 340, height: 170, xFormat: formatSeconds,
                       yFormat: formatNumber, xTitle: '',
                       series: [{name, color: colorOf(0), points}]});
  }
}

function addSetup() {
  section('Set-up');
  for (const run of runs) {
    const details = element(page, 'details');
    element(details, 'summary', '', several ? runName(run) : 'Configuration, host and server');
    element(details, 'pre', '', JSON.stringify(
        {command_line: run.command_line, config: run.config, host: run.host, server: run.server},
        null, 2));
  }
}

addHeader();
if (several) {
  addRunsTable();
  addLoadCurves();
} else {
  addTiles(runs[0]);
  addMetricTable(runs[0]);
}
addCurves();
if (runs.length <= 4) addTimeline();
addErrors();
addClient();
if (!several) addServerMetrics(runs[0]);
addSetup();
