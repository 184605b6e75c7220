/** A budget that somebody considers, and the plan for it. */
import { effect, signal } from "@preact/signals";

import { ApiError, isAbort, messageOf } from "../api/http";
import { type Plan, plan as fetchPlan } from "../api/manage";

/** How long a slider rests before the server is asked. */
const REST_MS = 150;

export interface Wish {
  model: string;
  ram: number;
}

/** `null` while nothing is considered. */
export const wish = signal<Wish | null>(null);

export type Answer = { plan: Plan; ram: number } | { error: string; floor: number | null };

/** What the server says to the wish; the last one stays until there is another. */
export const answer = signal<Answer | null>(null);

/** Whether it is being asked. */
export const isAsking = signal(false);

effect(() => {
  const wanted = wish.value;
  if (wanted === null) {
    answer.value = null;
    isAsking.value = false;
    return;
  }
  isAsking.value = true;
  const controller = new AbortController();
  const timer = setTimeout(async () => {
    let said: Answer;
    try {
      said = { plan: await fetchPlan(wanted.model, wanted.ram, controller.signal), ram: wanted.ram };
    } catch (error) {
      if (isAbort(error)) return;
      said = { error: messageOf(error), floor: error instanceof ApiError ? error.floorBytes : null };
    }
    if (controller.signal.aborted) return;
    answer.value = said;
    isAsking.value = false;
  }, REST_MS);
  return () => {
    clearTimeout(timer);
    controller.abort();
  };
});
