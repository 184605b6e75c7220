/** Short words to whoever uses the page. */
import { signal } from "@preact/signals";

/** How long something is shown. */
const SHOWN_MS = 6000;

/** What is shown for a while. */
export const notice = signal("");

/** What a screen reader is told and nobody sees, since it is seen elsewhere. */
export const announced = signal("");

let timer = 0;

export function say(text: string): void {
  notice.value = text;
  clearTimeout(timer);
  timer = setTimeout(() => (notice.value = ""), SHOWN_MS) as unknown as number;
}

export function announce(text: string): void {
  announced.value = text;
}
