/** What the page knows of the server. */
import { computed, signal } from "@preact/signals";

import { modelNames } from "./api/completions";
import { messageOf } from "./api/http";
import { type State, state as fetchState } from "./api/manage";

/** How the server was last; `null` if it doesn't tell, `undefined` before it was asked. */
export const state = signal<State | null | undefined>(undefined);

/** Why it isn't known how the server is now. */
export const stateError = signal<string | null>(null);

/** The models that can be talked with. */
export const names = signal<string[]>([]);

export const tellsState = computed(() => state.value !== null && state.value !== undefined);

let reading: Promise<void> | null = null;

/** Asks how the server is; several who ask at once ask once. */
export function readState(): Promise<void> {
  reading ??= (async () => {
    try {
      state.value = await fetchState();
      stateError.value = null;
    } catch (error) {
      stateError.value = messageOf(error);
    } finally {
      reading = null;
    }
  })();
  return reading;
}

export async function readNames(): Promise<void> {
  try {
    const read = await modelNames();
    if (read.join("\n") !== names.peek().join("\n")) names.value = read;
  } catch {
    // Whoever asks a model hears it.
  }
}

/** Asks again and again for as long as somebody looks. Returns what ends it. */
export function watchState(everyMs: number): () => void {
  const ask = () => {
    if (!document.hidden && state.peek() !== null) void readState();
  };
  void readState();
  const timer = setInterval(ask, everyMs);
  return () => clearInterval(timer);
}
