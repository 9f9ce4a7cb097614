// ---- The block of data, decoded -----------------------------------------------------------------

const data = JSON.parse(document.getElementById('data').textContent);
const { stacks, metrics } = data;
const STACKS = stacks.process.length;

/** Classes of names, in the order of the palette. */
const OWN = 0;
const LIBRARY = 1;
const LIBC = 2;
const CALL = 3;
const PROCESS = 4;
const CLASS_WORDS = ['own code', 'library', 'C library or allocator', 'allocator function', 'process'];

/** Names of boxes: of the frames, then of what is a box without being a frame. */
const names = data.strings.slice();
const nameClass = new Uint8Array(names.length + data.functions.length + data.processes.length + 3).fill(LIBC);

function addName(text, kind) {
  nameClass[names.length] = kind;
  return names.push(text) - 1;
}

const frameName = Int32Array.from(data.frames.name);
const frameClass = Uint8Array.from(data.frames.class);
frameName.forEach((name, frame) => {
  nameClass[name] = Math.min(nameClass[name], frameClass[frame]);
});
const functionName = data.functions.map((name) => addName(name, CALL));
const MARKERS = [-1, addName('[truncated]', PROCESS), addName('[stack lost]', PROCESS)];
const roots = new Map();
const rootName = data.processes.map(({ root }) => {
  if (!roots.has(root)) roots.set(root, addName(root, PROCESS));
  return roots.get(root);
});
const NAMES = names.length;

/** The frames of stack `i`, outer ones first: `path[pathStart[i]]` up to `path[pathStart[i + 1]]`. */
const pathStart = new Int32Array(STACKS + 1);
for (let i = 0; i < STACKS; i++) pathStart[i + 1] = pathStart[i] + stacks.shared[i] + stacks.added[i];
const path = new Int32Array(pathStart[STACKS]);
let longest = 0;
for (let i = 0, next = 0; i < STACKS; i++) {
  const start = pathStart[i];
  for (let k = 0; k < stacks.shared[i]; k++) path[start + k] = path[pathStart[i - 1] + k];
  for (let k = 0; k < stacks.added[i]; k++) path[start + stacks.shared[i] + k] = stacks.frames[next++];
  longest = Math.max(longest, pathStart[i + 1] - start);
}

/** The names of one stack, outer ones first, and the frames behind them (-1 for none). */
const line = new Int32Array(longest + 3);
const lineFrame = new Int32Array(longest + 3);

/** Fills `line` with the names of a stack, of own code alone if asked; returns their number. */
function spell(stack, ownOnly) {
  let length = 0;
  const push = (name, frame) => {
    line[length] = name;
    lineFrame[length++] = frame;
  };
  push(rootName[stacks.process[stack]], -1);
  if (stacks.walk[stack]) push(MARKERS[stacks.walk[stack]], -1);
  const before = length;
  for (let k = pathStart[stack]; k < pathStart[stack + 1]; k++) {
    const frame = path[k];
    if (!ownOnly || frameClass[frame] === OWN) push(frameName[frame], frame);
  }
  const site = stacks.site[stack];
  if (length === before && site >= 0) push(frameName[site], site);
  push(functionName[stacks.function[stack]], -1);
  return length;
}

/** The start of each stack's entries in a histogram. */
function starts(column) {
  const at = new Int32Array(STACKS);
  for (let i = 0, next = 0; i < STACKS; i++) {
    at[i] = next;
    next += 1 + 2 * column[next];
  }
  return at;
}

const histograms = data.histograms && ['sizes', 'lifetimes'].map((name) => ({
  name,
  column: data.histograms[name],
  at: starts(data.histograms[name]),
}));

// ---- Figures as people read them, as in memtap's tables -----------------------------------------

const UNITS = ['KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB', 'ZiB', 'YiB'];
const NONE = '–';

function group(count) {
  return Math.round(count).toLocaleString('en-US');
}

function bytes(count) {
  if (Math.round(count) < 1024) return `${Math.round(count)} B`;
  let unit = -1;
  let tenths = 0;
  do {
    unit++;
    tenths = Math.round((count * 10) / 1024 ** (unit + 1));
  } while (tenths >= 10240 && unit < UNITS.length - 1);
  return `${group(Math.floor(tenths / 10))}.${tenths % 10} ${UNITS[unit]}`;
}

function signedBytes(change) {
  const sign = change > 0 ? '+' : change < 0 ? '-' : '';
  return sign + bytes(Math.abs(change));
}

function percent(part, whole) {
  if (!(whole > 0)) return NONE;
  const tenths = Math.round((part * 1000) / whole);
  if (tenths === 0 && part > 0) return '<0.1 %';
  return `${(part < whole ? Math.min(tenths, 999) / 10 : tenths / 10).toFixed(1)} %`;
}

function counted(count, noun) {
  const plural = count === 1 ? '' : /(s|x|ch)$/.test(noun) ? 'es' : 's';
  return `${group(count)} ${noun}${plural}`;
}

function duration(seconds) {
  const whole = Math.floor(seconds);
  const two = (number) => String(number).padStart(2, '0');
  if (seconds < 1) return `${seconds.toFixed(2)} s`;
  if (whole < 120) return `${seconds.toFixed(1)} s`;
  if (whole < 7200) return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
  return `${Math.floor(whole / 3600)} h ${two(Math.floor(whole / 60) % 60)} min`;
}

function microseconds(count) {
  if (count < 1000) return `${count} µs`;
  return count < 1e6 ? `${Math.floor(count / 1000)} ms` : duration(count / 1e6);
}

/** The margin of an estimate: 1.96 standard errors, in percent of it. */
function margin(value, variance) {
  if (!(value > 0) || !(variance > 0)) return '';
  const share = (196 * Math.sqrt(variance)) / value;
  if (share < 0.05) return '±<0.1 %';
  if (share < 9.95) return `±${share.toFixed(1)} %`;
  return share < 99.5 ? `±${share.toFixed(0)} %` : '±>100 %';
}

function amount(metric, value) {
  return metric.bytes ? bytes(value) : counted(Math.round(value), metric.noun);
}

/** File and line of a frame; '' where they are not known. */
function place(frame, isShort) {
  const file = frame < 0 ? -1 : data.frames.file[frame];
  if (file < 0) return '';
  const text = data.strings[file];
  return `${isShort ? text.slice(text.lastIndexOf('/') + 1) : text}:${data.frames.line[frame]}`;
}

function moduleOf(frame) {
  const module = frame < 0 ? -1 : data.frames.module[frame];
  return module < 0 ? '' : data.strings[module];
}

