// ---- where the time goes ----

const TOTAL = 'timing_s/step';
const MOST_BARS = 100;
const BARS = { left: 46, right: 4, top: 6, bottom: 20, height: 250 };

/** Phases that are parts of another. */
const PARTS = { 'timing_s/score': ['old_log_prob', 'ref', 'values', 'adv'], 'timing_s/update': ['update_critic', 'update_actor'] };

const partsOf = (data, whole) => (PARTS[whole] || []).map((part) => `timing_s/${part}`).filter((name) => data.curves.metrics[name]);

/** The phases that follow each other in a step. */
function phaseNames(data) {
  const names = Object.keys(data.curves.metrics).filter((name) => name.startsWith('timing_s/') && name !== TOTAL);
  const parts = names.flatMap((name) => partsOf(data, name));
  return names.filter((name) => !parts.includes(name));
}

/** The phases of a step, the longest first, with what the step has beside them. */
function phases(data) {
  const means = phaseNames(data).map((name) => phase(data, name));
  means.sort((one, other) => other.mean - one.mean);
  const step = perStep(data, TOTAL);
  const sum = means.reduce((total, { mean: seconds }) => total + seconds, 0);
  const rest = step - sum;
  if (means.length > 0 && rest > 0.01 * step) means.push({ name: null, label: 'other', mean: rest, last: null });
  return { phases: means.map((one, at) => ({ ...one, color: one.name ? (at % 7) + 1 : 8 })), step, sum };
}

/** Seconds of a phase, spread over all steps: not every step has each. */
const perStep = (data, name) => finite(data, name).reduce((sum, one) => sum + one, 0) / (data.curves.steps.length || 1);

const phase = (data, name) => ({ name, label: name.slice('timing_s/'.length), mean: perStep(data, name), last: last(data, name) });

function drawPhases(data) {
  const body = document.querySelector('#phases .body');
  const found = phases(data);
  const show = found.phases.length > 0;
  hideSection('phases', !show && data.timeline.spans.length === 0);
  if (!show) { body.replaceChildren(); return; }
  const whole = Math.max(found.step, found.sum);
  const overlap = found.step > 0 && found.sum > 1.02 * found.step;
  const row = ({ name, label, mean: seconds, last: newest, color }, part) => el('tr', { class: part ? 'part' : `c${color}` },
    el('td', { title: name }, !part && el('span', { class: 'swatch' }), label),
    el('td', { class: 'num' }, duration(seconds)),
    el('td', { class: 'num' }, newest === null || newest === undefined ? '' : duration(newest)),
    el('td', { class: 'num' }, `${trim((100 * seconds) / whole, 1)}%`),
    el('td', { class: 'metered' }, !part && meter(seconds / whole)));
  const rows = found.phases.flatMap((one) => [row(one, false), ...partsOf(data, one.name).map((name) => row(phase(data, name), true))]);
  const unit = UNITS[data.head.stage] || 'step';
  const drawing = svg('svg', { class: 'bars', role: 'img' });
  body.replaceChildren(el('div', { class: 'split' },
    el('div', { class: 'card' }, el('h3', {}, `Seconds of each ${unit}`, el('span', {}, 'timing_s/')), drawing),
    el('div', { class: 'card scroll' },
      el('h3', {}, 'Where the time goes', el('span', {}, found.step ? `${duration(found.step)} per ${unit}` : '')),
      el('table', {}, el('thead', {}, el('tr', {}, el('th', {}, 'phase'), el('th', { class: 'num' }, 'mean'), el('th', { class: 'num' }, 'last'), el('th', { class: 'num' }, 'share'), el('th', {}))), el('tbody', {}, rows)),
      overlap && el('p', { class: 'note' }, 'The phases overlap: their sum is more than the whole takes.'))));
  // Only now it has a width.
  stackedBars(drawing, data, found.phases);
}

/** Bars of phases over the iterations; of a long run, each bar is a mean. */
function stackedBars(drawing, data, parts) {
  const { steps } = data.curves;
  const width = drawing.clientWidth || 320;
  const each = Math.max(1, Math.ceil(steps.length / MOST_BARS));
  const value = (part, at) => (part.name ? column(data, part.name)[at] : otherSeconds(data, at)) || 0;
  const bars = [];
  for (let at = 0; at < steps.length; at += each) {
    const group = steps.slice(at, at + each).map((_, offset) => at + offset);
    bars.push({ step: steps[group.at(-1)], parts: parts.map((part) => ({ ...part, seconds: mean(group.map((one) => value(part, one)).map((v) => (isNumber(v) ? v : 0))) })) });
  }
  const sum = (bar) => bar.parts.reduce((total, part) => total + part.seconds, 0);
  const high = Math.max(...bars.map(sum)) || 1;
  const y = scale([0, high * 1.04], [BARS.height - BARS.bottom, BARS.top]);
  const slot = (width - BARS.left - BARS.right) / bars.length;
  drawing.setAttribute('viewBox', `0 0 ${width} ${BARS.height}`);
  drawing.setAttribute('aria-label', `Seconds of each phase over the steps. ${parts.map((part) => `${part.label} ${duration(part.mean)}`).join(', ')} on average.`);
  for (const tick of ticks(0, high, 4)) {
    drawing.append(svg('line', { class: 'grid', x1: BARS.left, x2: width, y1: y.to(tick), y2: y.to(tick) }),
      svg('text', { x: BARS.left - 6, y: y.to(tick) + 3.5, 'text-anchor': 'end' }, duration(tick)));
  }
  bars.forEach((bar, at) => {
    let from = 0;
    const x = BARS.left + at * slot;
    const gap = Math.min(2, slot * 0.18);
    for (const part of bar.parts) {
      const to = from + part.seconds;
      drawing.append(svg('g', { class: `c${part.color}` }, svg('rect', { class: 'fill', x: x + gap / 2, width: Math.max(0.5, Math.min(44, slot - gap)), y: y.to(to), height: Math.max(0, y.to(from) - y.to(to)) },
        svg('title', {}, `${bar.step}: ${part.label} ${duration(part.seconds)}`))));
      from = to;
    }
  });
  const every = Math.max(1, Math.ceil(bars.length / (width / 60)));
  bars.forEach((bar, at) => {
    if (at % every === 0) drawing.append(svg('text', { x: BARS.left + at * slot + Math.min(44, slot) / 2, y: BARS.height - 6, 'text-anchor': 'middle' }, bar.step.toLocaleString('en-US')));
  });
}

function otherSeconds(data, at) {
  const known = phaseNames(data).map((name) => column(data, name)[at]).filter(isNumber);
  return Math.max(0, (column(data, TOTAL)[at] || 0) - known.reduce((sum, one) => sum + one, 0));
}

// ---- lanes ----

const LANES = { left: 82, right: 8, top: 4, row: 26, bar: 18, bottom: 20 };
const RATIOS = [['perf/trainer_idle_ratio', 'trainer idle'], ['perf/engine_idle_ratio', 'engine idle'], ['perf/overlap_ratio', 'overlap']];
let shownIterations = 3;

function drawTimeline(data) {
  const body = document.querySelector('#phases .timeline');
  const { spans, lanes } = data.timeline;
  if (spans.length === 0) { body.replaceChildren(); return; }
  const ratios = RATIOS.filter(([name]) => last(data, name) !== undefined).map(([name, label]) => `${label} ${shown(name, last(data, name))}`);
  const choose = el('select', { 'aria-label': 'iterations shown', onchange: (event) => { shownIterations = Number(event.target.value); drawTimeline(page.data); } },
    [1, 3, 10, 30].map((count) => el('option', { value: count, selected: count === shownIterations }, count === 1 ? 'the last iteration' : `the last ${count} iterations`)));
  const drawing = svg('svg', { class: 'lanes', role: 'img' });
  body.replaceChildren(el('div', { class: 'card' },
    el('h3', {}, 'Who was busy when', el('span', {}, [ratios.join(' · '), ratios.length ? ' · ' : '', choose])), drawing));
  drawLanes(drawing, spans, lanes);
}

function drawLanes(drawing, spans, names) {
  const newest = Math.max(...spans.map((span) => span.iteration || 0));
  const recent = spans.filter((span) => !newest || (span.iteration || 0) > newest - shownIterations);
  const start = Math.min(...recent.map((span) => span.start));
  const end = Math.max(...recent.map((span) => span.start + span.seconds));
  // Also what began before and reaches into the window.
  const visible = spans.filter((span) => span.start + span.seconds > start && span.start < end);
  const lanes = [...new Set(visible.map((span) => span.lane))].sort((one, other) => one - other);
  const width = drawing.clientWidth || 320;
  const height = LANES.top + lanes.length * LANES.row + LANES.bottom;
  const x = scale([start, end], [LANES.left, width - LANES.right]);
  const busy = (lane) => union(visible.filter((span) => span.lane === lane));
  drawing.setAttribute('viewBox', `0 0 ${width} ${height}`);
  drawing.style.height = `${height}px`;
  drawing.setAttribute('aria-label', `Timeline of ${duration(end - start)}. ${lanes.map((lane) => `${names[lane] || lane} busy ${duration(busy(lane))}`).join(', ')}.`);
  lanes.forEach((lane, at) => {
    const top = LANES.top + at * LANES.row;
    drawing.append(svg('text', { x: LANES.left - 8, y: top + 13, 'text-anchor': 'end' }, names[lane] || String(lane)),
      svg('rect', { class: 'lane', x: LANES.left, y: top, width: width - LANES.left - LANES.right, height: LANES.bar, rx: 3 }));
    // A span that is a part of another lies on top of it.
    const long = visible.filter((one) => one.lane === lane).sort((one, other) => other.seconds - one.seconds);
    for (const span of long) {
      const [from, to] = [Math.max(start, span.start), span.start + span.seconds].map(x.to);
      drawing.append(svg('g', { class: `c${((lane - 1) % 7) + 1}` }, svg('rect', { class: 'fill', x: from, y: top, width: Math.max(1, to - from), height: LANES.bar, rx: 2 },
        svg('title', {}, `${span.name}, ${duration(span.seconds)}${span.iteration ? `, iteration ${span.iteration}` : ''}`))));
    }
  });
  for (const tick of ticks(0, end - start, width / 110)) {
    drawing.append(svg('text', { x: x.to(start + tick), y: height - 5, 'text-anchor': 'middle' }, tick === 0 ? '0' : duration(tick)));
  }
}

/** Seconds that spans cover; where they overlap, once. */
function union(spans) {
  let [total, reached] = [0, -Infinity];
  for (const { start, seconds } of [...spans].sort((one, other) => one.start - other.start)) {
    total += Math.max(0, start + seconds - Math.max(start, reached));
    reached = Math.max(reached, start + seconds);
  }
  return total;
}
