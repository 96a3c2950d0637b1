// ---- invariants, journal, memory, configuration ----

function hideSection(id, hidden) {
  byId(id).hidden = hidden;
  document.querySelector(`nav a[href="#${id}"]`).hidden = hidden;
}

function drawInvariants(data) {
  const names = Object.keys(data.invariants);
  const body = document.querySelector('#invariants .body');
  hideSection('invariants', names.length === 0);
  const order = names.sort((one, other) => data.invariants[other].broken - data.invariants[one].broken || one.localeCompare(other));
  const rows = order.map((name) => {
    const { checked, broken, last_broken: when, said } = data.invariants[name];
    const held = broken === 0;
    return el('tr', {},
      el('td', { class: held ? 'held' : 'broke' }, held ? '✓ held' : '✗ broken'),
      el('td', {}, name.replaceAll('_', ' ')),
      el('td', { class: 'num' }, checked.toLocaleString('en-US')),
      el('td', { class: 'num' }, broken.toLocaleString('en-US')),
      el('td', {}, when === null ? '' : `step ${when}`),
      el('td', {}, data.policies[name] || ''),
      el('td', {}, said || ''));
  });
  const broken = order.filter((name) => data.invariants[name].broken > 0).length;
  body.replaceChildren(
    el('div', { class: 'card scroll' }, el('table', {},
      el('thead', {}, el('tr', {}, ['', 'invariant', ['steps checked'], ['broken'], 'last', 'policy', 'said'].map((name) => el('th', { class: Array.isArray(name) ? 'num' : null }, name)))),
      el('tbody', {}, rows))),
    el('p', { class: 'note' }, broken ? `${broken} of ${names.length} did not hold in every step.` : 'Each held in every step in which it was checked.'));
}

let wholeJournal = false;

function drawJournal(data) {
  const body = document.querySelector('#journal .body');
  hideSection('journal', data.entries.length === 0);
  const isWarning = ({ kind }) => kind === 'warning' || kind === 'error';
  const newest = [...data.entries].reverse();
  const ordered = [...newest.filter(isWarning), ...newest.filter((entry) => !isWarning(entry))];
  const most = wholeJournal ? Infinity : 14;
  const rows = ordered.slice(0, most).map(({ time, step, kind, name, text }) => el('tr', {},
    el('td', {}, el('span', { class: `kind ${/^[a-z]+$/.test(kind) ? kind : ''}` }, kind)),
    el('td', { class: 'muted num' }, time ? new Date(time * 1000).toLocaleTimeString() : ''),
    el('td', { class: 'muted num' }, step ? `step ${step}` : ''),
    el('td', {}, name && name !== 'start' && name !== 'finished' ? el('b', {}, `${name.replaceAll('_', ' ')}: `) : null, text)));
  body.replaceChildren(el('div', { class: 'card' }, el('table', { class: 'lines' }, el('tbody', {}, rows))));
  if (ordered.length > most) {
    body.append(el('button', { type: 'button', onclick: () => { wholeJournal = true; drawJournal(page.data); } }, `show all ${ordered.length}`));
  }
}

function drawMemory(data) {
  const body = document.querySelector('#memory .body');
  const [predicted, peak] = ['mem/predicted', 'mem/peak'].map((name) => finite(data, name).reduce((most, one) => Math.max(most, one), -Infinity));
  const known = [['predicted', predicted], ['measured peak', peak]].filter(([, value]) => isNumber(value));
  hideSection('memory', known.length === 0 && !data.plan);
  const largest = Math.max(...known.map(([, value]) => value));
  const parts = [];
  if (known.length > 0) {
    const off = isNumber(predicted) && isNumber(peak) ? `${trim((100 * (peak - predicted)) / predicted, 1)}% against the plan` : '';
    parts.push(el('div', { class: 'card' }, el('h3', {}, 'Plan and measurement', el('span', {}, off)), el('table', {}, el('tbody', {},
      known.map(([label, value], at) => el('tr', { class: `c${at + 1}` }, el('td', {}, label), el('td', { class: 'num' }, bytes(value)), el('td', { class: 'metered' }, meter(value / largest))))))));
  }
  if (data.plan && Array.isArray(data.plan.phases)) parts.push(el('div', { class: 'card scroll' }, el('h3', {}, 'Memory plan', el('span', {}, 'plan.json')), planTable(data.plan)));
  body.replaceChildren(...parts);
}

/** A row for each part, a column for each phase; a GPU's parts follow the host's. */
function planTable({ phases }) {
  const places = ['host', 'device'].filter((place) => phases.some((phase) => Object.keys(phase[place] || {}).length > 0));
  const parts = places.flatMap((place) => [...new Set(phases.flatMap((phase) => Object.keys(phase[place] || {})))].map((part) => [place, part]));
  const sum = (phase, place) => Object.values(phase[place] || {}).reduce((total, one) => total + one, 0);
  const row = (label, values, strong) => el('tr', {}, el(strong ? 'th' : 'td', {}, label), values.map((value) => el('td', { class: 'num' }, value ? bytes(value) : '')));
  const rows = places.flatMap((place) => [
    ...parts.filter(([where]) => where === place).map(([, part]) => row(`${part.replaceAll('_', ' ')}${place === 'device' ? ' on the GPU' : ''}`, phases.map((phase) => (phase[place] || {})[part]))),
    row(place === 'device' ? 'the GPU' : 'the host', phases.map((phase) => sum(phase, place)), true),
  ]);
  return el('table', {}, el('thead', {}, el('tr', {}, el('th', {}), phases.map(({ name }) => el('th', { class: 'num' }, name)))), el('tbody', {}, rows));
}

function drawConfig(data) {
  const body = document.querySelector('#config .body');
  hideSection('config', !data.config);
  if (!data.config || body.dataset.shown === data.config) return;
  body.dataset.shown = data.config;
  const lines = data.config.split('\n');
  const end = lines.findIndex((line) => !line.startsWith('#'));
  const arithmetic = lines.slice(0, end).map((line) => el('li', {}, line.replace(/^# ?/, '')));
  body.replaceChildren(el('div', { class: 'card' },
    arithmetic.length > 0 && el('ul', { class: 'arithmetic' }, arithmetic),
    el('details', {}, el('summary', {}, 'config.resolved.toml', el('span', {}, 'every default spelled out')), el('pre', { tabindex: '0' }, lines.slice(end).join('\n').trim()))));
}
