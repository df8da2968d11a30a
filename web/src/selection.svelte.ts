/** What is being looked at: one selection for all panels, in the address, so that a link brings the same view back.
 *
 *   pinned: here, by a click or a key        hovered: what the pointer is on, for as long as it is there
 */

import { saved } from "./transport";

export const COLOURS = ["loss", "probability", "rank", "entropy", "change"] as const;
export const PATTERNS = ["pattern", "scores", "weighted"] as const;
export type Colour = (typeof COLOURS)[number];
export type Shown = (typeof PATTERNS)[number];

/** Where nothing is said. */
const NOTHING = {
  run: "",
  checkpoint: "best",
  text: "",
  edits: [] as string[],
  position: null as number | null,
  layer: 0,
  head: 0,
  shown: "pattern" as Shown,
  colour: "loss" as Colour,
  token: null as number | null,
  rival: null as number | null,
  temperature: 0.8,
  topK: 0,
  topP: 1,
  minP: 0,
  seed: 0,
  written: 0,
  follow: false,
};

type State = typeof NOTHING;
type Name = keyof State;

function read(hash: string): State {
  const said = new URLSearchParams(hash.replace(/^#/, ""));
  const state: Record<string, unknown> = { ...NOTHING, edits: said.getAll("edit") };
  for (const [name, word] of said) {
    if (!(name in NOTHING) || name === "edits") continue;
    const usual = NOTHING[name as Name];
    if (typeof usual === "string") state[name] = word;
    else if (typeof usual === "boolean") state[name] = word === "1";
    else if (word !== "" && Number.isFinite(Number(word))) state[name] = Number(word);
  }
  if (!(PATTERNS as readonly unknown[]).includes(state.shown)) state.shown = NOTHING.shown;
  if (!(COLOURS as readonly unknown[]).includes(state.colour)) state.colour = NOTHING.colour;
  return state as State;
}

function written(state: State): string {
  const said = new URLSearchParams();
  for (const name of Object.keys(NOTHING) as Name[]) {
    const value = state[name];
    if (name === "edits") for (const edit of state.edits) said.append("edit", edit);
    else if (value !== NOTHING[name] && value !== null) said.set(name, value === true ? "1" : String(value));
  }
  return `#${said}`;
}

class Selection implements State {
  run = $state(NOTHING.run);
  checkpoint = $state(NOTHING.checkpoint);
  text = $state(NOTHING.text);
  edits = $state.raw<string[]>([]);
  position = $state<number | null>(null);
  layer = $state(0);
  head = $state(0);
  shown = $state<Shown>(NOTHING.shown);
  colour = $state<Colour>(NOTHING.colour);
  token = $state<number | null>(null);
  rival = $state<number | null>(null);
  temperature = $state(NOTHING.temperature);
  topK = $state(NOTHING.topK);
  topP = $state(NOTHING.topP);
  minP = $state(NOTHING.minP);
  seed = $state(0);
  /** How many tokens are written on from the text: with the seed, these are always the same. */
  written = $state(0);
  follow = $state(false);

  /** The fields that every request begins with. */
  get asked() {
    return { run: this.run, checkpoint: this.checkpoint, text: this.text, edits: this.edits };
  }

  get hash(): string {
    return written(this);
  }

  take(hash: string) {
    Object.assign(this, read(hash));
  }
}

export const selection = new Selection();
selection.take(saved ? saved.selection : location.hash);

/** What the pointer is on. Panels show it in the place of what is pinned, and let it go with the pointer. */
export const hovered = $state({
  position: null as number | null,
  key: null as number | null,
  layer: null as number | null,
  head: null as number | null,
});

/** What panels show: what is hovered, else what is pinned. */
export const seen = {
  get position() {
    return hovered.position ?? selection.position;
  },
  get layer() {
    return hovered.layer ?? selection.layer;
  },
  get head() {
    return hovered.head ?? selection.head;
  },
};

/** Edits, with a way back. */
class Edits {
  private past = $state.raw<string[][]>([]);
  private future = $state.raw<string[][]>([]);

  get canUndo() {
    return this.past.length > 0;
  }

  get canRedo() {
    return this.future.length > 0;
  }

  /** What is done to a part, or null: of "L0H2 zero", what follows the name. */
  of(where: string): string | null {
    const found = selection.edits.find((one) => one.startsWith(`${where} `));
    return found ? found.slice(where.length + 1) : null;
  }

  /** Does something to a part in the place of what was done to it; null leaves it as it is. */
  put(where: string, how: string | null) {
    const others = selection.edits.filter((one) => !one.startsWith(`${where} `));
    this.set(how === null ? others : [...others, `${where} ${how}`]);
  }

  set(edits: string[]) {
    this.past = [...this.past, selection.edits];
    this.future = [];
    selection.edits = edits;
  }

  undo() {
    const before = this.past.at(-1);
    if (!before) return;
    this.future = [...this.future, selection.edits];
    this.past = this.past.slice(0, -1);
    selection.edits = before;
  }

  redo() {
    const after = this.future.at(-1);
    if (!after) return;
    this.past = [...this.past, selection.edits];
    this.future = this.future.slice(0, -1);
    selection.edits = after;
  }
}

export const edits = new Edits();

/** Keeps the address and the selection alike. Called once, by the page. */
export function keepInAddress() {
  if (saved) return;
  $effect(() => {
    const hash = selection.hash;
    const timer = setTimeout(() => {
      if (location.hash !== hash) history.replaceState(null, "", hash);
    }, 150);
    return () => clearTimeout(timer);
  });
  addEventListener("hashchange", () => selection.take(location.hash));
}
