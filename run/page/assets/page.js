// ---- headline ----

const UNITS = { ppo: 'iteration', sft: 'step', rm: 'step' };
const STAGES = { ppo: 'PPO', sft: 'supervised fine-tuning', rm: 'reward model' };

/** Seconds of silence after which a run is not called running any more. */
const patience = (seconds) => Math.max(60, 20 * (seconds || 0));

const now = () => Date.now() / 1000;

function headline(data) {
  const { head } = data;
  const stepSeconds = secondsPerStep(data);
  let [state, word] = [head.state, head.state];
  if (state === 'running' && now() - head.updated > patience(stepSeconds)) [state, word] = ['silent', `silent since ${clock(head.updated)}`];
  if (state === 'stopped' && data.entries.some(({ kind, text }) => kind === 'error' && text === head.reason)) state = 'failed';
  byId('state').className = `pill ${state}`;
  byId('state').textContent = word;
  const title = [head.name, head.stage && el('small', {}, ` ${STAGES[head.stage]}`)].filter(Boolean);
  byId('name').replaceChildren(...title);
  document.title = `${head.step ? `${head.step}${head.total ? `/${head.total}` : ''} · ` : ''}${head.name}`;
  byId('reason').hidden = !head.reason;
  byId('reason').textContent = head.reason || '';
  byId('progress').hidden = !head.total;
  if (head.total) {
    byId('progress').setAttribute('aria-valuemax', head.total);
    byId('progress').setAttribute('aria-valuenow', head.step);
    byId('progress').firstElementChild.style.width = `${Math.min(100, (100 * head.step) / head.total)}%`;
  }
}

function secondsPerStep(data) {
  const recent = finite(data, TOTAL).slice(-20);
  if (recent.length > 0) return mean(recent);
  const { begun, updated, step } = data.head;
  return step && updated > begun ? (updated - begun) / step : undefined;
}

/** What the tiles show: label, metric, and what goes below. */
const TILES = [
  ['reward', 'objective/scores', change], ['KL', 'objective/kl', change], ['loss', 'loss', change], ['held-out loss', 'eval/loss', change],
  ['accuracy', 'accuracy', change], ['held-out accuracy', 'eval/accuracy', change], ['token accuracy', 'mean_token_accuracy', change],
  ['tokens/s', 'perf/throughput', average], ['queue depth', 'queue/depth', average], ['completion length', 'response_length/mean', change],
];

function change(data, metric) {
  const values = finite(data, metric);
  return values.length > 1 ? `from ${shown(metric, values[0])}` : '';
}

function average(data, metric) {
  return `${shown(metric, mean(finite(data, metric)))} on average`;
}

function drawTiles(data) {
  const { head } = data;
  const unit = UNITS[head.stage] || 'step';
  const tiles = [tile(unit, [head.step.toLocaleString('en-US'), head.total && el('small', {}, ` of ${head.total.toLocaleString('en-US')}`)], head.checkpoint ? `checkpoint ${head.checkpoint.replace(/^.*step_/, '')}` : '')];
  for (const [label, metric, below] of TILES) {
    if (last(data, metric) !== undefined) tiles.push(tile(label, [shown(metric, last(data, metric))], below(data, metric)));
  }
  const going = head.state === 'running' && page.live;
  const elapsed = Math.max(0, (going ? now() : head.updated) - head.begun);
  const each = secondsPerStep(data);
  if (isNumber(elapsed)) tiles.push(tile('elapsed', [duration(elapsed)], each ? `${duration(each)} per ${unit}` : ''));
  if (head.state === 'running' && head.total && each) {
    const left = (head.total - head.step) * each;
    tiles.push(tile('time left', [duration(left)], page.live ? `until ${new Date((head.updated + left) * 1000).toLocaleTimeString([], { timeStyle: 'short' })}` : ''));
  }
  byId('tiles').replaceChildren(...tiles);
}

function tile(label, value, more) {
  return el('div', { class: 'card tile' }, el('span', { class: 'label' }, label), el('span', { class: 'value' }, value), more && el('span', { class: 'more' }, more));
}

function drawAlerts(data) {
  const broken = Object.entries(data.invariants).filter(([, { broken: count }]) => count > 0);
  const alerts = [];
  if (broken.length > 0) {
    alerts.push(el('div', { class: 'alert error', role: 'alert' }, `Broken: ${broken.map(([name, { broken: count }]) => `${name.replaceAll('_', ' ')} (${count} ${count === 1 ? 'step' : 'steps'})`).join(', ')}. `, el('a', { href: '#invariants' }, 'See the invariants')));
  }
  const warnings = data.entries.filter(({ kind }) => kind === 'warning' || kind === 'error');
  const newest = warnings.at(-1);
  if (newest && newest.text !== data.head.reason) {
    alerts.push(el('div', { class: `alert ${newest.kind}` }, newest.step ? `Step ${newest.step}: ` : '', newest.text, warnings.length > 1 ? ` (and ${warnings.length - 1} more in the ` : ' (', el('a', { href: '#journal' }, 'journal'), ')'));
  }
  byId('alerts').replaceChildren(...alerts);
}

// ---- curves that matter ----

const one = (metric, label) => ({ metric, label });

/** Charts in the order of their weight. Those whose metrics a run lacks are left out. */
const CURVES = [
  { title: 'Reward', hint: 'should rise, then settle', series: [{ ...one('objective/scores', 'score'), deviation: 'objective/scores_std' }, one('objective/rlhf_reward', 'less KL penalty')] },
  { title: 'KL from the reference', hint: 'may rise, and stays bounded', series: [one('objective/kl', 'KL')] },
  { title: 'Loss', hint: 'falls; held-out falls with it', series: [one('loss', 'training'), one('eval/loss', 'held-out')] },
  { title: 'Accuracy', hint: 'share of pairs ranked right', series: [one('accuracy', 'training'), one('eval/accuracy', 'held-out')] },
  { title: 'Token accuracy', series: [one('mean_token_accuracy', 'training'), one('eval/mean_token_accuracy', 'held-out')] },
  { title: 'Held-out perplexity', series: [one('eval/perplexity', 'perplexity')] },
  { title: 'Margin', hint: 'chosen over rejected', series: [one('margin', 'training'), one('eval/margin', 'held-out')] },
  { title: 'Rewards of pairs', series: [one('rewards/chosen', 'chosen'), one('rewards/rejected', 'rejected')] },
  { title: 'Completion length', hint: 'tokens; should not explode', series: [{ ...one('response_length/mean', 'mean'), spread: ['response_length/min', 'response_length/max'] }] },
  { title: 'Clip fraction', hint: 'healthy between 0.05 and 0.2', healthy: [0.05, 0.2], series: [one('policy/clipfrac_avg', 'policy'), one('val/clipfrac_avg', 'value')] },
  { title: 'Explained variance', hint: 'of the critic; climbs above 0.5', guide: 0.5, series: [one('critic/vf_explained_var', 'critic')] },
  { title: 'Entropy of a token', hint: 'should not fall to 0', series: [one('policy/entropy_avg', 'while updating')] },
  { title: 'Entropy of a completion', series: [one('objective/entropy', 'sum over its tokens')] },
  { title: 'Policy loss', series: [one('loss/policy_avg', 'policy')] },
  { title: 'Value loss', hint: 'falls as the critic learns', series: [one('loss/value_avg', 'value')] },
  { title: 'Gradient norm', series: [one('policy/grad_norm', 'policy'), one('val/grad_norm', 'value'), one('grad_norm', 'all')], log: true },
  { title: 'Throughput', hint: 'tokens per second', series: [one('perf/throughput', 'whole step'), one('perf/generation_tokens_per_s', 'generation')] },
  { title: 'Engine against trainer', hint: 'difference of log-probs; about 1e-6 in f32', series: [one('parity/dlogp_max', 'largest'), one('parity/dlogp_mean', 'mean')], log: true },
  { title: 'Effective sample size', hint: 'near 1 is on-policy', series: [one('parity/ess', 'this version’s tokens'), one('staleness/ess', 'older tokens'), one('correction/ess', 'weights that act')] },
  { title: 'Importance weights', hint: 'share that a bound truncates or masks', series: [one('correction/outside', 'tokens'), one('correction/outside_sequences', 'completions')] },
  { title: 'Queue', hint: 'rollouts waiting', series: [one('queue/depth', 'depth')] },
  { title: 'Staleness', hint: 'weight versions behind', series: [one('queue/lag_mean', 'mean'), one('queue/lag_max', 'largest')] },
  { title: 'Idle and overlap', hint: 'share of the iteration', series: RATIOS.map(([metric, label]) => one(metric, label)) },
  { title: 'Learning rate', series: [one('learning_rate', 'rate'), one('lr', 'rate')] },
  { title: 'Memory', series: [one('mem/peak', 'peak'), one('mem/predicted', 'predicted')] },
];
const curves = CURVES.map((spec) => new Chart(spec));

function drawCurves(data) {
  const present = curves.filter(({ spec }) => spec.series.some(({ metric }) => finiteOrBroken(data, metric)));
  keep(document.querySelector('#curves .charts'), present.map(({ element }) => element));
  for (const chart of present) chart.update(data);
  hideSection('curves', present.length === 0);
  document.documentElement.dataset.charts = present.length;
  byId('stride').hidden = data.curves.stride === 1;
  byId('stride').textContent = `Each point is the mean of ${data.curves.stride} neighbouring steps.`;
}

const finiteOrBroken = (data, metric) => column(data, metric).some((value) => value !== null);

/** Makes children those elements, and leaves alone those that are there: they may have the focus. */
function keep(parent, elements) {
  for (const child of [...parent.children]) if (!elements.includes(child)) child.remove();
  elements.forEach((element, at) => { if (parent.children[at] !== element) parent.insertBefore(element, parent.children[at] || null); });
}

// ---- all metrics ----

const GROUPS = { objective: 'what the run is for', policy: 'the policy’s update', optimizer: 'steps', loss: 'losses', val: 'the value update', critic: 'scores, values, returns', response_length: 'completions', prompt_length: 'prompts', parity: 'engine against trainer', staleness: 'tokens of older weights', correction: 'importance weights', queue: 'rollouts under way', sync: 'refits', perf: 'speed', timing_s: 'seconds', mem: 'memory', invariant: '0 held, 1 broken', eval: 'held-out data' };
const groups = new Map();

function drawMetrics(data) {
  const wanted = byId('find').value.toLowerCase().split(/\s+/).filter(Boolean);
  const names = Object.keys(data.curves.metrics).filter((name) => wanted.every((word) => name.toLowerCase().includes(word)));
  hideSection('metrics', Object.keys(data.curves.metrics).length === 0);
  const byGroup = Map.groupBy(names, (name) => (name.includes('/') ? name.split('/')[0] : 'training'));
  const order = [...byGroup.keys()].sort((a, b) => rank(a) - rank(b));
  const body = document.querySelector('#metrics .body');
  keep(body, order.map((name) => group(name).element));
  for (const name of order) group(name).update(data, byGroup.get(name), wanted.length > 0);
  if (order.length === 0) body.replaceChildren(empty('No metric is called that.'));
}

function rank(name) {
  const place = Object.keys(GROUPS).indexOf(name);
  return place < 0 ? 0.5 * (name === 'training' ? -1 : 200) : place;
}

function group(name) {
  if (!groups.has(name)) groups.set(name, new Group(name));
  return groups.get(name);
}

/** Metrics of a prefix; their charts are made when it is opened. */
class Group {
  constructor(name) {
    this.count = el('span', {});
    this.charts = new Map();
    this.grid = el('div', { class: 'charts' });
    this.element = el('details', {}, el('summary', {}, name, this.count), this.grid);
    this.element.addEventListener('toggle', () => this.draw());
    this.title = GROUPS[name] || '';
  }

  update(data, names, open) {
    Object.assign(this, { data, names });
    this.count.textContent = `${names.length}${this.title ? ` · ${this.title}` : ''}`;
    if (open) this.element.open = true;
    this.draw();
  }

  draw() {
    if (!this.element.open || !this.names) return;
    const charts = this.names.map((name) => {
      if (!this.charts.has(name)) this.charts.set(name, new Chart({ title: name, series: [one(name, 'value')] }));
      return this.charts.get(name);
    });
    keep(this.grid, charts.map(({ element }) => element));
    for (const chart of charts) chart.update(this.data);
  }
}

// ---- the page ----

const page = { data: null, live: false, pending: false };

function draw() {
  page.pending = false;
  const { data } = page;
  headline(data);
  drawTiles(data);
  drawAlerts(data);
  drawCurves(data);
  drawPhases(data);
  drawTimeline(data);
  drawSamples(data);
  drawInvariants(data);
  drawJournal(data);
  drawMemory(data);
  drawMetrics(data);
  drawConfig(data);
  const root = document.documentElement;
  root.dataset.overflow = String(Math.max(0, root.scrollWidth - root.clientWidth));
  root.dataset.ready = String(data.version);
}

/** Draws soon: several updates at once are drawn once. */
function drawSoon() {
  if (page.pending) return;
  page.pending = true;
  setTimeout(draw, 100);
}

byId('smoothing').addEventListener('input', (event) => {
  view.smoothing = Number(event.target.value);
  byId('smoothing-value').textContent = event.target.value;
  redraw();
});
byId('log').addEventListener('change', (event) => { view.log = event.target.checked; redraw(); });
byId('find').addEventListener('input', () => drawMetrics(page.data));
// Curves see to it themselves.
let width = 0;
new ResizeObserver(([{ contentRect }]) => {
  if (page.data && contentRect.width !== width) {
    drawPhases(page.data);
    drawTimeline(page.data);
  }
  width = contentRect.width;
}).observe(document.querySelector('main'));

// ---- live ----

/** More points than this come thinned out from the server. */
const MOST_POINTS = 4000;
const KEPT = { spans: 2000, entries: 400, first: 3, newest: 9 };

async function refresh() {
  const answer = await fetch('data', { cache: 'no-store' });
  page.data = await answer.json();
  draw();
}

/** Adds what the server has more than the last version. A version that is missing: everything is asked for again. */
function apply(update) {
  const { data } = page;
  if (!data || update.version <= data.version) return;
  if (update.version !== data.version + 1 || data.curves.stride > 1 || data.curves.steps.length > MOST_POINTS) {
    refresh();
    return;
  }
  data.version = update.version;
  data.head = update.head;
  for (const row of update.rows) if (!append(data.curves, row)) { refresh(); return; }
  data.entries = [...data.entries, ...update.entries].slice(-KEPT.entries);
  data.timeline.spans = [...data.timeline.spans, ...update.spans].slice(-KEPT.spans);
  const kept = data.iterations.filter(({ iteration }) => !update.iterations.some((fresh) => fresh.iteration === iteration));
  const all = [...kept, ...update.iterations];
  data.iterations = all.length > KEPT.first + KEPT.newest ? [...all.slice(0, KEPT.first), ...all.slice(-KEPT.newest)] : all;
  if (update.pairs) data.pairs = update.pairs;
  if (update.invariants) data.invariants = update.invariants;
  drawSoon();
}

/** Adds a row to the columns. Says false where it does not come after them. */
function append(curves, { step, ...metrics }) {
  if (curves.steps.length > 0 && step <= curves.steps.at(-1)) return false;
  for (const name of Object.keys(metrics)) curves.metrics[name] ??= curves.steps.map(() => null);
  for (const [name, values] of Object.entries(curves.metrics)) values.push(metrics[name] ?? null);
  curves.steps.push(step);
  return true;
}

function follow() {
  page.live = true;
  document.documentElement.classList.add('live');
  const say = (text) => { byId('connection').textContent = text; };
  const events = new EventSource('events');
  events.onopen = () => { say('live'); refresh(); };
  events.onmessage = ({ data }) => apply(JSON.parse(data));
  events.onerror = () => {
    document.documentElement.classList.remove('live');
    if (page.data && page.data.head.state !== 'running') {
      events.close();
      say('');
      return;
    }
    say('the server is gone; this is what it said last');
  };
  setInterval(() => { if (page.data) { headline(page.data); drawTiles(page.data); } }, 1000);
}

const embedded = byId('data');
if (embedded) {
  page.data = JSON.parse(embedded.textContent);
  draw();
} else {
  follow();
}
