// ---- Rows: sums of stacks that have something in common -----------------------------------------

const MARKS = data.aged && data.aged.marks;

/** The figures of some stacks. */
class Sums {
  constructor() {
    this.value = 0;
    this.self = 0;
    this.variance = 0;
    this.calls = 0;
    this.bytes = 0;
    this.live = 0;
    this.liveBytes = 0;
    this.oldest = 0;
    this.half = 0;
    this.kept = 0;
    this.marks = [0, 0, 0];
  }

  add(stack, metric) {
    this.value += metric.weights[stack];
    if (metric.variances) this.variance += metric.variances[stack] || 0;
    this.calls += stacks.calls[stack];
    this.bytes += stacks.bytes[stack];
    const { aged } = data;
    if (!aged) return;
    this.live += aged.live[stack];
    this.liveBytes += aged.live_bytes[stack];
    this.oldest = Math.max(this.oldest, aged.oldest_ms[stack]);
    this.half += aged.half_live[stack];
    this.kept += aged.kept[stack];
    for (let k = 0; k < 3; k++) this.marks[k] += aged.marks_bytes[k][stack];
  }

  get average() {
    return this.calls > 0 ? this.bytes / this.calls : 0;
  }

  get growth() {
    return this.liveBytes - this.marks[1];
  }

  /** The leak score in bytes, by the formula of `memtap live`. */
  get score() {
    if (!MARKS) return 0;
    const live = [0, ...this.marks, this.liveBytes];
    const times = [0, ...MARKS];
    const growth = (k) => {
      const time = times[k] - times[k - 1];
      return time > 0 ? ((live[k] - live[k - 1]) / time) * (MARKS[3] / 4) : 0;
    };
    const [second, third, fourth] = [growth(2), growth(3), growth(4)];
    const sustained = 2 * Math.min(third, fourth);
    if (sustained <= 0 || this.half === 0) return 0;
    const steady = second > 0 ? Math.min(1, (third + fourth) / (2 * second)) : 1;
    return Math.round(sustained * steady * Math.min(1, this.kept / this.half));
  }
}

/** A row of a table. */
class Row extends Sums {
  constructor(key, name, frame, label) {
    super();
    this.key = key;
    this.name = name;
    this.frame = frame;
    this.label = label;
    this.isMixed = false;
  }
}

function rowOf(rows, key, make) {
  let row = rows.get(key);
  if (!row) {
    row = make();
    rows.set(key, row);
  }
  return row;
}

function siteRows(visible, metric) {
  const rows = new Map();
  for (const stack of visible) {
    const site = stacks.site[stack];
    // One row for frames that differ in what is not shown.
    const key = site < 0 ? '' : `${frameName[site]}.${data.frames.file[site]}.${data.frames.line[site]}`;
    const make = () => (site < 0
      ? new Row(key, -1, -1, '[no frame outside the C library]')
      : new Row(key, frameName[site], site, names[frameName[site]]));
    rowOf(rows, key, make).add(stack, metric);
  }
  return [...rows.values()];
}

function functionRows(visible, metric, ownOnly) {
  const rows = new Array(NAMES);
  const seen = new Int32Array(NAMES).fill(-1);
  for (const stack of visible) {
    const length = spell(stack, ownOnly);
    for (let k = 0; k < length; k++) {
      const name = line[k];
      if (nameClass[name] === PROCESS) continue;
      if (!rows[name]) rows[name] = new Row(name, name, lineFrame[k], names[name]);
      else if (rows[name].frame !== lineFrame[k]) rows[name].isMixed = true;
      if (seen[name] === stack) continue;
      seen[name] = stack;
      rows[name].add(stack, metric);
    }
    // The site is among the names, also of own code alone.
    const site = stacks.site[stack];
    if (site >= 0) rows[frameName[site]].self += metric.weights[stack];
  }
  return rows.filter(Boolean);
}

function processRows(visible, metric) {
  const rows = new Map();
  for (const stack of visible) {
    const process = stacks.process[stack];
    const make = () => new Row(process, rootName[process], -1, data.processes[process].label);
    rowOf(rows, process, make).add(stack, metric);
  }
  return [...rows.values()];
}

/** Callers and callees of a function, each stack once for each of them. */
function neighbours(visible, metric, ownOnly, name) {
  const callers = new Map();
  const callees = new Map();
  const own = new Row(name, name, -1, names[name]);
  const lines = new Set();
  const modules = new Set();
  const through = [];
  for (const stack of visible) {
    const length = spell(stack, ownOnly);
    const [above, below] = [new Set(), new Set()];
    let has = false;
    for (let k = 0; k < length; k++) {
      if (line[k] !== name) continue;
      has = true;
      if (k > 0) above.add(line[k - 1]);
      if (k + 1 < length) below.add(line[k + 1]);
      if (lineFrame[k] >= 0) {
        if (place(lineFrame[k], false)) lines.add(place(lineFrame[k], false));
        if (moduleOf(lineFrame[k])) modules.add(moduleOf(lineFrame[k]));
      }
    }
    if (!has) continue;
    through.push(stack);
    own.add(stack, metric);
    const site = stacks.site[stack];
    if (site >= 0 && frameName[site] === name) own.self += metric.weights[stack];
    for (const [rows, found] of [[callers, above], [callees, below]]) {
      for (const other of found) rowOf(rows, other, () => new Row(other, other, -1, names[other])).add(stack, metric);
    }
  }
  const heaviest = (rows) => [...rows.values()].sort((a, b) => b.value - a.value || a.key - b.key);
  return { own, lines, modules, through, callers: heaviest(callers), callees: heaviest(callees) };
}

/** Sums of the buckets of some stacks. */
function buckets(histogram, some) {
  const sums = [];
  for (const stack of some) {
    const at = histogram.at[stack];
    for (let k = 0; k < histogram.column[at]; k++) {
      const bucket = histogram.column[at + 1 + 2 * k];
      sums[bucket] = (sums[bucket] || 0) + histogram.column[at + 2 + 2 * k];
    }
  }
  return sums;
}

// ---- Columns ------------------------------------------------------------------------------------

const METRIC_HEADS = {
  'alloc-bytes': 'Allocated',
  'alloc-count': 'Calls',
  'live-bytes': 'Live',
  'live-count': 'Live blocks',
  'freed-bytes': 'Freed',
  'temporary-count': 'Temporary',
  'peak-bytes': 'At peak',
  'region-bytes': 'Mapped',
};

/** The columns of figures of a table, without the name. */
function figureColumns(view, total, table) {
  const metric = metrics[view.metric];
  const head = METRIC_HEADS[metric.name] || metric.name;
  const value = (text) => (metric.bytes ? bytes(text) : group(text));
  const columns = [{ id: 'value', head: table === 'functions' ? `${head}, total` : head, of: (row) => row.value, show: value }];
  columns.push({ id: 'share', head: 'Share', of: (row) => row.value, show: (it) => percent(it, total) });
  if (metric.variances) {
    const relative = (row) => (row.value > 0 ? Math.sqrt(row.variance) / row.value : 0);
    columns.push({ id: 'margin', head: '±', of: relative, show: (_, row) => margin(row.value, row.variance) });
  }
  if (table === 'functions') {
    columns.push({ id: 'self', head: 'Self', of: (row) => row.self, show: (it) => (it > 0 ? value(it) : NONE) });
  }
  if (metric.name !== 'alloc-count') {
    columns.push({ id: 'calls', head: 'Calls', of: (row) => row.calls, show: group });
  }
  if (!data.aged && (!metric.bytes || metric.name.startsWith('alloc'))) {
    if (!metric.bytes) columns.push({ id: 'bytes', head: 'Allocated', of: (row) => row.bytes, show: bytes });
    columns.push({ id: 'average', head: 'Avg', of: (row) => row.average, show: bytes });
  }
  if (data.aged) {
    if (metric.name !== 'live-bytes') {
      columns.push({ id: 'live', head: 'Live', of: (row) => row.liveBytes, show: bytes });
    }
    if (metric.name.startsWith('live')) columns.push({ id: 'blocks', head: 'Blocks', of: (row) => row.live, show: group });
    columns.push({
      id: 'oldest', head: 'Oldest', of: (row) => row.oldest,
      show: (it, row) => (row.live > 0 ? duration(it / 1000) : NONE),
    });
    if (MARKS) {
      columns.push({ id: 'growth', head: 'Growth', of: (row) => row.growth, show: signedBytes });
      columns.push({ id: 'score', head: 'Score', of: (row) => row.score, show: bytes });
    }
  }
  return columns;
}

