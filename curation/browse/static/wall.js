// The wall: rows of pictures of equal height that fill the width; more come as one scrolls.
import { html, useCallback, useEffect, useLayoutEffect, useMemo, useRef, useState } from "./preact.js";
import { ask, count, pictureAddress, showValue } from "./api.js";

const ROW_HEIGHT = 168, GAP = 6;
const AHEAD_PX = 1400;
const MAX_EMPTY = 5; // pages without a picture that are asked for before the reader is asked

const ratioOf = (row) => Math.min(3.2, Math.max(0.45, (row.width || 4) / (row.height || 3)));

// Width and height of each tile: rows as wide as the wall, each as high as its pictures want; the last one is not stretched.
export function layOut(rows, width) {
  const sizes = [];
  for (let first = 0; first < rows.length && width > 0; ) {
    let last = first, ratios = 0, height = Infinity;
    while (last < rows.length && height > ROW_HEIGHT) {
      ratios += ratioOf(rows[last++]);
      height = (width - GAP * (last - first - 1)) / ratios;
    }
    height = Math.min(height, ROW_HEIGHT * 1.35);
    const isShort = last === rows.length && height >= ROW_HEIGHT;
    const shown = isShort ? ROW_HEIGHT : height;
    for (; first < last; first++) sizes.push([Math.floor(ratioOf(rows[first]) * shown * 100) / 100, Math.round(shown)]);
  }
  return sizes;
}

export function Tile({ row, size, isSelected, isStop, isVeiled, isMarked, onPress }) {
  const label = `${row.caption || "no caption"}. ${row.kept === false ? `Not kept: ${row.reason}.` : ""}`;
  const values = Object.entries(row.values).filter(([, value]) => value !== null);
  const isRefused = row.kept === false && row.status === "ok"; // of others the drawing says why there is no picture
  return html`<button
    type="button" data-uid=${row.uid} onClick=${onPress} tabindex=${isStop ? 0 : -1}
    aria-label=${isVeiled ? "Blurred: no score calls this picture safe" : label} aria-current=${isSelected ? "true" : undefined}
    class=${`tile${isSelected ? " selected" : ""}${isVeiled ? " veiled" : ""}${isMarked ? " marked" : ""}`}
    style=${{ width: `${size[0]}px`, height: `${size[1]}px` }}>
    <img src=${pictureAddress(row.uid)} alt="" loading="lazy" decoding="async" draggable=${false} />
    ${isVeiled && html`<span class="veil">click to show</span>`}
    ${isMarked && html`<span class="mark" aria-hidden="true">✓</span>`}
    <span class="legend">
      <span class="facts">
        ${isRefused && html`<b class="reason">${row.reason}</b>`}
        ${values.map(([name, value]) => html`<span class="value"><i>${name}</i> ${showValue(value)}</span>`)}
      </span>
      <span class="caption">${isVeiled ? "" : row.caption || "no caption"}</span>
    </span>
  </button>`;
}

// `asked` is the question; `controls.current` gets what the keyboard does here.
export function Wall({ asked, numUnits, revealed, marks, onReveal, onOpen, onSelect, controls, onActive, empty }) {
  const [rows, setRows] = useState([]);
  const [state, setState] = useState({ cursor: "", busy: true, error: "", done: false, numUnits: 0, paused: false });
  const [selected, setSelected] = useState(-1);
  const end = useRef(null), box = useRef(null), going = useRef(null), emptyPages = useRef(0);
  const [width, setWidth] = useState(0);
  const key = JSON.stringify(asked);
  const sizes = useMemo(() => layOut(rows, width), [rows, width]);

  useLayoutEffect(() => {
    const tiles = box.current.querySelector(".tiles");
    const measure = () => setWidth(Math.floor(tiles.getBoundingClientRect().width) - 1); // rounded up, a row would break
    const observer = new ResizeObserver(measure);
    observer.observe(tiles);
    measure();
    return () => observer.disconnect();
  }, []);

  const load = useCallback(async (cursor, before) => {
    going.current?.abort();
    const abort = (going.current = new AbortController());
    setState((old) => ({ ...old, busy: true, done: false, error: "", paused: false }));
    let page;
    try {
      page = await ask(asked.like || asked.meaning || asked.marked ? "near" : "wall", { ...asked, cursor }, abort.signal);
    } catch {
      return; // another question has taken its place
    }
    if (abort.signal.aborted) return;
    going.current = null;
    if (page.error) {
      setState((old) => ({ ...old, busy: false, error: page.error, done: true }));
      return;
    }
    emptyPages.current = page.rows.length ? 0 : emptyPages.current + 1;
    const known = new Set(before.map((row) => row.uid));
    setRows([...before, ...page.rows.filter((row) => !known.has(row.uid))]);
    const paused = emptyPages.current >= MAX_EMPTY;
    const missed = page.num_all > page.num_units ? `the nearest of ${count(page.num_units)} of ${count(page.num_all)} units: the time was over` : "";
    setState({ cursor: page.cursor, busy: false, error: "", done: !page.cursor, numUnits: page.num_units, paused, missed });
  }, [key]);

  useEffect(() => {
    setRows([]);
    setSelected(-1);
    emptyPages.current = 0;
    box.current?.scrollTo(0, 0);
    load("", []);
    return () => going.current?.abort();
  }, [key]);

  useEffect(() => {
    if (state.busy || state.done || state.paused) return undefined;
    const observer = new IntersectionObserver((seen) => seen[0].isIntersecting && load(state.cursor, rows), {
      root: box.current, rootMargin: `${AHEAD_PX}px`,
    });
    observer.observe(end.current);
    return () => observer.disconnect();
  }, [state, rows]);

  const select = (number) => {
    if (number < 0 || number >= rows.length) return;
    setSelected(number);
    const tile = box.current.querySelectorAll(".tile")[number];
    tile?.focus({ preventScroll: true });
    tile?.scrollIntoView({ block: "nearest" });
    onSelect?.(rows[number]);
  };
  const press = (number) => {
    const row = rows[number];
    onActive?.();
    select(number);
    if (!row.is_safe && row.status === "ok" && !revealed.has(row.uid)) onReveal(row.uid);
    else onOpen(row.uid);
  };
  if (controls) {
    controls.current = {
      row: () => rows[selected],
      move: (step) => select(selected < 0 ? 0 : selected + step),
      moveRow: (step) => select(selected < 0 ? 0 : findInRow(box.current, selected, step)),
    };
  }
  const isEmpty = !rows.length && !state.busy && state.done && !state.error;
  return html`<div class="wall" ref=${box} tabindex="-1" aria-busy=${state.busy} onFocusIn=${onActive}>
    ${state.error && html`<p class="error" role="alert">${state.error}</p>`}
    <div class="tiles">
      ${rows.map((row, number) => html`<${Tile}
        key=${row.uid} row=${row} size=${sizes[number] ?? [0, 0]} isSelected=${number === selected} isStop=${number === Math.max(0, selected)}
        isVeiled=${!row.is_safe && row.status === "ok" && !revealed.has(row.uid)}
        isMarked=${marks?.has(row.uid)} onPress=${() => press(number)} />`)}
      ${state.busy && !rows.length && Array.from({ length: 24 }, (_, k) => html`<span class="ghost" style=${{ flexGrow: 1, width: `${150 + (k % 3) * 60}px` }} />`)}
    </div>
    ${isEmpty && (empty ?? html`<p class="nothing">No row of the root fulfils this. <small>Null never does: write <code>coalesce(column, …)</code> or <code>column is null</code>.</small></p>`)}
    <div class="end" ref=${end}>
      ${state.busy && rows.length > 0 && html`<span class="spinner" role="status">more…</span>`}
      ${!state.busy && !state.done && numUnits > 1 && html`<span>${count(state.numUnits)} of ${count(numUnits)} units looked through</span>`}
      ${state.paused && html`<button type="button" onClick=${() => { emptyPages.current = 0; load(state.cursor, rows); }}>Look on</button>`}
      ${state.done && rows.length > 0 && !state.error && html`<span>${state.missed || `${count(rows.length)} shown, and that is all`}</span>`}
    </div>
  </div>`;
}

// The number of the tile in the row above or below whose middle is nearest to that of tile `from`.
function findInRow(box, from, step) {
  const tiles = [...box.querySelectorAll(".tile")];
  const middle = (tile) => tile.offsetLeft + tile.offsetWidth / 2;
  const tops = [...new Set(tiles.map((tile) => tile.offsetTop))];
  const top = tops[tops.indexOf(tiles[from].offsetTop) + step];
  if (top === undefined) return from;
  const row = tiles.map((tile, number) => [tile, number]).filter(([tile]) => tile.offsetTop === top);
  row.sort((a, b) => Math.abs(middle(a[0]) - middle(tiles[from])) - Math.abs(middle(b[0]) - middle(tiles[from])));
  return row[0][1];
}
