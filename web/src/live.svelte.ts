/** What happens to the run that is looked at: rows as they are logged, checkpoints and probes as they are written.
 *
 * The server begins with all there is, each time it is connected to, and goes on with what is new. So a connection that
 * was lost, or a run that was cut back to a checkpoint and goes on from there, needs nothing of its own.
 */

import { forget } from "./answers.svelte";
import { selection } from "./selection.svelte";
import { transport } from "./transport";

/** A line of metrics.jsonl: losses in nats a token, where they were measured at that step. */
export interface Row {
  step: number;
  seconds?: number;
  train_loss?: number;
  val_loss?: number;
}

// A training that says nothing for so long has stopped without a word: it was killed, or the machine sleeps.
const SILENCE = 180_000;

class Live {
  /** All rows of the run; null before the first word of the server. */
  rows = $state.raw<Row[] | null>(null);
  /** The steps of all probes; null before the first word of the server. */
  probes = $state.raw<number[] | null>(null);
  /** The newest probe. */
  probe = $state<number | null>(null);
  /** The newest probe that came while the page was open: answers from before lack it. */
  fresh = $state<number | null>(null);
  /** The steps of the checkpoints best and last. */
  steps = $state.raw<Record<string, number>>({});
  /** Whether the run may still go on: nothing says that it ended. */
  open = $state(false);
  /** Whether it goes on: something new has come. */
  training = $state(false);
  /** Whether the server answers. */
  there = $state(true);

  // Where following has led, to know whether somebody else has chosen since.
  private led = "";
  private silence: ReturnType<typeof setTimeout> | undefined;

  /** Follows the selected run. `list`: reads the list of runs again. Called once, by the page. */
  follow(list: () => void) {
    $effect(() => {
      const run = selection.run;
      if (!run || !transport.live) return;
      this.start();
      // What was told before: the first word of each kind says what is, not what is new.
      const told: Record<string, string> = {};
      const end = transport.follow(run, (kind, data) => {
        const word = JSON.stringify(data);
        const first = !(kind in told);
        const changed = !first && told[kind] !== word;
        told[kind] = word;
        if (kind === "there" || kind === "gone") {
          this.there = kind === "there";
          if (!this.there) this.training = false; // nothing is known of it any more
        } else if (kind === "metrics") this.takeRows(data, first);
        else if (kind === "checkpoints") this.takeCheckpoints(run, data, changed);
        else if (kind === "probe") this.takeProbe(data, changed);
        else if (kind === "ended") this.takeEnd(run, data.ended ?? null, changed, list);
        else if (kind === "runs" && changed) list();
      });
      return () => {
        end();
        clearTimeout(this.silence);
      };
    });
  }

  /** Goes with the newest there is, from now on. */
  lead() {
    selection.follow = true;
    this.led = "";
    this.go();
  }

  private start() {
    this.rows = null;
    this.probes = null;
    this.probe = null;
    this.fresh = null;
    this.steps = {};
    this.open = false;
    this.training = false;
    this.there = true;
    this.led = "";
  }

  private takeRows(data: { rows: Row[]; reset?: boolean }, first: boolean) {
    const before = this.rows ?? [];
    this.rows = data.reset || first ? data.rows : [...before, ...data.rows];
    if (!first && (this.rows.at(-1)?.step ?? 0) !== (before.at(-1)?.step ?? 0)) this.heard();
  }

  private takeCheckpoints(
    run: string,
    data: { checkpoints?: string[]; folders?: Record<string, string | null> },
    changed: boolean,
  ) {
    const found = Object.entries(data.folders ?? {}).map(([label, folder]) => [
      label,
      Number(folder?.match(/\d+$/)?.[0]),
    ]);
    this.steps = Object.fromEntries(found.filter(([, step]) => Number.isFinite(step)));
    // A run that was cut back, or a link from before: what is gone is not looked at any more.
    if (/^\d+$/.test(selection.checkpoint) && data.checkpoints && !data.checkpoints.includes(selection.checkpoint))
      selection.checkpoint = "best";
    if (!changed) return;
    forget(run);
    this.heard();
    if (selection.follow && this.probe === null) this.go();
  }

  private takeProbe(data: { step: number; probes?: number[] }, changed: boolean) {
    this.probes = data.probes ?? [...(this.probes ?? []), data.step];
    this.probe = data.step;
    if (changed) {
      this.fresh = data.step;
      this.heard();
    }
    if (selection.follow) this.go();
    else if (selection.checkpoint.startsWith("probe-")) {
      // Where there are many, older ones are thinned out: the nearest takes the place of one that is gone.
      const step = Number(selection.checkpoint.slice(6));
      const away = (one: number) => Math.abs(one - step);
      const nearest = this.probes.reduce((best, one) => (away(one) < away(best) ? one : best), data.step);
      if (nearest !== step) selection.checkpoint = `probe-${nearest}`;
    }
  }

  private takeEnd(run: string, ended: string | null, changed: boolean, list: () => void) {
    this.open = ended === null;
    if (ended === null) return;
    this.training = false;
    if (!changed) return;
    forget(run);
    list();
    if (!selection.follow) return;
    selection.follow = false;
    if (selection.checkpoint === this.led) selection.checkpoint = "best";
  }

  /** To the newest; unless somebody has chosen otherwise since the last time. */
  private go() {
    if (this.led && selection.checkpoint !== this.led) {
      selection.follow = false;
      this.led = "";
      return;
    }
    this.led = this.probe === null ? "last" : `probe-${this.probe}`;
    selection.checkpoint = this.led;
  }

  private heard() {
    if (!this.open) return;
    this.training = true;
    clearTimeout(this.silence);
    this.silence = setTimeout(() => (this.training = false), SILENCE);
  }
}

export const live = new Live();
