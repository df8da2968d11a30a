/** What happens to the run that is looked at: rows as they are logged, checkpoints and probes as they are written. */

import { forget } from "./answers.svelte";
import { selection } from "./selection.svelte";
import { transport } from "./transport";

class Live {
  /** Rows logged since the page was opened. */
  rows = $state.raw<Record<string, number>[]>([]);
  /** The newest probe. */
  probe = $state<number | null>(null);
  training = $state(false);
  /** Whether the server answers. */
  there = $state(true);

  /** Follows the selected run. `list`: reads the list of runs again. Called once, by the page. */
  follow(list: () => void) {
    $effect(() => {
      const run = selection.run;
      if (!run || !transport.live) return;
      this.rows = [];
      this.probe = null;
      this.training = false;
      return transport.follow(run, (kind, data) => {
        if (kind === "metrics") {
          this.rows = [...this.rows, ...data.rows];
          this.training = true;
        } else if (kind === "checkpoints") {
          forget(run);
        } else if (kind === "probe") {
          this.probe = data.step;
          this.training = true;
          forget(run);
          if (selection.follow) selection.checkpoint = `probe-${data.step}`;
        } else if (kind === "runs") list();
        else if (kind === "ended") {
          this.training = false;
          forget(run);
          list();
          if (selection.follow) {
            selection.follow = false;
            selection.checkpoint = "best";
          }
        } else this.there = kind === "there";
      });
    });
  }
}

export const live = new Live();
