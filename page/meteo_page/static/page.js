// The page: asks the API every 15 seconds and shows the answers. Texts are set as text, never as markup.
'use strict';

const EVERY = 15000;
const MARKS = {ok: '✓', late: '!', stopped: '✕', unknown: '?'};
const TIERS = {kafka: 'Kafka', postgresql: 'PostgreSQL', hdfs: 'HDFS', aggregates: 'aggregates', hbase: 'HBase'};
const STATES = {ok: 'in time', late: 'late', stopped: 'stands still'};
const COUNTS = {
  rows: 'rows in PostgreSQL', dead_letters: 'dead letters', gap_records: 'records lost in gaps', days: 'days in HDFS',
  rows_to_export: 'rows to export', days_changed: 'days to aggregate', days_owed_to_hbase: 'days owed to HBase',
};
const page = {chosen: null, stations: [], zone: 'UTC'};

const part = id => document.getElementById(id);

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children.filter(each => each !== null && each !== undefined).map(each => each instanceof Node ? each : String(each)));
  return made;
}

function table(headings, rows, numbers = []) {
  const kind = index => numbers.includes(index) ? {class: 'number'} : {};
  const head = element('thead', {}, element('tr', {}, ...headings.map((text, index) => element('th', {scope: 'col', ...kind(index)}, text))));
  const body = rows.map(row => element('tr', {}, ...row.map((cell, index) =>
    index === 0 ? element('th', {scope: 'row'}, cell) : element('td', kind(index), cell))));
  return element('table', {}, head, element('tbody', {}, ...body));
}

function age(instant) {
  return instant ? `${span((Date.now() - Date.parse(instant)) / 1000)} ago` : '–';
}

function span(seconds) {
  const s = Math.max(0, seconds);
  if (s < 120) return `${Math.round(s)} s`;
  if (s < 7200) return `${Math.round(s / 60)} min`;
  if (s < 172800) return `${(s / 3600).toFixed(1)} h`;
  return s < 63072000 ? `${Math.round(s / 86400)} days` : `${Math.floor(s / 31557600)} years`;
}

function when(instant) {
  const options = {timeZone: page.zone, dateStyle: 'medium', timeStyle: 'short'};
  return new Intl.DateTimeFormat('en-GB', options).format(Date.parse(instant));
}

const number = (value, digits = 0) => value === null || value === undefined ? '–' : Number(value).toLocaleString('en-GB', {maximumFractionDigits: digits, minimumFractionDigits: digits});

async function ask(path) {
  let answer;
  try {
    answer = await fetch(path, {headers: {Accept: 'application/json'}, signal: AbortSignal.timeout(12000)});
  } catch (error) {
    throw new Error('The page’s own service does not answer; ./meteo status says what runs, ./meteo restart page starts it again.');
  }
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(body.detail || `The page’s service answered with ${answer.status}.`);
  return body;
}

function tell(id, sentence) {
  part(id).hidden = !sentence;
  part(id).textContent = sentence || '';
}

function showVerdict(state) {
  const worst = state.hops.some(hop => hop.state === 'stopped') ? 'stopped' : 'late';
  const kind = state.fresh ? 'ok' : worst;
  part('verdict').className = `verdict ${kind}`;
  part('mark').textContent = MARKS[kind];
  part('sentence').textContent = state.sentence;
  part('why').textContent = state.why;
  // Told aloud when it changes, not every 15 seconds.
  if (page.told !== `${kind} ${state.hop}`) part('announcement').textContent = state.sentence;
  page.told = `${kind} ${state.hop}`;
  part('remedy').textContent = state.remedy;
  part('chain').replaceChildren(...state.hops.map(hop => element('li', {class: hop.state},
    element('b', {}, hop.name), element('span', {class: `state ${hop.state}`}, `${MARKS[hop.state]} ${STATES[hop.state]}`))));
  part('concerns').hidden = !state.concerns.length;
  part('concerns').replaceChildren(...state.concerns.map(concern => element('li', {class: 'note'},
    concern.sentence, ' ', element('b', {}, concern.remedy))));
  document.title = state.fresh ? 'meteo: fresh' : `meteo: ${state.hop || 'not fresh'}`;
  part('read').textContent = `read ${when(state.at)}`;
}

function showHops(state) {
  part('hops').replaceChildren(...state.hops.map(hop => element('div', {class: `hop ${hop.state}`},
    element('b', {}, hop.name, element('span', {class: 'quiet'}, hop.title)),
    element('span', {class: `state ${hop.state}`}, STATES[hop.state]),
    element('div', {class: 'words'}, element('p', {}, hop.sentence), hop.remedy ? element('p', {class: 'remedy'}, hop.remedy) : null))));
}

function showTiers(state) {
  const tiers = Object.keys(TIERS).filter(tier => tier !== 'hbase' || state.hbase_enabled);
  const rows = state.stations.map(station => [element('span', {}, station.city, element('span', {class: 'quiet'}, ` ${station.station_id}`)),
    ...tiers.map(tier => age(station.newest_observed_at[tier]))]);
  part('freshness').replaceChildren(rows.length ? table(['station', ...tiers.map(tier => TIERS[tier])], rows) : 'No observation yet.');
  const lag = Object.values(state.lag).reduce((sum, each) => sum + each, 0);
  const counts = Object.entries(COUNTS).filter(([name]) => name in state.counts).map(([name, title]) => [title, number(state.counts[name])]);
  const changed = state.changed_days.map(day => element('li', {}, `${day.day} changed ${age(day.changed_at)}, by ${number(day.late_rows)} late rows`));
  part('counts').replaceChildren(table(['count', 'now'], [['records behind (lag)', number(lag)], ...counts], [1]),
    changed.length ? element('ul', {class: 'plain'}, ...changed) : '');
}

function showCycles(state) {
  const rows = state.cycles.map(cycle => [cycle.service, age(cycle.last_success_at),
    cycle.interval_seconds ? `every ${span(cycle.interval_seconds)}` : '–',
    cycle.duration_seconds ? `${number(cycle.duration_seconds, 1)} s` : '–', number(cycle.failed)]);
  const report = state.reconciliation;
  let sentence = 'The tiers have not been reconciled yet; ./meteo reconcile does it.';
  if (report) {
    const days = Object.entries(report.days).map(([name, count]) => `${number(count)} ${name}`).join(', ');
    sentence = report.mismatches
      ? `${number(report.mismatches)} mismatches at the reconciliation ${age(report.at)}: ./meteo reconcile names them.`
      : `Reconciled ${age(report.at)}: no mismatch; days: ${days}.`;
  }
  part('cycles').replaceChildren(table(['service', 'last', 'due', 'took', 'failed'], rows, [4]),
    element('p', {class: report && report.mismatches ? 'state stopped' : 'quiet'}, sentence));
}

function showBudgets(state) {
  const rows = state.budgets.map(budget => [budget.account, span(budget.window_seconds), `${number(budget.used)} of ${number(budget.limit)}`,
    budget.key_refused ? 'key refused' : budget.paused_seconds > 0 ? `paused ${span(budget.paused_seconds)}` : `${number(100 * budget.used / budget.limit)} %`]);
  part('budgets').replaceChildren(rows.length ? table(['account', 'within', 'used', 'share'], rows, [2, 3])
    : element('p', {class: 'quiet'}, 'The producer has told no budget: it is away, or its source has none.'));
}

function showServers(state) {
  const mark = up => element('span', {class: `state ${up ? 'ok' : 'stopped'}`}, up ? '✓ up' : '✕ away');
  const servers = state.servers.map(server => [server.title, mark(server.up), '']);
  const services = state.services.map(service => [service.name,
    service.deployed ? mark(service.up) : element('span', {class: 'quiet'}, 'not deployed'),
    service.waiting_for ? `waits: ${service.waiting_for}` : service.since ? when(service.since) : '']);
  part('servers').replaceChildren(table(['name', 'state', 'since'], [...servers, ...services]));
  const links = state.links.map(link => element('li', {}, element('a', {href: link.url, rel: 'noreferrer'}, link.title), ` · ${link.service}`));
  const notes = state.notes.map(note => element('p', {}, note));
  part('links').replaceChildren(links.length ? element('ul', {class: 'plain'}, ...links) : 'No other page is deployed.', ...notes);
}

// Two stations of one city are told apart by what follows the source in their ids.
function placeName(station) {
  const place = [station.city, station.country].filter(Boolean).join(', ');
  const alone = page.stations.filter(each => each.city === station.city && each.source === station.source).length < 2;
  return alone ? place : `${place} ${station.station_id.split(':')[1]}`;
}

function showStations() {
  if (!page.stations.some(each => each.station_id === page.chosen)) page.chosen = page.stations.length ? page.stations[0].station_id : null;
  const focused = document.activeElement && document.activeElement.dataset.station;
  part('stations').replaceChildren(...page.stations.map(station => {
    const has = station.observation;
    const facts = [['humidity_percent', '%'], ['wind_speed_mps', 'm/s'], ['precipitation_1h_mm', 'mm'], ['pressure_hpa', 'hPa']]
      .filter(([name]) => has[name] !== null && has[name] !== undefined)
      .map(([name, unit]) => element('span', {}, `${number(has[name], unit === 'm/s' || unit === 'mm' ? 1 : 0)} ${unit}`));
    const button = element('button', {type: 'button', 'data-station': station.station_id, 'aria-pressed': String(station.station_id === page.chosen)},
      element('span', {class: 'city'}, placeName(station),
        station.data_origin === 'api' ? null : element('span', {class: 'quiet'}, station.data_origin)),
      element('div', {class: 'degrees'}, `${number(has.temperature_celsius, 1)} °C`),
      element('div', {class: 'facts'}, ...facts),
      element('div', {class: 'facts'}, has.condition || '', element('span', {}, `observed ${age(station.observed_at)}`)));
    button.addEventListener('click', () => { page.chosen = station.station_id; showStations(); showStation(); });
    return button;
  }));
  if (focused) [...part('stations').children].find(each => each.dataset.station === focused)?.focus();
}

const CHARTS = [
  ['Temperature (dashed: as it feels)', '°C', [{field: 'temperature_celsius', colour: 'one'}, {field: 'apparent_temperature_celsius', colour: 'one', thin: true}], {least: 4}],
  ['Precipitation of the last hour', 'mm', [{field: 'precipitation_1h_mm', kind: 'bar', hourly: true}], {least: 1, zero: true}],
  ['Wind (dashed: gusts)', 'm/s', [{field: 'wind_speed_mps', colour: 'two'}, {field: 'wind_gust_mps', colour: 'two', thin: true}], {least: 4, zero: true}],
  ['Wind from', '', [{field: 'wind_direction_degrees', kind: 'dot'}], {range: [0, 360], ticks: [0, 90, 180, 270, 360], names: {0: 'N', 90: 'E', 180: 'S', 270: 'W', 360: 'N'}}],
  ['Humidity', '%', [{field: 'humidity_percent', colour: 'three'}], {range: [0, 100], ticks: [0, 50, 100]}],
  ['Pressure', 'hPa', [{field: 'pressure_hpa', colour: 'three'}], {least: 6}],
];

// The largest value of each hour: a poll every ten minutes tells the same hour six times.
function hourly(points) {
  const hours = new Map();
  for (const [at, value] of points) {
    const hour = Math.floor(at / 3600000) * 3600000;
    hours.set(hour, Math.max(value, hours.get(hour) || 0));
  }
  return [...hours];
}

function figures(observations, newest) {
  const span = {to: newest, from: newest - 48 * 3600000, zone: page.zone};
  return CHARTS.map(([title, unit, series, options]) => {
    const filled = series.map(each => {
      const points = observations.map(row => [Date.parse(row.observed_at), row[each.field]]).filter(point => point[1] !== null && point[1] !== undefined);
      return {...each, points: each.hourly ? hourly(points) : points};
    }).filter(each => each.points.length);
    if (!filled.length) return null;
    const last = filled[0].points[filled[0].points.length - 1][1];
    const value = options.names ? `${number(last)}°` : `${number(last, unit === '%' || unit === 'hPa' ? 0 : 1)} ${unit}`;
    const label = `${title}, the last 48 hours up to ${when(new Date(newest).toISOString())}; the last value is ${value}`;
    return element('figure', {}, element('figcaption', {}, title, element('b', {}, value)), chart(filled, {...span, ...options, title: label}));
  }).filter(Boolean);
}

async function showStation() {
  const station = page.stations.find(each => each.station_id === page.chosen);
  part('station').hidden = !station;
  if (!station) return;
  const base = `api/stations/${encodeURIComponent(station.station_id)}`;
  const newest = Date.parse(station.observed_at);
  const old = Date.now() - newest > 48 * 3600000;
  part('station-title').textContent = `${station.city}: ${old ? 'the last 48 hours that there are' : 'the last 48 hours'}`;
  part('station-about').textContent = `${station.station_id} · observed ${when(station.observed_at)} · times in ${page.zone}`;
  const chosen = station.station_id;
  // Without it HBase would read all of the station's days for each refresh.
  const since = new Date(newest - 14 * 86400000).toISOString().slice(0, 10);
  const [weather, days] = await Promise.allSettled([ask(`${base}/observations?limit=10000`), ask(`${base}/aggregates?from=${since}&limit=14`)]);
  if (chosen !== page.chosen) return;
  const sentence = weather.status === 'rejected' ? weather.reason.message
    : old ? `This weather is old: its newest observation is of ${when(station.observed_at)}, ${age(station.observed_at)}.` : '';
  tell('station-note', sentence);
  if (weather.status === 'fulfilled') part('charts').replaceChildren(...figures(weather.value.observations, newest));
  tell('days-note', days.status === 'rejected' ? days.reason.message : '');
  if (days.status === 'fulfilled') showDays(days.value);
}

function showDays(answer) {
  const source = answer.read_from === 'hbase' ? 'from HBase' : 'from HDFS';
  part('days-title').textContent = `Daily aggregates, ${source}`;
  const rows = [...answer.aggregates].reverse().map(day => [day.date, number(day.observations), number(day.temperature_avg_celsius, 1),
    number(day.temperature_min_celsius, 1), number(day.temperature_max_celsius, 1), number(day.precipitation_1h_sum_mm, 1),
    number(day.humidity_avg_percent), number(day.pressure_avg_hpa), number(day.wind_speed_avg_mps, 1), day.aqi_avg === null ? '–' : `${number(day.aqi_avg, 1)}`]);
  const headings = ['day', 'obs.', '°C avg', 'min', 'max', 'rain mm', 'hum. %', 'hPa', 'wind m/s', 'air index'];
  part('days').replaceChildren(rows.length ? table(headings, rows, [1, 2, 3, 4, 5, 6, 7, 8, 9]) : 'No day is aggregated yet; ./meteo aggregate does it.');
}

async function refresh() {
  const [state, stations] = await Promise.allSettled([ask('api/pipeline'), ask('api/stations')]);
  if (state.status === 'fulfilled') {
    page.zone = state.value.weather_timezone;
    for (const show of [showVerdict, showHops, showTiers, showCycles, showBudgets, showServers]) show(state.value);
  } else {
    part('verdict').className = 'verdict stopped';
    part('mark').textContent = MARKS.unknown;
    part('sentence').textContent = 'Nobody knows whether the weather is fresh.';
    part('why').textContent = state.reason.message;
    part('remedy').textContent = '';
  }
  if (stations.status === 'fulfilled') page.stations = stations.value.stations;
  const kept = page.stations.length ? ' What is shown here was read before.' : '';
  tell('weather-note', stations.status === 'rejected' ? stations.reason.message + kept
    : page.stations.length ? '' : 'There is no weather yet; ./meteo produce --source replay plays a recorded year.');
  page.stations.sort((a, b) => Number(b.current) - Number(a.current) || Date.parse(b.observed_at) - Date.parse(a.observed_at) || a.city.localeCompare(b.city));
  showStations();
  await showStation();
  document.body.dataset.shown = String(Number(document.body.dataset.shown || 0) + 1);
}

async function live() {
  try { await refresh(); } finally { setTimeout(live, EVERY); }
}
live();
