'use strict';

// Whoever tests the page looks here.
addEventListener('error', (event) => { document.documentElement.dataset.error = event.message; });
addEventListener('unhandledrejection', (event) => { document.documentElement.dataset.error = String(event.reason); });

// ---- elements ----

const byId = (id) => document.getElementById(id);

/** Makes an element. Strings become text: nothing is ever read as markup. */
function el(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** Makes an element of a drawing. */
function svg(tag, attributes, ...children) {
  return fill(document.createElementNS('http://www.w3.org/2000/svg', tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? '' : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Widths are set by script: the page's policy forbids style attributes. */
function meter(share) {
  const bar = el('div', { class: 'meter' });
  bar.style.width = `${Math.max(0, Math.min(1, share)) * 100}%`;
  return bar;
}

const empty = (text) => el('p', { class: 'empty' }, text);

// ---- numbers ----

const isNumber = (value) => typeof value === 'number' && Number.isFinite(value);

/** Three or four digits. */
function number(value) {
  if (value === 'NaN') return 'not finite';
  if (!isNumber(value)) return '–';
  const size = Math.abs(value);
  if (size >= 1e15) return value.toExponential(2);
  if (size >= 1e9) return `${trim(value / 1e9, 2)} G`;
  if (size >= 1e6) return `${trim(value / 1e6, 2)} M`;
  if (size >= 1000) return Math.round(value).toLocaleString('en-US');
  if (Number.isInteger(value)) return String(value);
  if (size >= 100) return trim(value, 1);
  if (size >= 10) return trim(value, 2);
  if (size >= 0.01) return trim(value, 3);
  return value.toExponential(1);
}

/** A fixed number of digits, less the zeros behind the point. */
const trim = (value, digits) => value.toFixed(digits).replace(/(\.\d*?)0+$/, '$1').replace(/\.$/, '');

function bytes(value) {
  if (!isNumber(value)) return '–';
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let unit = 0;
  while (Math.abs(value) >= 1024 && unit < units.length - 1) { value /= 1024; unit += 1; }
  return `${unit ? value.toFixed(value < 10 ? 2 : 1) : value} ${units[unit]}`;
}

function duration(seconds) {
  if (!isNumber(seconds)) return '–';
  if (seconds === 0) return '0 s';
  if (seconds < 0.001) return `${trim(seconds * 1e6, 0)} µs`;
  if (seconds < 1) return `${trim(seconds * 1e3, seconds < 0.01 ? 1 : 0)} ms`;
  if (seconds < 60) return `${trim(seconds, seconds < 10 ? 2 : 1)} s`;
  const whole = Math.round(seconds);
  const two = (part) => String(part).padStart(2, '0');
  if (whole < 3600) return `${Math.floor(whole / 60)}:${two(whole % 60)} min`;
  if (whole < 86400) return `${Math.floor(whole / 3600)}:${two(Math.floor((whole % 3600) / 60))} h`;
  return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
}

const isBytes = (name) => name.startsWith('mem/') || name.endsWith('bytes');

/** A metric's value as its name suggests it. */
function shown(name, value) {
  if (!isNumber(value)) return number(value);
  if (isBytes(name)) return bytes(value);
  if (name.startsWith('timing_s/') || name.endsWith('/seconds')) return duration(value);
  if (name.endsWith('_ratio') && name.startsWith('perf/')) return `${trim(value * 100, 1)}%`;
  return number(value);
}

const clock = (seconds) => (seconds ? new Date(seconds * 1000).toLocaleString(undefined, { dateStyle: 'medium', timeStyle: 'medium' }) : '');
const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

// ---- data ----

/** The column of a metric, [] where there is none. */
const column = (data, name) => data.curves.metrics[name] || [];

/** The finite values of a metric, oldest first. */
const finite = (data, name) => column(data, name).filter(isNumber);

const last = (data, name) => finite(data, name).at(-1);
