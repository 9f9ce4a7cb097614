// ---- The view: what the address keeps -----------------------------------------------------------

const DEFAULT_SORT = { column: MARKS ? 'score' : 'value', up: false };
const TABS = [
  ['sites', 'Sites'],
  ['functions', 'Functions'],
  ['processes', 'Processes'],
  ...(histograms ? [['histograms', 'Sizes and lifetimes']] : []),
  ['recording', 'Recording'],
];
const SWITCHES = ['own', 'invert', 'icicle'];

/** What is shown where the address says nothing. */
function freshView() {
  return {
    metric: 0, search: '', filter: '', process: -1, function: -1, own: false, invert: false, icicle: false,
    zoom: [], range: null, selected: -1, row: '', tab: 'sites', sort: null, theme: '',
  };
}

/** The view of a fragment; what it does not know is as in a fresh one. */
function readView(fragment) {
  const view = freshView();
  const words = new URLSearchParams(fragment.replace(/^#/, ''));
  const among = (text, count) => (/^\d+$/.test(text || '') && Number(text) < count ? Number(text) : -1);
  view.metric = Math.max(metrics.findIndex(({ name }) => name === words.get('metric')), 0);
  view.search = words.get('search') || '';
  view.filter = words.get('filter') || '';
  view.process = among(words.get('process'), data.processes.length);
  view.function = data.functions.indexOf(words.get('function'));
  for (const name of SWITCHES) view[name] = words.get(name) === '1';
  view.zoom = (words.get('zoom') || '').split('.').map((text) => among(text, NAMES)).filter((name) => name >= 0);
  const range = (words.get('range') || '').split('-').map(Number);
  if (range.length === 2 && range[0] >= 0 && range[1] <= 1 && range[0] < range[1]) view.range = range;
  view.selected = among(words.get('selected'), NAMES);
  view.row = words.get('row') || '';
  if (TABS.some(([name]) => name === words.get('tab'))) view.tab = words.get('tab');
  const sort = /^(\w+)(\.up)?$/.exec(words.get('sort') || '');
  if (sort) view.sort = { column: sort[1], up: Boolean(sort[2]) };
  if (['light', 'dark'].includes(words.get('theme'))) view.theme = words.get('theme');
  return view;
}

/** The fragment of a view: what is as in a fresh one is left out. */
function writeView(view) {
  const words = new URLSearchParams();
  if (view.metric) words.set('metric', metrics[view.metric].name);
  for (const name of ['search', 'filter', 'theme']) if (view[name]) words.set(name, view[name]);
  if (view.process >= 0) words.set('process', view.process);
  if (view.function >= 0) words.set('function', data.functions[view.function]);
  for (const name of SWITCHES) if (view[name]) words.set(name, '1');
  if (view.zoom.length) words.set('zoom', view.zoom.join('.'));
  if (view.range) words.set('range', view.range.map((it) => it.toFixed(7)).join('-'));
  if (view.selected >= 0) words.set('selected', view.selected);
  if (view.row) words.set('row', view.row);
  if (view.tab !== 'sites') words.set('tab', view.tab);
  if (view.sort) words.set('sort', view.sort.column + (view.sort.up ? '.up' : ''));
  return words.toString();
}

// ---- The page -----------------------------------------------------------------------------------

let view = readView(location.hash);
let visible = new Int32Array(0);
let tree = null;
let rows = {};
let shown = PAGE;
const darkScheme = matchMedia('(prefers-color-scheme: dark)');

const graph = new Graph(
  { canvas: byId('canvas'), viewport: byId('viewport'), spacer: byId('spacer') },
  {
    choose(node) {
      view.zoom = tree.pathTo(node);
      view.range = null;
      select(Math.max(tree.name[node], -1));
      zoom();
      say(describe(node));
    },
    range() {
      const whole = tree.total[0] || 1;
      const isWhole = graph.from <= 0 && graph.to >= whole * (1 - 1e-9);
      view.zoom = [];
      view.range = isWhole ? null : [graph.from / whole, Math.min(graph.to / whole, 1)];
      afterZoom();
    },
    whole: unzoom,
    move: (node) => say(describe(node)),
    hover: showTip,
  },
);

/** The sums, the tree and the tables of the view: after a change of metric or filter. */
function compute() {
  visible = visibleStacks(view);
  tree = new CallTree(visible, view);
  rows = {};
  shown = PAGE;
  graph.setTree(tree, view.icicle);
  describeGraph();
  search();
  zoom();
  showSelection();
  showPanel();
}

/** The rows of a table, made when they are first shown. */
function rowsOf(table) {
  const make = { sites: siteRows, functions: functionRows, processes: processRows };
  rows[table] ||= make[table](visible, metrics[view.metric], view.own);
  return rows[table];
}

function keep() {
  const fragment = writeView(view);
  try {
    history.replaceState(null, '', fragment ? `#${fragment}` : location.pathname + location.search);
  } catch {
    // A browser that keeps no addresses for such a page: the view is there all the same.
  }
}

function zoom() {
  const whole = tree.total[0];
  if (view.range) graph.show(view.range[0] * whole, view.range[1] * whole);
  else graph.showNode(tree.nodeAt(view.zoom));
  afterZoom();
}

function afterZoom() {
  byId('unzoom').disabled = !view.range && !view.zoom.length;
  keep();
}

function unzoom() {
  view.zoom = [];
  view.range = null;
  zoom();
}

function search() {
  const { regex, error } = pattern(view.search);
  const field = byId('search');
  field.setAttribute('aria-invalid', error ? 'true' : 'false');
  const found = regex && matching(regex);
  graph.marked = found;
  graph.redraw();
  let text = [error];
  if (found) {
    const inTree = new Set();
    for (let node = 1; node < tree.count; node++) if (found[tree.name[node]]) inTree.add(tree.name[node]);
    const part = percent(tree.weightOf(found), tree.total[0]);
    text = [part === NONE ? '0.0 %' : part,
      element('span', { className: 'unseen' }, ` of the total, in ${counted(inTree.size, 'function')}`)];
    byId('matches').title = `of the total, in ${counted(inTree.size, 'function')}`;
  }
  byId('matches').replaceChildren(...text);
  const filter = pattern(view.filter.replace(/^!/, ''));
  byId('filter').setAttribute('aria-invalid', filter.error ? 'true' : 'false');
  keep();
}

// ---- What is said of a box ----------------------------------------------------------------------

function figures(node) {
  const metric = metrics[view.metric];
  const sure = tree.variance ? margin(tree.total[node], tree.variance[node]) : '';
  return `${amount(metric, tree.total[node])}, ${percent(tree.total[node], tree.total[0])}${sure ? `, ${sure}` : ''}`;
}

function whereabouts(node) {
  const at = place(tree.frame[node], false);
  return at && tree.isMixed[node] ? `${at} and other lines` : at;
}

function describe(node) {
  if (node <= 0) return `all: ${figures(0)}`;
  const at = whereabouts(node);
  return `${names[tree.name[node]]}: ${figures(node)}${at ? ` · ${at}` : ''}`;
}

function say(text) {
  byId('where').textContent = text;
}

function showTip(node, x, y) {
  const tip = byId('tip');
  tip.hidden = node < 0;
  if (node < 0) return;
  const name = tree.name[node];
  tip.replaceChildren(element('b', {}, name < 0 ? 'all' : names[name]), element('span', {}, figures(node)));
  const isInlined = tree.frame[node] >= 0 && data.frames.inlined[tree.frame[node]] === 1;
  for (const text of [whereabouts(node), moduleOf(tree.frame[node]), isInlined ? 'inlined into its caller' : '']) {
    if (text) tip.append(element('span', {}, text));
  }
  const room = byId('graph').getBoundingClientRect();
  tip.style.left = `${Math.max(4, Math.min(x + 14, room.width - tip.offsetWidth - 8))}px`;
  const below = y + 20;
  tip.style.top = `${below + tip.offsetHeight > room.height ? Math.max(2, y - tip.offsetHeight - 10) : below}px`;
}

/** The graph in words, for those who do not see it. */
function describeGraph() {
  const metric = metrics[view.metric];
  const heaviest = [];
  let node = 0;
  while (heaviest.length < 40 && tree.childrenOf(node).length) {
    [node] = tree.childrenOf(node);
    heaviest.push(`${names[tree.name[node]]} ${percent(tree.total[node], tree.total[0])}`);
  }
  const text = tree.count > 1
    ? `${metric.name}: ${amount(metric, tree.total[0])} in ${counted(visible.length, 'stack')}. Heaviest path: ${heaviest.join(', ')}.`
    : `${metric.name}: nothing to show.`;
  byId('graph-text').textContent = text;
  say(tree.count > 1 ? describe(0) : `nothing to show: no stack has ${metric.name} here`);
  const parts = [counted(visible.length, 'stack'), amount(metric, tree.total[0])];
  if (data.duration !== null) parts.push(duration(data.duration));
  if (data.sampled) parts.push('estimates');
  byId('summary').replaceChildren(parts.join(' · '), ' · ',
    data.lost > 0
      ? element('span', { className: 'lost' }, `${counted(data.lost, 'loss')}, see Recording`)
      : data.lost === 0 ? 'nothing lost' : 'losses not known');
}

// ---- Tables and the selection -------------------------------------------------------------------

const rowActions = {
  choose(row) {
    view.selected = row.name;
    // Of the rows of sites alone several have one name.
    view.row = typeof row.key === 'string' ? row.key : '';
    showSelection();
    const widest = tree.widest(row.name);
    if (widest >= 0) {
      graph.reveal(widest);
      say(describe(widest));
    }
  },
  zoom(row) {
    const widest = tree.widest(row.name);
    if (widest < 0) return;
    view.selected = row.name;
    view.zoom = tree.pathTo(widest);
    view.range = null;
    showSelection();
    zoom();
  },
};

function showTabs() {
  byId('tabs').replaceChildren(...TABS.map(([name, title], index) => element('button', {
    type: 'button',
    role: 'tab',
    id: `tab-${name}`,
    tabIndex: view.tab === name ? 0 : -1,
    'aria-selected': String(view.tab === name),
    'aria-controls': 'panel',
    onclick: () => openTab(name),
    onkeydown: (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      const [next] = TABS[(index + step + TABS.length) % TABS.length];
      openTab(next);
      byId(`tab-${next}`).focus();
      event.preventDefault();
    },
  }, title)));
  byId('panel').setAttribute('aria-labelledby', `tab-${view.tab}`);
}

function openTab(name) {
  const hadFocus = byId('tabs').contains(document.activeElement);
  view.tab = name;
  shown = PAGE;
  showTabs();
  if (hadFocus) byId(`tab-${name}`).focus();
  showPanel();
  keep();
}

function showPanel() {
  const panel = byId('panel');
  if (view.tab === 'recording') {
    panel.replaceChildren(factPanel());
    return;
  }
  if (view.tab === 'histograms') {
    const isSome = view.selected >= 0 && selection;
    panel.replaceChildren(histogramPanel(isSome ? selection.through : visible, isSome ? names[view.selected] : 'all that is shown'));
    return;
  }
  const top = panel.scrollTop;
  const titles = { sites: 'Sites', functions: 'Functions', processes: 'Processes' };
  const all = rowsOf(view.tab);
  const columns = figureColumns(view, tree.total[0], view.tab);
  const sort = view.sort || (view.tab === 'sites' ? DEFAULT_SORT : { column: 'value', up: false });
  if (!all.length) {
    panel.replaceChildren(element('p', { className: 'hint more' }, 'Nothing to show with these filters.'));
    return;
  }
  panel.replaceChildren(...rowTable(all, columns, sort, shown, {
    ...rowActions,
    caption: titles[view.tab],
    nameHead: { sites: 'Site', functions: 'Function', processes: 'Process' }[view.tab],
    sort(column, up) {
      view.sort = { column, up: sort.column === column ? !sort.up : up };
      showPanel();
      panel.querySelector('th[aria-sort] button').focus();
      keep();
    },
    more() {
      shown += PAGE;
      showPanel();
    },
  }));
  panel.scrollTop = top;
  markRows();
}

/** Marks the rows of the selection, and shows the first of them. */
function markRows() {
  let first = null;
  const marked = [...byId('panel').querySelectorAll('tbody tr')].filter((tr) => tr.row);
  for (const tr of marked) {
    const isSelected = view.selected >= 0 && tr.row.name === view.selected
      && (!view.row || view.tab !== 'sites' || tr.row.key === view.row);
    if (isSelected) tr.setAttribute('aria-current', 'true');
    else tr.removeAttribute('aria-current');
    tr.className = graph.marked && tr.row.name >= 0 && graph.marked[tr.row.name] ? 'match' : '';
    if (isSelected && !first) first = tr;
  }
  if (!first) return;
  for (const tr of marked) tr.tabIndex = tr === first ? 0 : -1;
  const panel = byId('panel');
  if (!panel.contains(document.activeElement)) {
    const head = panel.querySelector('thead').offsetHeight;
    if (first.offsetTop - head < panel.scrollTop) panel.scrollTop = first.offsetTop - head;
    const below = first.offsetTop + first.offsetHeight - panel.clientHeight;
    if (below > panel.scrollTop) panel.scrollTop = below;
  }
}

let selection = null;

function showSelection() {
  graph.selected = view.selected;
  graph.redraw();
  const into = byId('selected');
  selection = null;
  if (view.selected >= 0) {
    selection = neighbours(visible, metrics[view.metric], view.own, view.selected);
    into.replaceChildren(...selectionPanel(selection, view, tree.total[0], {
      ...rowActions,
      filter() {
        setField('filter', `^${names[view.selected].replace(/[\\^$.*+?()[\]{}|]/g, '\\$&')}$`);
      },
      clear: () => select(-1),
    }));
  } else {
    into.replaceChildren(element('p', { className: 'hint' },
      'Click a box or a row: its callers and callees are listed here. Press ? for the keys.'));
  }
  if (view.tab === 'histograms') showPanel();
  else markRows();
  keep();
}

function select(name) {
  view.selected = name;
  view.row = '';
  showSelection();
}

// ---- Controls -----------------------------------------------------------------------------------

function option(value, text) {
  return element('option', { value: String(value) }, text);
}

function fillControls() {
  byId('title').textContent = data.title;
  byId('metric').replaceChildren(...metrics.map(({ name }, index) => option(index, name)));
  byId('process').replaceChildren(option(-1, 'all'), ...data.processes.map(({ label }, index) => option(index, label)));
  byId('function').replaceChildren(option(-1, 'all'), ...data.functions.map((name, index) => option(index, name)));
}

/** Gives every control the value that the view has. */
function showControls() {
  for (const name of ['metric', 'process', 'function', 'search', 'filter']) byId(name).value = view[name];
  for (const name of SWITCHES) byId(name).checked = view[name];
  showTabs();
}

function showTheme() {
  const isDark = view.theme ? view.theme === 'dark' : darkScheme.matches;
  document.documentElement.dataset.theme = isDark ? 'dark' : 'light';
  byId('theme').textContent = isDark ? 'Light' : 'Dark';
  byId('theme').setAttribute('aria-label', isDark ? 'Light theme' : 'Dark theme');
  graph.setColours();
}

function toggleTheme() {
  view.theme = document.documentElement.dataset.theme === 'dark' ? 'light' : 'dark';
  showTheme();
  keep();
}

function setField(name, text) {
  byId(name).value = text;
  byId(name).dispatchEvent(new Event('input'));
}

function setMetric(metric) {
  view.metric = metric;
  if (view.range) view.range = null;
  showControls();
  compute();
}

function toggle(name) {
  view[name] = !view[name];
  // A path from the other end is none.
  if (name === 'invert') Object.assign(view, { zoom: [], range: null });
  showControls();
  if (name === 'icicle') {
    graph.setTree(tree, view.icicle);
    zoom();
  } else {
    compute();
  }
}

function listen() {
  byId('metric').addEventListener('change', (event) => setMetric(Number(event.target.value)));
  for (const name of ['process', 'function']) {
    byId(name).addEventListener('change', (event) => {
      view[name] = Number(event.target.value);
      view.range = null;
      compute();
    });
  }
  for (const name of SWITCHES) byId(name).addEventListener('change', () => toggle(name));
  byId('search').addEventListener('input', (event) => {
    view.search = event.target.value;
    search();
    markRows();
  });
  let waiting = 0;
  byId('filter').addEventListener('input', (event) => {
    view.filter = event.target.value;
    view.range = null;
    clearTimeout(waiting);
    waiting = setTimeout(compute, STACKS > 5000 ? 200 : 0);
  });
  byId('controls').addEventListener('submit', (event) => event.preventDefault());
  byId('reset').addEventListener('click', () => {
    view = { ...freshView(), theme: view.theme, tab: view.tab };
    showControls();
    compute();
  });
  byId('unzoom').addEventListener('click', unzoom);
  byId('theme').addEventListener('click', toggleTheme);
  byId('help-button').addEventListener('click', () => byId('help').showModal());
  darkScheme.addEventListener('change', showTheme);
  window.addEventListener('hashchange', () => {
    view = readView(location.hash);
    showAll();
  });
  document.addEventListener('keydown', globalKey);
}

/** Keys that work wherever no field has the focus. */
function globalKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || byId('help').open) return;
  const field = event.target.closest && event.target.closest('input, select, textarea');
  if (event.key === 'Escape') {
    if (field) field.blur();
    else if (view.zoom.length || view.range) unzoom();
    else if (view.selected >= 0) select(-1);
    return;
  }
  if (field && field.type !== 'checkbox') return;
  const count = metrics.length;
  const keys = {
    '/': () => byId('search').focus(),
    f: () => byId('filter').focus(),
    m: () => setMetric((view.metric + 1) % count),
    M: () => setMetric((view.metric + count - 1) % count),
    o: () => toggle('own'),
    c: () => toggle('invert'),
    i: () => toggle('icicle'),
    g: () => graph.canvas.focus(),
    t: toggleTheme,
    '?': () => byId('help').showModal(),
  };
  TABS.forEach(([name], index) => { keys[index + 1] = () => openTab(name); });
  if (!Object.hasOwn(keys, event.key)) return;
  event.preventDefault();
  keys[event.key]();
}

function showAll() {
  showTheme();
  showControls();
  compute();
}

fillControls();
listen();
showAll();
