/** Questions to the server, asked again when what they depend on changes; equal questions are asked once. */

import type { Frame } from "./frames";
import { keyOf, Problem, transport, type Body } from "./transport";

interface Entry {
  answer: Promise<Frame>;
  cancel: AbortController;
  users: number;
  done: boolean;
  /** The answer, once it is there. */
  frame: Frame | null;
  request: [string, string, Body];
  bytes: number;
}

// Answers are kept for as long as they fit: stepping back to what was seen costs nothing.
const MOST_BYTES = 256e6;
const asked = new Map<string, Entry>();

function entryOf(view: string, body: Body): Entry {
  const key = keyOf(view, body);
  let entry = asked.get(key);
  if (entry) asked.delete(key);
  else {
    const cancel = new AbortController();
    const answer = transport.ask(view, body, cancel.signal);
    const made: Entry = { answer, cancel, users: 0, done: false, frame: null, request: [key, view, body], bytes: 0 };
    answer.then(
      (frame) => {
        made.done = true;
        made.frame = frame;
        made.bytes = Object.values(frame.arrays).reduce((sum, one) => sum + one.byteLength, 1000);
        forgetOld();
      },
      () => asked.get(key) === made && asked.delete(key),
    );
    entry = made;
  }
  asked.set(key, entry);
  return entry;
}

function forgetOld() {
  let bytes = [...asked.values()].reduce((sum, one) => sum + one.bytes, 0);
  for (const [key, entry] of asked) {
    if (bytes < MOST_BYTES) return;
    if (entry.done && !entry.users) {
      asked.delete(key);
      bytes -= entry.bytes;
    }
  }
}

/** What is on the page now, as it was asked: what a saved view must hold. */
export function inUse(): [string, string, Body][] {
  return [...asked.values()].filter((one) => one.users && one.done).map((one) => one.request);
}

// Counts how often answers were forgotten: whoever shows one asks again.
const forgotten = $state({ times: 0 });

/** Forgets what was answered of a run and may be otherwise now: its best and last checkpoints are new. Snapshots and
 * probes stay what they are. */
export function forget(run: string) {
  for (const [key, { request }] of asked) {
    const [, view, body] = request;
    const fixed = /\d$/.test(String(body.checkpoint ?? "")) && view !== "model";
    if (body.run === run && !fixed) asked.delete(key);
  }
  forgotten.times++;
}

/** An answer that follows its question. While the next is on its way, the one before stays. */
export class Answer {
  frame = $state.raw<Frame | null>(null);
  problem = $state.raw<Problem | null>(null);
  busy = $state(false);

  /** Why this model has no such thing; null where it has. */
  get why(): string | null {
    return this.frame?.data?.why ?? null;
  }

  /** The frame where there is something in it. */
  get good(): Frame | null {
    return this.frame && !this.why ? this.frame : null;
  }
}

/** Asks `question()`, and again whenever it changes; null asks nothing. Called while a component is set up. */
export function ask(question: () => [string, Body] | null): Answer {
  const answer = new Answer();
  $effect(() => {
    const now = question();
    void forgotten.times;
    if (!now) {
      answer.frame = answer.problem = null;
      answer.busy = false;
      return;
    }
    const entry = entryOf(...now);
    entry.users++;
    let current = true;
    answer.busy = !entry.done;
    // What is known is there at once, so that nobody puts the new question beside the old answer.
    if (entry.frame) {
      answer.frame = entry.frame;
      answer.problem = null;
      return () => leave(entry);
    }
    entry.answer.then(
      (frame) => {
        if (!current) return;
        answer.frame = frame;
        answer.problem = null;
        answer.busy = false;
      },
      (error) => {
        if (!current) return;
        answer.problem = error instanceof Problem ? error : new Problem(String(error));
        answer.frame = null;
        answer.busy = false;
      },
    );
    return () => {
      current = false;
      leave(entry);
    };
  });
  return answer;
}

/** One answer, kept until `release` is called: for what is asked piece by piece. */
export function hold(view: string, body: Body): { answer: Promise<Frame>; release: () => void } {
  const entry = entryOf(view, body);
  entry.users++;
  return { answer: entry.answer, release: () => leave(entry) };
}

function leave(entry: Entry) {
  entry.users--;
  // Whoever asked has gone: the server need not go on.
  if (!entry.users && !entry.done) {
    entry.cancel.abort();
    if (asked.get(entry.request[0]) === entry) asked.delete(entry.request[0]);
  }
}
