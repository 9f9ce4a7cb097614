// ---- Elements -----------------------------------------------------------------------------------

const byId = (id) => document.getElementById(id);

/** An element with properties, and children that are elements or text. */
function element(tag, properties, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties || {})) {
    if (name in made) made[name] = value;
    else if (value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== ''));
  return made;
}

/** Rows that a table has at first, and that are added at a time. */
const PAGE = 200;

/** A table of rows, sorted by a column, of which the reader can choose one. */
function rowTable(rows, columns, sort, shown, on) {
  const column = columns.find((it) => it.id === sort.column) || (sort.column === 'name' ? null : columns[0]);
  const byName = (a, b) => (a.label < b.label ? -1 : a.label > b.label ? 1 : 0);
  const order = sort.up ? 1 : -1;
  const sorted = rows.slice().sort((a, b) => (column
    ? order * (column.of(a) - column.of(b)) || b.value - a.value || byName(a, b)
    : order * byName(a, b)));
  const current = column ? column.id : 'name';
  const head = (id, text, kind) => (on.sort ? sortHead(id, text, kind) : element('th', { scope: 'col', className: `plain ${kind}` }, text));
  const sortHead = (id, text, kind) => element('th', {
    scope: 'col',
    className: kind,
    'aria-sort': id === current ? (sort.up ? 'ascending' : 'descending') : undefined,
  }, element('button', { type: 'button', onclick: () => on.sort(id, id === 'name') },
    text, id === current ? (sort.up ? ' ▲' : ' ▼') : ''));
  const body = element('tbody');
  sorted.slice(0, shown).forEach((row, index) => {
    const text = element('th', { scope: 'row', className: 'name', title: row.label }, row.label);
    const at = row.isMixed ? '' : place(row.frame, true);
    if (at) text.append(element('small', {}, ` ${at}`));
    const tr = element('tr', { tabIndex: index ? -1 : 0 },
      ...columns.map((it) => element('td', { className: it.id === 'share' ? 'faint' : '' }, it.show(it.of(row), row))),
      text);
    tr.row = row;
    body.append(tr);
  });
  body.addEventListener('click', (event) => {
    const tr = event.target.closest('tr');
    if (tr) {
      moveTo(body.querySelector('tr[tabindex="0"]'), tr);
      on.choose(tr.row);
    }
  });
  body.addEventListener('dblclick', (event) => {
    const tr = event.target.closest('tr');
    if (tr) on.zoom(tr.row);
  });
  body.addEventListener('keydown', (event) => {
    const tr = event.target.closest('tr');
    if (!tr || event.ctrlKey || event.metaKey || event.altKey) return;
    const moves = {
      ArrowDown: tr.nextElementSibling,
      ArrowUp: tr.previousElementSibling,
      Home: body.firstElementChild,
      End: body.lastElementChild,
    };
    if (event.key in moves) moveTo(tr, moves[event.key]);
    else if (event.key === 'Enter' || event.key === ' ') on.choose(tr.row);
    else if (event.key === 'z') on.zoom(tr.row);
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  const table = element('table', {},
    element('caption', { className: 'unseen' }, on.caption),
    element('thead', {}, element('tr', {}, ...columns.map((it) => head(it.id, it.head, '')), head('name', on.nameHead, 'name'))),
    body);
  const parts = [table];
  if (sorted.length > shown) {
    const rest = sorted.length - shown;
    parts.push(element('button', { type: 'button', className: 'more', onclick: on.more },
      `Show ${group(Math.min(rest, PAGE))} more of ${group(rest)}`));
  }
  return parts;
}

function moveTo(from, to) {
  if (!to) return;
  if (from) from.tabIndex = -1;
  to.tabIndex = 0;
  to.focus();
}

/** A table of plain text. */
function plainTable(caption, heads, rows, nameColumns) {
  const kind = (k) => (nameColumns.includes(k) ? 'name' : '');
  return element('table', { className: 'still' },
    element('caption', { className: 'unseen' }, caption),
    element('thead', {}, element('tr', {},
      ...heads.map((head, k) => element('th', { scope: 'col', className: `plain ${kind(k)}` }, head)))),
    element('tbody', {}, ...rows.map((row) => element('tr', {},
      ...row.map((cell, k) => (k === 0
        ? element('th', { scope: 'row', className: 'name' }, cell)
        : element('td', { className: kind(k) }, cell)))))));
}

/** The facts of the recording. */
function factPanel() {
  const section = ({ title, facts = [], notes = [], columns = [], rows = [] }) => {
    const made = element('section', {}, element('h3', {}, title));
    notes.forEach((note) => made.append(element('p', {}, note)));
    if (facts.length) {
      made.append(element('dl', {}, ...facts.flatMap(([name, value]) => [
        element('dt', {}, name), element('dd', {}, value)])));
    }
    if (columns.length) made.append(plainTable(title, columns, rows, title === 'Processes' ? [0, 1] : [0]));
    return made;
  };
  return element('div', { className: 'facts' }, ...data.facts.map(section));
}

/** Histograms of blocks by size and lifetime. */
function histogramPanel(some, whose) {
  const chart = (histogram) => {
    const isSize = histogram.name === 'sizes';
    const title = isSize ? 'Blocks by size' : 'Freed blocks by lifetime';
    const sums = buckets(histogram, some);
    const filled = Object.keys(sums).map(Number);
    const made = element('section', {}, element('h3', {}, `${title}, ${whose}`));
    if (!filled.length) {
      made.append(element('p', { className: 'hint' }, 'none'));
      return made;
    }
    const all = sums.reduce((a, b) => a + b, 0);
    const most = Math.max(...filled.map((bucket) => sums[bucket]));
    const bound = isSize ? bytes : microseconds;
    const last = 31;
    const rows = [];
    for (let bucket = filled[0]; bucket <= filled[filled.length - 1]; bucket++) {
      const count = sums[bucket] || 0;
      const bar = element('i', {});
      bar.style.width = `${(100 * count) / most}%`;
      bar.hidden = count === 0;
      rows.push(element('tr', {},
        element('th', { scope: 'row' }, bucket >= last ? `${bound(2 ** bucket)} and more` : `${bound(bucket ? 2 ** bucket : 0)} –`),
        element('td', {}, group(count)),
        element('td', { className: 'faint' }, percent(count, all)),
        element('td', { className: 'bar', 'aria-hidden': 'true' }, bar)));
    }
    made.append(element('table', { className: 'still' },
      element('caption', { className: 'unseen' }, title),
      element('thead', {}, element('tr', {}, ...[isSize ? 'Size' : 'Lifetime', 'Blocks', 'Share'].map((head) => (
        element('th', { scope: 'col', className: 'plain' }, head))), element('td', {}))),
      element('tbody', {}, ...rows)));
    return made;
  };
  return element('div', { className: 'charts' }, ...histograms.map(chart));
}

/** What is known of the selected function, with its callers and callees. */
function selectionPanel(found, view, total, on) {
  const metric = metrics[view.metric];
  const { own } = found;
  const show = (value) => `${amount(metric, value)} (${percent(value, total)})`;
  const few = (all) => [...all].slice(0, 3).join(', ') + (all.size > 3 ? `, and ${all.size - 3} more` : '');
  const neighbourTable = (title, rows) => [
    element('h3', {}, title),
    rows.length
      ? element('div', {}, ...rowTable(rows.slice(0, 40), [
        { id: 'value', head: METRIC_HEADS[metric.name] || metric.name, of: (row) => row.value, show: (it) => (metric.bytes ? bytes(it) : group(it)) },
        { id: 'share', head: 'Share', of: (row) => row.value, show: (it) => percent(it, own.value) },
      ], { column: 'value', up: false }, 40, { ...on, caption: title, nameHead: 'Function', sort: null }))
      : element('p', { className: 'hint' }, 'none'),
  ];
  return [
    element('p', { className: 'called' }, names[own.name]),
    element('p', { className: 'where' }, CLASS_WORDS[nameClass[own.name]],
      found.lines.size ? ` · ${few(found.lines)}` : '', found.modules.size ? ` · ${few(found.modules)}` : ''),
    element('p', {}, `Total ${show(own.value)}`, own.self > 0 ? ` · self ${show(own.self)}` : '',
      metric.variances && margin(own.value, own.variance) ? ` · ${margin(own.value, own.variance)}` : ''),
    element('div', { className: 'actions' },
      element('button', { type: 'button', id: 'zoom-selected', onclick: () => on.zoom(own) }, 'Zoom to widest'),
      element('button', { type: 'button', id: 'filter-selected', onclick: on.filter }, 'Filter by it'),
      element('button', { type: 'button', id: 'clear-selected', onclick: on.clear }, 'Clear')),
    ...neighbourTable('Callers', found.callers),
    ...neighbourTable('Callees', found.callees),
  ];
}

