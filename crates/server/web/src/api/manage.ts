/** The models of a server, the memory that they have, and what may be done with both. */
import { ApiError, errorOf, json, request } from "./http";
import { linesOf } from "./lines";

/** What a thing in memory is. */
export const KINDS = ["resident", "swapped", "kv", "slots", "scratch", "other"] as const;
export type Kind = (typeof KINDS)[number];

export interface Thing {
  name: string;
  kind: Kind;
  /** `ram`, `disk`, or `vram` with a number. */
  tier: string;
  bytes: number;
}

export interface Tier {
  bytes: number;
  used: number;
}

export interface Prediction {
  generation: number;
  prompt: number;
  /** What sets the rate. */
  bound: string;
}

export interface Model {
  name: string;
  state: "loaded" | "loading" | "unloaded" | "failed";
  error: string | null;
  /** From 0 to 1, of one that loads. */
  progress: number | null;
  file_bytes: number;
  n_ctx: number | null;
  n_parallel: number | null;
  n_open: number;
  ram_bytes: number | null;
  things: Thing[];
  rates: {
    generation: number | null;
    prompt: number | null;
    bytes_per_token: number;
    wait_share: number | null;
  };
  predicted: Prediction | null;
}

export interface State {
  version: string;
  can_manage: boolean;
  /** `server` is for connections and requests. */
  ram: Tier & { server?: number };
  vram: (Tier & { name: string })[];
  models: Model[];
}

export interface Plan {
  things: Thing[];
  n_ctx: number;
  predicted: Prediction;
}

/** How the server is; `null` from one that doesn't tell. */
export async function state(): Promise<State | null> {
  try {
    return await json<State>("metallic/state", { isByItself: true });
  } catch (error) {
    if (error instanceof ApiError && error.status === 404) return null;
    throw error;
  }
}

/** Where a model would lie with so much RAM, and how fast it would be. */
export function plan(model: string, ram: number, signal: AbortSignal): Promise<Plan> {
  return json<Plan>("metallic/plan", { body: { model, ram }, signal });
}

/** Loads a model, anew if it is loaded; `ram` is as much as it may have, or what it had. */
export async function load(model: string, ram?: number): Promise<void> {
  await request("metallic/load", { body: ram === undefined ? { model } : { model, ram } });
}

export async function unload(model: string): Promise<void> {
  await request("metallic/unload", { body: { model } });
}

export async function remove(model: string): Promise<void> {
  await request("api/delete", { method: "DELETE", body: { model } });
}

/** How far a download is. */
export interface Progress {
  status: string;
  total: number | null;
  completed: number | null;
}

/** Downloads a model. */
export async function* pull(model: string, signal: AbortSignal): AsyncGenerator<Progress> {
  const response = await request("api/pull", { body: { model, stream: true }, signal });
  if (response.body === null) return;
  for await (const line of linesOf(response.body)) {
    if (line.trim() === "") continue;
    const said = JSON.parse(line) as { error?: unknown; status?: string; total?: number; completed?: number };
    if (said.error !== undefined) throw errorOf(said, 500);
    yield { status: said.status ?? "", total: said.total ?? null, completed: said.completed ?? null };
  }
}
