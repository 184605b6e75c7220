/** Which view is shown: the address after `#`, so that the browser's own ways back and forth work. */
import { signal } from "@preact/signals";

export type Route = { view: "chat"; id: string | null } | { view: "models" } | { view: "memory" };

export const route = signal<Route>(read());

addEventListener("hashchange", () => {
  route.value = read();
});

function read(): Route {
  const [view, id] = location.hash.replace(/^#\/?/, "").split("/");
  if (view === "models" || view === "memory") return { view };
  return { view: "chat", id: id || null };
}

export function addressOf(to: Route): string {
  if (to.view !== "chat") return `#/${to.view}`;
  return to.id === null ? "#/chat" : `#/chat/${to.id}`;
}

/** Goes there; with `replaces`, the way back leads past where it was. */
export function go(to: Route, replaces = false): void {
  const address = addressOf(to);
  if (location.hash === address) return;
  if (replaces) {
    history.replaceState(null, "", address);
    route.value = to;
  } else {
    location.hash = address;
  }
}
