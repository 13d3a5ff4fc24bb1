// Charts as inline SVG. Everything becomes an element or a text node: no answer's text is ever read as markup.
'use strict';

const SVG = 'http://www.w3.org/2000/svg';
const WIDTH = 440, HEIGHT = 150, LEFT = 34, RIGHT = 8, TOP = 10, BOTTOM = 20;

function drawn(name, attributes, text) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

// About four round numbers from low to high.
function ticks(low, high) {
  const rough = (high - low) / 3 || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map(each => each * power).find(each => each >= rough);
  const found = [];
  for (let value = Math.ceil(low / step) * step; value <= high + step / 1e6; value += step) found.push(value);
  return found;
}

function extent(series, least, from_zero) {
  const values = series.flatMap(each => each.points.map(point => point[1]));
  let low = from_zero ? 0 : Math.min(...values), high = Math.max(...values);
  if (high - low < least) {
    const more = least - (high - low);
    high += from_zero ? more : more / 2;
    low -= from_zero ? 0 : more / 2;
  }
  return [low, high];
}

// Where a line may not be drawn through: more than three times the usual distance of two points.
function pieces(points) {
  const gaps = points.slice(1).map((point, index) => point[0] - points[index][0]).sort((a, b) => a - b);
  const most = 3 * Math.max(gaps[Math.floor(gaps.length / 2)] || 0, 1000);
  const found = [];
  for (const point of points) {
    const last = found[found.length - 1];
    if (last && point[0] - last[last.length - 1][0] <= most) last.push(point); else found.push([point]);
  }
  return found;
}

// series: [{points: [[ms, number], …], kind: 'line'|'bar'|'dot', colour, thin}]; options: title, from, to, least, zero, zone
function chart(series, options) {
  const shown = series.filter(each => each.points.length);
  const svg = drawn('svg', {viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: 'img', 'aria-label': options.title});
  if (!shown.length) return svg;
  const [low, high] = options.range || extent(shown, options.least, options.zero);
  const x = at => LEFT + (at - options.from) / (options.to - options.from) * (WIDTH - LEFT - RIGHT);
  const y = value => HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM);
  for (const value of options.ticks || ticks(low, high)) {
    svg.append(drawn('line', {class: 'grid', x1: LEFT, x2: WIDTH - RIGHT, y1: y(value), y2: y(value)}));
    const text = options.names ? options.names[value] : String(Math.round(value * 100) / 100);
    svg.append(drawn('text', {x: LEFT - 6, y: y(value) + 4, 'text-anchor': 'end'}, text));
  }
  timeMarks(options).forEach(mark => {
    svg.append(drawn('line', {class: 'grid', x1: x(mark.at), x2: x(mark.at), y1: TOP, y2: HEIGHT - BOTTOM}));
    if (mark.text) svg.append(drawn('text', {x: x(mark.at), y: HEIGHT - 5, 'text-anchor': 'middle'}, mark.text));
  });
  for (const each of shown) plot(svg, each, x, y, low);
  return svg;
}

function plot(svg, series, x, y, low) {
  if (series.kind === 'bar') {
    const width = Math.max(2, (WIDTH - LEFT - RIGHT) / 48 - 2);
    for (const [at, value] of series.points) {
      if (value <= low) continue;
      svg.append(drawn('rect', {class: 'bar', x: x(at) - width / 2, y: y(value), width, height: y(low) - y(value), rx: 1}));
    }
  } else if (series.kind === 'dot') {
    for (const [at, value] of series.points) svg.append(drawn('circle', {class: 'dot', cx: x(at), cy: y(value), r: 2.2}));
  } else {
    for (const piece of pieces(series.points)) {
      const path = piece.map(([at, value], index) => `${index ? 'L' : 'M'}${x(at).toFixed(1)} ${y(value).toFixed(1)}`);
      // A path of one point is seen by its round ends alone.
      const all = path.join('') + (piece.length === 1 ? 'h0.01' : '');
      svg.append(drawn('path', {class: `line ${series.colour}${series.thin ? ' thin' : ''}`, d: all}));
    }
  }
}

// Every sixth hour of the platform's own zone; midnight has the day's name.
function timeMarks(options) {
  const found = [];
  const hour = new Intl.DateTimeFormat('en-GB', {timeZone: options.zone, hour: '2-digit', hourCycle: 'h23'});
  const day = new Intl.DateTimeFormat('en-GB', {timeZone: options.zone, weekday: 'short', day: 'numeric'});
  for (let at = Math.ceil(options.from / 3600000) * 3600000; at <= options.to; at += 3600000) {
    const now = Number(hour.format(at));
    if (now % 12 === 0) found.push({at, text: now === 0 ? day.format(at) : '12 h'});
    else if (now % 6 === 0) found.push({at, text: ''});
  }
  return found;
}
