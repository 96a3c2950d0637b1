// ---- curves ----

/** What all charts share: they smooth alike, and show the same step. */
const view = { smoothing: 0, log: false, hover: null, charts: new Set() };

const MARGIN = { right: 10, top: 7, bottom: 19 };
const HEIGHT = 158;

/**
 * A chart of some metrics over the steps.
 * `spec`: { title, hint, series: [{ metric, label, spread: [low, high] | deviation }], healthy: [low, high], guide, log }
 */
class Chart {
  constructor(spec) {
    this.spec = spec;
    this.at = el('span', { class: 'at' });
    this.legend = el('div', { class: 'legend' });
    this.drawing = svg('svg', { role: 'img', tabindex: '0' });
    this.element = el('div', { class: 'card chart' },
      el('h3', {}, el('span', {}, spec.title), this.at), this.legend,
      spec.hint && el('p', { class: 'hint' }, spec.hint), this.drawing);
    this.drawing.addEventListener('pointermove', (event) => this.point(event));
    this.drawing.addEventListener('pointerleave', () => hover(null));
    this.drawing.addEventListener('blur', () => hover(null));
    this.drawing.addEventListener('keydown', (event) => this.key(event));
    new ResizeObserver(() => this.draw()).observe(this.drawing);
    view.charts.add(this);
  }

  update(data) {
    this.data = data;
    this.draw();
  }

  /** The series that the run has, with their points. */
  lines() {
    const { steps } = this.data.curves;
    const present = this.spec.series.filter(({ metric }) => this.data.curves.metrics[metric]);
    return present.map((series, at) => {
      const values = column(this.data, series.metric);
      const points = [];
      const broken = [];
      steps.forEach((step, place) => {
        if (isNumber(values[place])) points.push([step, values[place], place]);
        else if (values[place] === 'NaN') broken.push(step);
      });
      return { ...series, values, points, broken, color: at + 1, smooth: smooth(points), spreads: this.spreads(series, points) };
    });
  }

  spreads({ spread, deviation }, points) {
    const bounds = (at, value) => {
      if (deviation) {
        const width = column(this.data, deviation)[at];
        return isNumber(width) ? [value - width, value + width] : null;
      }
      const [low, high] = spread.map((name) => column(this.data, name)[at]);
      return isNumber(low) && isNumber(high) ? [low, high] : null;
    };
    if (!spread && !deviation) return [];
    return points.map(([step, value, at]) => [step, bounds(at, value)]).filter(([, pair]) => pair);
  }

  draw() {
    if (!this.data) return;
    const width = this.drawing.clientWidth || 320;
    const lines = this.lines();
    const { steps } = this.data.curves;
    const values = lines.flatMap(({ points, spreads }) => [...points.map(([, value]) => value), ...spreads.flatMap(([, pair]) => pair)]);
    this.drawn = lines;
    const y = this.vertical(values);
    this.labels = this.axis(y);
    this.left = 12 + 6 * Math.max(4, ...this.labels.map(([, label]) => label.length));
    this.x = scale(extent(steps), [this.left, width - MARGIN.right]);
    this.drawing.setAttribute('viewBox', `0 0 ${width} ${HEIGHT}`);
    this.drawing.setAttribute('aria-label', this.describe(lines));
    this.cross = svg('g', {});
    this.drawing.replaceChildren(
      ...this.frame(width, y), ...this.guides(width, y), ...lines.flatMap((line) => this.line(line, y)), this.cross);
    this.y = y;
    this.show();
  }

  vertical(values) {
    const positive = values.length > 0 && values.every((value) => value > 0);
    const log = positive && (view.log || (this.spec.log && Math.max(...values) > 100 * Math.min(...values)));
    let [low, high] = extent(values);
    if (log) return { ...scale([Math.log10(low), Math.log10(high)], [HEIGHT - MARGIN.bottom, MARGIN.top], Math.log10), low, high, log };
    if (low === high) { const pad = Math.abs(low) * 0.1 || 1; low -= pad; high += pad; }
    const pad = (high - low) * 0.06;
    const floor = low >= 0 && low - pad < 0 ? 0 : low - pad;
    return { ...scale([floor, high + pad], [HEIGHT - MARGIN.bottom, MARGIN.top]), low: floor, high: high + pad, log };
  }

  /** The values that get a line and a label. */
  axis(y) {
    const [{ metric } = { metric: '' }] = this.drawn;
    const values = y.log ? decades(y.low, y.high) : metricTicks(metric, y.low, y.high);
    return values.map((value) => [value, axisLabel(metric, value)]);
  }

  frame(width, y) {
    const parts = this.labels.flatMap(([value, label]) => [
      svg('line', { class: 'grid', x1: this.left, x2: width - MARGIN.right, y1: y.to(value), y2: y.to(value) }),
      svg('text', { x: this.left - 6, y: y.to(value) + 3.5, 'text-anchor': 'end' }, label),
    ]);
    const { steps } = this.data.curves;
    const bottom = HEIGHT - MARGIN.bottom;
    parts.push(svg('line', { class: 'axis', x1: this.left, x2: width - MARGIN.right, y1: bottom, y2: bottom }));
    for (const step of ticks(...extent(steps), width / 75).filter(Number.isInteger)) {
      parts.push(svg('text', { x: this.x.to(step), y: HEIGHT - 5, 'text-anchor': 'middle' }, step.toLocaleString('en-US')));
    }
    return parts;
  }

  /** Where a healthy curve is expected, as far as it is in sight. */
  guides(width, y) {
    const { healthy, guide } = this.spec;
    const clamp = (value) => Math.max(MARGIN.top, Math.min(HEIGHT - MARGIN.bottom, y.to(value)));
    const parts = [];
    if (healthy && !y.log) {
      const [top, bottom] = [clamp(healthy[1]), clamp(healthy[0])];
      parts.push(svg('rect', { class: 'healthy', x: this.left, width: width - this.left - MARGIN.right, y: top, height: Math.max(0, bottom - top) }));
    }
    if (guide !== undefined && !y.log && guide > y.low && guide < y.high) {
      parts.push(svg('line', { class: 'guide', x1: this.left, x2: width - MARGIN.right, y1: y.to(guide), y2: y.to(guide) }));
    }
    return parts;
  }

  line({ points, broken, color, smooth: smoothed, spreads }, y) {
    const place = ([step, value]) => `${this.x.to(step).toFixed(1)},${y.to(value).toFixed(1)}`;
    const path = (all) => `M${all.map(place).join('L')}`;
    const parts = [];
    if (spreads.length > 1) {
      const [low, high] = [0, 1].map((side) => spreads.map(([step, pair]) => [step, pair[side]]));
      parts.push(svg('path', { class: 'spread', d: `${path(high)}L${low.reverse().map(place).join('L')}Z` }));
    }
    if (view.smoothing > 0 && points.length > 1) parts.push(svg('path', { class: 'line raw', d: path(points) }));
    if (smoothed.length > 1) parts.push(svg('path', { class: 'line', d: path(smoothed) }));
    if (points.length > 0 && points.length <= 30 && view.smoothing === 0) {
      parts.push(...points.map(([step, value]) => svg('circle', { class: 'dot', cx: this.x.to(step), cy: y.to(value), r: points.length === 1 ? 3 : 2 })));
    }
    parts.push(...broken.slice(-200).map((step) => svg('text', { class: 'broken', x: this.x.to(step), y: HEIGHT - MARGIN.bottom - 2, 'text-anchor': 'middle' }, '×')));
    return [svg('g', { class: `c${color}` }, parts)];
  }

  /** Shows the values at the step under the pointer, or the last ones. */
  show() {
    if (!this.drawn) return;
    const { steps } = this.data.curves;
    const at = view.hover === null ? null : nearest(steps, view.hover);
    this.at.textContent = at === null ? '' : `at ${steps[at].toLocaleString('en-US')}`;
    this.legend.replaceChildren(...this.drawn.map(({ metric, label, color, values, points }) => {
      const value = at === null ? (values.at(-1) ?? points.at(-1)?.[1]) : values[at];
      return el('span', { class: `c${color}`, title: metric }, el('i'), label || metric, el('b', {}, shown(metric, value)));
    }));
    this.cross.replaceChildren();
    if (at === null) return;
    const x = this.x.to(steps[at]);
    this.cross.append(svg('line', { class: 'hover', x1: x, x2: x, y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom }));
    for (const { values, color } of this.drawn) {
      if (isNumber(values[at])) this.cross.append(svg('g', { class: `c${color}` }, svg('circle', { class: 'dot', cx: x, cy: this.y.to(values[at]), r: 3.4 })));
    }
  }

  point(event) {
    const box = this.drawing.getBoundingClientRect();
    hover(this.x.from(event.clientX - box.left));
  }

  key(event) {
    const { steps } = this.data.curves;
    const move = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -Infinity, End: Infinity }[event.key];
    if (event.key === 'Escape') hover(null);
    if (move === undefined || steps.length === 0) return;
    event.preventDefault();
    const from = view.hover === null ? steps.length - 1 : nearest(steps, view.hover);
    hover(steps[Math.max(0, Math.min(steps.length - 1, from + move))]);
  }

  describe(lines) {
    const said = lines.filter(({ points }) => points.length > 0).map(({ metric, label, points }) => {
      const values = points.map(([, value]) => value);
      const [low, high] = extent(values).map((value) => shown(metric, value));
      return `${label || metric}: first ${shown(metric, values[0])}, last ${shown(metric, values.at(-1))}, from ${low} to ${high}`;
    });
    return `${this.spec.title} over the steps. ${said.join('; ') || 'no values yet'}. Arrow keys show single values.`;
  }
}

/** Shows a step in every chart; null shows the last. */
function hover(step) {
  if (step === view.hover) return;
  view.hover = step;
  for (const chart of view.charts) if (chart.element.isConnected) chart.show();
}

function redraw() {
  for (const chart of view.charts) if (chart.element.isConnected) chart.draw();
}

/** An exponential mean, whose beginning is not drawn to zero. */
function smooth(points) {
  let sum = 0;
  let weight = 0;
  return points.map(([step, value]) => {
    sum = view.smoothing * sum + (1 - view.smoothing) * value;
    weight = view.smoothing * weight + (1 - view.smoothing);
    return [step, sum / weight];
  });
}

function extent(values) {
  if (values.length === 0) return [0, 1];
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) { if (value < low) low = value; if (value > high) high = value; }
  return [low, high];
}

function scale([low, high], [start, end], along = (value) => value) {
  const range = high - low || 1;
  return {
    to: (value) => (high === low ? (start + end) / 2 : start + ((along(value) - low) / range) * (end - start)),
    from: (place) => low + ((place - start) / (end - start)) * range,
  };
}

/** Round numbers between two values, about so many. */
function ticks(low, high, count) {
  const rough = (high - low) / Math.max(1, count);
  if (!(rough > 0)) return [low];
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
  const found = [];
  for (let at = Math.ceil(low / step); at * step <= high + step * 1e-9; at += 1) found.push(at === 0 ? 0 : Number((at * step).toPrecision(12)));
  return found;
}

function decades(low, high) {
  const [first, final] = [Math.ceil(Math.log10(low) - 1e-9), Math.floor(Math.log10(high) + 1e-9)];
  if (final <= first) return [low, high];
  const every = Math.ceil((final - first + 1) / 5);
  const found = [];
  for (let power = first; power <= final; power += every) found.push(10 ** power);
  return found;
}

/** Bytes are round in KiB, MiB and GiB. */
function metricTicks(metric, low, high) {
  if (!isBytes(metric) || high < 1) return ticks(low, high, 5);
  const unit = 1024 ** Math.floor(Math.log2(high) / 10);
  return ticks(low / unit, high / unit, 4).map((value) => value * unit);
}

function axisLabel(metric, value) {
  if (isBytes(metric)) return bytes(value).replace(/\.0+ /, ' ');
  return number(value).replace('.0e', 'e');
}

/** The place of the step that is nearest. */
function nearest(steps, step) {
  let best = 0;
  steps.forEach((one, at) => { if (Math.abs(one - step) < Math.abs(steps[best] - step)) best = at; });
  return best;
}
