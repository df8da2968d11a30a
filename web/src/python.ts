/** The lines of Python that give a panel's numbers in a notebook. */

import { selection } from "./selection.svelte";
import { pythonString } from "./words";

/** Up to `seen`, the trace that the panels show. `names`: what else of microformer.inspection the lines use. */
export function traced(names: string[] = []): string {
  const { run, checkpoint, text, edits } = selection;
  const lines = [
    "from microformer import load_run",
    `from microformer.inspection import ${[...new Set([...names, "trace"])].sort().join(", ")}`,
    "",
    loaded(run, checkpoint),
    `seen = trace(run, ${pythonString(text)}${edits.length ? `, [${edits.map(pythonString).join(", ")}]` : ""})`,
  ];
  return lines.join("\n");
}

/** The line that loads the run. */
export function loaded(run: string = selection.run, checkpoint: string = selection.checkpoint): string {
  return `run = load_run(${pythonString(run)}${checkpoint === "best" ? "" : `, checkpoint=${pythonString(checkpoint)}`})`;
}

/** The sampler as it is set. */
export function sampler(): string {
  const { temperature, topK, topP, minP } = selection;
  const float = (value: number) => (Number.isInteger(value) ? value.toFixed(1) : String(value));
  return `Sampler(${float(temperature)}, top_k=${topK}, top_p=${float(topP)}, min_p=${float(minP)})`;
}
