/** The page's frame: where one is, and the view. */
import { useEffect } from "preact/hooks";

import { ChatView } from "./chat/view";
import { MemoryView } from "./memory/view";
import { ModelsView } from "./models/view";
import { addressOf, type Route, route } from "./route";
import { tellsState } from "./server";
import { Confirmation } from "./ui/dialog";
import { KeyDialog } from "./ui/key";
import { announced, notice } from "./ui/notice";

const TITLES = { chat: "Chat", models: "Models", memory: "Memory" } as const;

export function App() {
  const { view } = route.value;
  useEffect(() => {
    document.title = `${TITLES[view]} · Metallic`;
  }, [view]);
  return (
    <>
      <a
        class="skip"
        href="#main"
        onClick={(event) => {
          event.preventDefault();
          document.getElementById("main")?.focus();
        }}
      >
        Skip to the content
      </a>
      <header class="top">
        <span class="brand">
          <Mark />
          <span>Metallic</span>
        </span>
        {tellsState.value && (
          <nav aria-label="Views">
            <Tab to={{ view: "chat", id: null }} now={view} />
            <Tab to={{ view: "models" }} now={view} />
            <Tab to={{ view: "memory" }} now={view} />
          </nav>
        )}
      </header>
      <main id="main" tabIndex={-1} class={`view-${view}`}>
        {view === "chat" ? <ChatView /> : view === "models" ? <ModelsView /> : <MemoryView />}
      </main>
      <p class="notice" role="status">
        {notice.value && <span>{notice.value}</span>}
      </p>
      <p class="unseen" role="status">
        {announced.value}
      </p>
      <Confirmation />
      <KeyDialog />
    </>
  );
}

function Tab({ to, now }: { to: Route; now: Route["view"] }) {
  return (
    <a href={addressOf(to)} aria-current={to.view === now ? "page" : undefined}>
      {TITLES[to.view]}
    </a>
  );
}

function Mark() {
  return (
    <svg class="mark" viewBox="0 0 32 32" aria-hidden="true">
      <rect width="32" height="32" rx="7" />
      <path d="M7 24V8h3.6L16 17.6 21.4 8H25v16" />
    </svg>
  );
}
