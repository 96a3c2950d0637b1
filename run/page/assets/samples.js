// ---- samples ----

const SHOWN_PAIRS = 6;
/** What the reader chose; null follows the run. */
const chosen = { before: null, after: null };
let shownPairs = SHOWN_PAIRS;

for (const side of ['before', 'after']) {
  byId(side).addEventListener('change', (event) => { chosen[side] = Number(event.target.value) || null; drawSamples(page.data); });
}

function drawSamples(data) {
  const filled = data.iterations.filter(({ rows }) => rows.length > 0);
  hideSection('samples', filled.length === 0);
  if (filled.length === 0) return;
  const of = (number, otherwise) => filled.find(({ iteration }) => iteration === number) || otherwise;
  const before = of(chosen.before, filled[0]);
  const after = of(chosen.after, filled.at(-1));
  select('before', filled, before.iteration);
  select('after', filled, after.iteration);
  const pairs = pairUp(data, before, after);
  const body = document.querySelector('#samples .body');
  body.replaceChildren(...pairs.slice(0, shownPairs).map(pairCard));
  if (pairs.length > shownPairs) {
    body.append(el('button', { type: 'button', onclick: () => { shownPairs = Infinity; drawSamples(page.data); } }, `show ${pairs.length - shownPairs} more`));
  }
}

function select(id, iterations, value) {
  const options = iterations.map(({ iteration }) => el('option', { value: iteration, selected: iteration === value }, `iteration ${iteration}`));
  byId(id).replaceChildren(...options);
}

/** Completions of the same prompt first; then what is left, row by row. */
function pairUp(data, before, after) {
  const place = (iteration, row) => row && { ...row, iteration };
  const follows = chosen.before === null && chosen.after === null;
  const pairs = follows ? data.pairs.map((pair) => [pair.before, pair.after]) : [];
  if (before.iteration === after.iteration) {
    return before.rows.map((row) => [place(before.iteration, row), null]);
  }
  const left = [...before.rows];
  const rest = [];
  for (const row of after.rows) {
    const same = left.findIndex(({ prompt }) => prompt === row.prompt);
    if (same < 0) rest.push(row);
    else pairs.push([place(before.iteration, left.splice(same, 1)[0]), place(after.iteration, row)]);
  }
  rest.forEach((row, at) => pairs.push([place(before.iteration, left[at]), place(after.iteration, row)]));
  const known = new Set();
  const key = (one) => (one ? `${one.iteration} ${one.prompt} ${one.completion}` : '');
  return pairs.filter((pair) => { const name = pair.map(key).join('|'); return !known.has(name) && known.add(name); });
}

function pairCard([before, after]) {
  const same = before && after && before.prompt === after.prompt;
  const prompt = same || !after ? el('div', { class: 'prompt' }, el('b', {}, 'prompt'), (before || after).prompt) : null;
  const sides = [before, after].filter(Boolean).map((sample) => side(sample, prompt ? '' : sample.prompt, sample === after && same ? before : null));
  return el('article', { class: 'card pair' }, prompt, el('div', { class: 'sides' }, sides));
}

function side(sample, prompt, earlier) {
  const gain = earlier && isNumber(sample.score) && isNumber(earlier.score) ? sample.score - earlier.score : null;
  const chips = [
    el('span', { class: 'when' }, `iteration ${sample.iteration}`),
    isNumber(sample.score) && el('span', {}, 'score ', el('b', {}, number(sample.score)), gain !== null && gain !== 0 && el('b', { class: gain > 0 ? 'up' : 'down' }, ` ${gain > 0 ? '+' : '−'}${number(Math.abs(gain))}`)),
    isNumber(sample.kl) && el('span', {}, 'KL ', el('b', {}, number(sample.kl))),
    isNumber(sample.tokens) && el('span', {}, `${sample.tokens} tokens`),
    sample.ended === false && el('span', {}, 'cut off'),
    sample.versions && sample.versions.length > 1 && el('span', {}, `weights ${sample.versions.map(([version]) => version).join(', ')}`),
  ];
  return el('div', { class: 'side' }, el('div', { class: 'chips' }, chips),
    el('p', { class: 'text' }, prompt && el('span', { class: 'own' }, `${prompt} `), sample.completion.replace(/^ /, '') || el('span', { class: 'own' }, '(nothing)')));
}
