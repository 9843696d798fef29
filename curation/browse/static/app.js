// The page: a search bar, a wall of pictures, and beside it the picture that was opened.
import { html, render, useCallback, useEffect, useRef, useState } from "./preact.js";
import { ask, count, readAddress, writeAddress } from "./api.js";
import { Detail } from "./detail.js";
import { Chips, Search } from "./search.js";
import { Wall } from "./wall.js";

const KEYS = [
  ["j k or ← →", "next and previous picture"], ["↑ ↓", "picture above and below"], ["space", "open and close"],
  ["n h", "nearest by embedding, by perceptual hash"],
  ["b", "show a blurred picture"], ["/", "search"], ["Esc", "close"], ["?", "these keys"],
];
const isTyping = (target) => target.matches("input, textarea, select");

function useCount(asked) {
  const [said, setSaid] = useState("");
  useEffect(() => {
    const abort = new AbortController();
    setSaid(asked.like || asked.meaning ? "" : "…");
    if (asked.like || asked.meaning) return undefined;
    ask("count", { where: asked.where, words: asked.words }, abort.signal).then(
      (found) => setSaid(found.error ? "" : `${count(found.num_rows)} rows`), () => {});
    return () => abort.abort();
  }, [asked.where, asked.words, asked.like, asked.meaning]);
  return said;
}

function Nearest({ asked, root, onAsk }) {
  const ways = [...root.embeddings, "hash"], by = asked.by || root.embeddings[0];
  return html`<p class="nearest">Nearest to
    <code>${asked.like.slice(0, 8)}</code> by ${ways.map((way) => html`<button type="button" class="chip" aria-pressed=${way === by}
      onClick=${() => onAsk({ like: asked.like, by: way })}>${way === "hash" ? "perceptual hash" : way}</button> `)}
    <button type="button" class="plain" onClick=${() => history.back()}>back</button></p>`;
}

function App({ root, first }) {
  const [asked, setAsked] = useState(first);
  const [summary, setSummary] = useState({});
  const [open, setOpen] = useState("");
  const [revealed, setRevealed] = useState(new Set());
  const [help, setHelp] = useState(false);
  const controls = useRef(null);
  const total = useCount(asked);

  useEffect(() => { ask("summary").then(setSummary); }, []);
  useEffect(() => {
    const back = () => setAsked(readAddress());
    addEventListener("popstate", back);
    return () => removeEventListener("popstate", back);
  }, []);
  const onAsk = useCallback((wanted) => {
    const next = { where: "", words: "", meaning: "", like: "", by: "", ...wanted };
    writeAddress(next);
    setAsked(next);
    setOpen("");
  }, []);
  const onLike = useCallback((uid, by) => {
    if (by === "hash" || root.embeddings.length) onAsk({ like: uid, by });
  }, []);
  const reveal = useCallback((uid) => setRevealed((old) => new Set(old).add(uid)), []);

  useEffect(() => {
    const press = (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key === "Escape") { setHelp(false); setOpen(""); if (isTyping(event.target)) event.target.blur(); return; }
      if (isTyping(event.target)) return;
      const here = controls.current, row = here?.row();
      const step = (work) => { event.preventDefault(); work(); };
      const actions = {
        j: () => here.move(1), ArrowRight: () => here.move(1), k: () => here.move(-1), ArrowLeft: () => here.move(-1),
        ArrowDown: () => here.moveRow(1), ArrowUp: () => here.moveRow(-1),
        " ": () => row && setOpen((old) => (old === row.uid ? "" : row.uid)),
        n: () => row && onLike(row.uid, ""), h: () => row && onLike(row.uid, "hash"),
        b: () => row && reveal(row.uid),
        "/": () => document.getElementById("search").select(),
        "?": () => setHelp((old) => !old),
      };
      const isPress = event.key === " " && event.target.matches("button:not(.tile), summary");
      if (actions[event.key] && !isPress && here) step(actions[event.key]);
    };
    addEventListener("keydown", press);
    return () => removeEventListener("keydown", press);
  }, []);

  return html`
    <header class="top">
      <span class="name" title=${root.base}>${root.name}</span>
      <${Search} asked=${asked} total=${total} onAsk=${onAsk} summary=${summary} understands=${root.understands} />
      <button type="button" class="plain" aria-label="Keys" title="Keys (?)" onClick=${() => setHelp(!help)}>?</button>
    </header>
    <${Chips} summary=${summary} where=${asked.where} onAsk=${onAsk} />
    ${asked.like && html`<${Nearest} asked=${asked} root=${root} onAsk=${onAsk} />`}
    <main class=${open ? "with-detail" : ""}>
      <${Wall} asked=${asked} numUnits=${root.num_units} revealed=${revealed}
        onReveal=${reveal} onOpen=${setOpen} controls=${controls}
        onSelect=${(row) => setOpen((old) => (old ? row.uid : old))} />
      ${open && html`<${Detail} uid=${open} revealed=${revealed} onReveal=${reveal} onClose=${() => setOpen("")} onOpen=${setOpen}
        onLike=${onLike} tables=${root.embeddings} />`}
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
