/** Where answers come from: the server beside the models, or the frames that a saved view holds within itself. */

import { canonical, decode, type Frame } from "./frames";

export interface Listed {
  name: string;
  parameters: number;
  val_loss: number | null;
  steps: number | null;
  ended: string | null;
  /** Why it can't be looked into; null where it can. */
  why: string | null;
}

export type Body = Record<string, unknown>;

export interface Transport {
  /** Whether there is a server to compute what was not asked yet. */
  live: boolean;
  ask(view: string, body: Body, signal?: AbortSignal): Promise<Frame>;
  runs(): Promise<{ runs: Listed[]; chosen: string | null }>;
  /** Tells what happens to a run from now on; gives what ends it. */
  follow(run: string, tell: (kind: string, data: any) => void): () => void;
  /** The view as one HTML file, with the answers to `requests` in it. */
  save(title: string, hash: string, requests: [string, string, Body][]): Promise<Blob>;
}

/** What a user is told: a sentence, and what to do. */
export class Problem extends Error {
  constructor(
    sentence: string,
    readonly hint: string = "",
  ) {
    super(sentence);
  }
}

export function keyOf(view: string, body: Body): string {
  return `${view} ${canonical(body)}`;
}

class Server implements Transport {
  live = true;

  constructor(private token: string) {}

  async ask(view: string, body: Body, signal?: AbortSignal): Promise<Frame> {
    return decode(await (await this.request(`api/${view}`, body, signal)).arrayBuffer());
  }

  async runs() {
    return await (await this.request("api/runs")).json();
  }

  follow(run: string, tell: (kind: string, data: any) => void): () => void {
    const address = `api/events?run=${encodeURIComponent(run)}&token=${encodeURIComponent(this.token)}`;
    const source = new EventSource(address);
    for (const kind of ["metrics", "checkpoints", "probe", "runs", "ended"])
      source.addEventListener(kind, (event) => tell(kind, JSON.parse((event as MessageEvent).data)));
    source.addEventListener("error", () => tell("gone", null));
    source.addEventListener("open", () => tell("there", null));
    return () => source.close();
  }

  async save(title: string, hash: string, requests: [string, string, Body][]) {
    return await (await this.request("api/save", { title, hash, requests })).blob();
  }

  private async request(path: string, body?: Body, signal?: AbortSignal): Promise<Response> {
    const headers: Record<string, string> = { "X-Token": this.token };
    if (body) headers["Content-Type"] = "application/json";
    let answer: Response;
    try {
      answer = await fetch(path, {
        method: body ? "POST" : "GET",
        headers,
        body: body && JSON.stringify(body),
        signal: signal ?? null,
      });
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new Problem(
        "the server does not answer.",
        "start `microformer inspect` again, and open the address that it prints.",
      );
    }
    if (answer.ok) return answer;
    const told = await answer.json().catch(() => ({ error: `the server answers ${answer.status}.`, hint: "" }));
    throw new Problem(told.error, told.hint);
  }
}

export interface SavedView {
  selection: string;
  runs: { runs: Listed[]; chosen: string | null };
  frames: Record<string, string>;
}

class Saved implements Transport {
  live = false;

  constructor(private saved: SavedView) {}

  async ask(view: string, body: Body): Promise<Frame> {
    const packed = this.saved.frames[keyOf(view, body)];
    if (packed === undefined)
      throw new Problem("this was not saved with the view.", "`microformer inspect` shows it of the run itself.");
    return decode(Uint8Array.from(atob(packed), (one) => one.charCodeAt(0)).buffer);
  }

  async runs() {
    return this.saved.runs;
  }

  follow(): () => void {
    return () => {};
  }

  async save(): Promise<Blob> {
    throw new Problem("a saved view is its own file already.");
  }
}

/** What a saved view holds, or null on a page that a server gave. */
export const saved: SavedView | null = (() => {
  const element = document.getElementById("saved");
  return element ? JSON.parse(element.textContent ?? "") : null;
})();

export const transport: Transport = saved
  ? new Saved(saved)
  : new Server(new URLSearchParams(location.search).get("token") ?? "");
