// The page: a search bar, a wall of pictures, and beside it the picture that was opened.
import { html, render, useCallback, useEffect, useRef, useState } from "./preact.js";
import { ask, change, count, kindOf, readAddress, readPart, writeAddress, writePart } from "./api.js";
import { Detail } from "./detail.js";
import { Chips, Search } from "./search.js";
import { Wall } from "./wall.js";

const KEYS = [
  ["j k or ← →", "next and previous picture"], ["↑ ↓", "picture above and below"], ["space", "open and close"],
  ["n h", "nearest by embedding, by perceptual hash"],
  ["x", "mark"], ["c", "compare two selections"], ["b", "show a blurred picture"], ["/", "search"], ["Esc", "close"], ["?", "these keys"],
];
const isTyping = (target) => target.matches("input:not([type=checkbox]), textarea, select");

// How many rows are asked for; null while nobody knows.
function useCount(asked) {
  const [number, setNumber] = useState(null);
  const key = asked && !asked.like && !asked.meaning && !asked.marked ? JSON.stringify(asked) : "";
  useEffect(() => {
    const abort = new AbortController();
    setNumber(null);
    if (key) ask("count", asked, abort.signal).then((found) => setNumber(found.error ? null : found.num_rows), () => {});
    return () => abort.abort();
  }, [key]);
  return number;
}

function Nearest({ asked, root, onAsk }) {
  const ways = [...root.embeddings, "hash"], by = asked.by || root.embeddings[0];
  return html`<p class="nearest">Nearest to
    <code>${asked.like.slice(0, 8)}</code> by ${ways.map((way) => html`<button type="button" class="chip" aria-pressed=${way === by}
      onClick=${() => onAsk({ like: asked.like, by: way })}>${way === "hash" ? "perceptual hash" : way}</button> `)}
    <button type="button" class="plain" onClick=${() => history.back()}>back</button></p>`;
}

const partOf = (asked) => ({ [kindOf(asked)]: asked[kindOf(asked)] });
const say = (number) => (number === null ? "" : `${count(number)} rows`);

// Two selections side by side, whole, or each without what the other one has too.
function Compared({ asked, root, onAsk, walls, onActive, common }) {
  const left = partOf(asked), right = asked.vs.includes(":") ? readPart(asked.vs) : {}, isReady = Boolean(Object.values(right)[0]);
  const numLeft = useCount(left), numRight = useCount(isReady ? right : null);
  const numOnly = useCount(isReady ? { ...left, minus: asked.vs } : null);
  const both = numLeft === null || numOnly === null ? null : numLeft - numOnly;
  const only = [numOnly, numRight === null || both === null ? null : numRight - both];
  const minus = [asked.vs, writePart(asked)];
  return [left, right].map((part, side) => html`<section class="side" key=${side} aria-label=${side ? "The second selection" : "The first selection"}>
    <header>
      ${side ? html`<${Search} asked=${part} total="" isSecond name="second" onAsk=${(wanted) => onAsk({ ...asked, vs: writePart(wanted) })} />`
        : html`<code class="shown">${kindOf(part) === "removes" ? "removed by " : ""}${Object.values(part)[0] || "everything"}</code>`}
      <p>${say(side ? numRight : numLeft)}${only[side] !== null && html`<span> · ${count(only[side])} only here</span>`}${side === 0 && both !== null && html`<span> · ${count(both)} in both</span>`}
        ${side === 1 && html`<label><input type="checkbox" checked=${Boolean(asked.only)} onChange=${(event) => onAsk({ ...asked, only: event.target.checked ? "1" : "" })} /> only what differs</label>`}</p>
    </header>
    ${side && !isReady ? html`<p class="nothing">Write what to compare with: a condition, words, or a rule whose removals you want to see.</p>`
      : html`<${Wall} ...${common} asked=${{ ...part, minus: asked.only && isReady ? minus[side] : "" }} controls=${walls[side]} onActive=${() => onActive(side)} />`}
  </section>`);
}

function App({ root, first }) {
  const [asked, setAsked] = useState(first);
  const [summary, setSummary] = useState({});
  const [open, setOpen] = useState("");
  const [revealed, setRevealed] = useState(new Set());
  const [help, setHelp] = useState(false);
  const [marks, setMarks] = useState(new Set(root.marks?.uids)), latest = useRef(marks);
  const [notice, setNotice] = useState("");
  const walls = [useRef(null), useRef(null)], active = useRef(0);
  const isCompared = Boolean(asked.vs);
  const total = say(useCount(asked.like || asked.marked ? null : partOf(asked)));

  useEffect(() => { ask("summary").then(setSummary); }, []);
  useEffect(() => {
    const back = () => setAsked(readAddress());
    addEventListener("popstate", back);
    return () => removeEventListener("popstate", back);
  }, []);
  const onAsk = useCallback((wanted) => {
    const next = { where: "", words: "", meaning: "", removes: "", like: "", by: "", marked: "", vs: "", only: "", ...wanted };
    writeAddress(next);
    setAsked(next);
    active.current = 0;
    setOpen("");
  }, []);
  const onLike = useCallback((uid, by) => {
    if (by === "hash" || root.embeddings.length) onAsk({ like: uid, by });
  }, []);
  const mark = useCallback(async (uid) => {
    const isMarked = !latest.current.has(uid), said = await change("mark", { uid, mark: isMarked });
    setNotice(said.error ?? "");
    if (said.error) return;
    latest.current = new Set(latest.current);
    if (isMarked) latest.current.add(uid);
    else latest.current.delete(uid);
    setMarks(latest.current);
  }, []);
  const compare = () => onAsk({ ...(asked.like || asked.meaning ? {} : partOf(asked)), vs: isCompared ? "" : "removes:" });
  const reveal = useCallback((uid) => setRevealed((old) => new Set(old).add(uid)), []);

  useEffect(() => {
    const press = (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key === "Escape") { setHelp(false); setOpen(""); setNotice(""); if (isTyping(event.target)) event.target.blur(); return; }
      if (isTyping(event.target)) return;
      const here = walls[active.current].current, row = here?.row();
      const step = (work) => { event.preventDefault(); work(); };
      const actions = {
        j: () => here.move(1), ArrowRight: () => here.move(1), k: () => here.move(-1), ArrowLeft: () => here.move(-1),
        ArrowDown: () => here.moveRow(1), ArrowUp: () => here.moveRow(-1),
        " ": () => row && setOpen((old) => (old === row.uid ? "" : row.uid)),
        n: () => row && onLike(row.uid, ""), h: () => row && onLike(row.uid, "hash"),
        x: () => row && mark(row.uid),
        b: () => row && reveal(row.uid),
        c: () => document.querySelector(".top button[aria-pressed]").click(),
        "/": () => document.getElementById("search").select(),
        "?": () => setHelp((old) => !old),
      };
      const isPress = event.key === " " && event.target.matches("button:not(.tile), summary");
      if (actions[event.key] && !isPress && here) step(actions[event.key]);
    };
    addEventListener("keydown", press);
    return () => removeEventListener("keydown", press);
  }, []);

  const keep = (wanted) => onAsk(isCompared && !wanted.meaning ? { vs: asked.vs, only: asked.only, ...wanted } : wanted);
  const common = {
    numUnits: root.num_units, revealed, marks, onReveal: reveal, onOpen: setOpen, onSelect: (row) => setOpen((old) => (old ? row.uid : old)),
  };
  return html`
    <header class="top">
      <span class="name" title=${root.base}>${root.name}</span>
      <${Search} asked=${asked} total=${isCompared ? "" : total} onAsk=${keep} summary=${summary} understands=${root.understands} />
      <button type="button" aria-pressed=${isCompared} title="Two selections side by side (c)" onClick=${() => compare()}>Compare</button>
      <button type="button" class="plain" aria-label="Keys" title="Keys (?)" onClick=${() => setHelp(!help)}>?</button>
    </header>
    <${Chips} summary=${summary} where=${asked.where} onAsk=${keep} marked=${marks.size} isMarked=${Boolean(asked.marked)} />
    ${notice && html`<p class="error notice" role="alert">${notice}</p>`}
    ${asked.like && html`<${Nearest} asked=${asked} root=${root} onAsk=${onAsk} />`}
    <main class=${open ? "with-detail" : ""}>
      ${isCompared ? html`<${Compared} asked=${asked} root=${root} onAsk=${onAsk} walls=${walls} common=${common}
          onActive=${(side) => { active.current = side; }} />`
        : html`<${Wall} ...${common} asked=${asked} controls=${walls[0]} />`}
      ${open && html`<${Detail} uid=${open} revealed=${revealed} onReveal=${reveal} onClose=${() => setOpen("")} onOpen=${setOpen}
        isMarked=${marks.has(open)} onMark=${root.marks && mark} onLike=${onLike} tables=${root.embeddings} />`}
    </main>
    ${help && html`<div class="help" role="dialog" aria-label="Keys"><table><tbody>${KEYS.map(([key, text]) => html`<tr><th>${key}</th><td>${text}</td></tr>`)}</tbody></table></div>`}`;
}

async function start() {
  const box = document.getElementById("app"), root = await ask("start");
  if (root.error) {
    box.firstChild.textContent = root.error;
    return;
  }
  if (!location.hash) history.replaceState(null, "", `#${new URLSearchParams({ where: root.where })}`);
  document.title = `${root.name}: curate browse`;
  box.textContent = "";
  render(html`<${App} root=${root} first=${readAddress()} />`, box);
}
start();
