/** The chat: conversations at the side, and the one that is shown. */
import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";

import { go, route } from "../route";
import { names, readNames } from "../server";
import { Dialog } from "../ui/dialog";
import { Icon, IconButton } from "../ui/icons";
import { Composer } from "./composer";
import { type Conversation, shown } from "./conversation";
import { ConversationList } from "./list";
import { MessageView } from "./message";
import { runs } from "./run";
import { SettingsDialog } from "./settings-dialog";
import { current, open, setModel } from "./store";

export function ChatView() {
  const at = route.value;
  const id = at.view === "chat" ? at.id : null;
  const drawer = useSignal(false);
  useEffect(() => {
    void open(id);
    void readNames();
    drawer.value = false;
  }, [id]);
  const conversation = current.value?.value;
  return (
    <>
      <aside class="side" aria-label="Conversations">
        <ConversationList />
      </aside>
      {drawer.value && (
        <Dialog title="Conversations" side="left" onClose={() => (drawer.value = false)}>
          <ConversationList />
        </Dialog>
      )}
      {conversation && <Talk key={conversation.id} conversation={conversation} onMenu={() => (drawer.value = true)} />}
    </>
  );
}

function Talk({ conversation, onMenu }: { conversation: Conversation; onMenu: () => void }) {
  const settings = useSignal(false);
  const { id, title } = conversation;
  const path = shown(conversation);
  const run = runs.value.get(id);
  return (
    <section class="talk" aria-label="Conversation">
      <header class="talk-bar">
        <IconButton name="menu" label="Conversations" class="menu" onClick={onMenu} />
        <h1>{title || "New conversation"}</h1>
        <ModelChoice conversation={conversation} />
        <IconButton name="sliders" label="Settings" onClick={() => (settings.value = true)} />
      </header>
      <Log isGrowing={run !== undefined} isEmpty={path.length === 0}>
        {path.length === 0 ? (
          <Welcome />
        ) : (
          path.map((message, i) => (
            <MessageView
              key={message.id}
              conversation={id}
              message={message}
              live={run?.message === message.id ? run.live : null}
              isLast={i === path.length - 1}
            />
          ))
        )}
      </Log>
      <Composer key={id} conversation={conversation} onSend={() => go({ view: "chat", id }, true)} />
      {settings.value && <SettingsDialog conversation={conversation} onClose={() => (settings.value = false)} />}
    </section>
  );
}

function Welcome() {
  return (
    <div class="welcome">
      <p>What would you like to know?</p>
      <p class="muted">It is answered on this server, and kept in this browser alone.</p>
    </div>
  );
}

function ModelChoice({ conversation }: { conversation: Conversation }) {
  const known = names.value;
  const { id, model } = conversation;
  // One that was talked with and is gone is still shown, so that it is plain who is asked.
  const options = model !== "" && !known.includes(model) ? [model, ...known] : known;
  if (options.length === 0) return null;
  return (
    <select
      class="model-choice"
      aria-label="Model"
      value={model === "" ? options[0] : model}
      onFocus={() => void readNames()}
      onChange={(event) => setModel(id, event.currentTarget.value)}
    >
      {options.map((name) => (
        <option key={name} value={name}>
          {name}
        </option>
      ))}
    </select>
  );
}

/** How near the end one must be for the end to be kept in sight. */
const NEAR_PX = 60;

/** The messages, which are scrolled along while they grow, unless somebody reads further up. */
function Log(props: { isGrowing: boolean; isEmpty: boolean; children: preact.ComponentChildren }) {
  const { isGrowing, isEmpty, children } = props;
  const place = useRef<HTMLDivElement>(null);
  const inner = useRef<HTMLDivElement>(null);
  const follows = useRef(true);
  const last = useRef(0);
  const isAway = useSignal(false);
  const toEnd = () => {
    const log = place.current;
    if (log) log.scrollTop = log.scrollHeight;
  };
  useEffect(() => {
    const watch = new ResizeObserver(() => {
      if (follows.current) toEnd();
    });
    if (inner.current) watch.observe(inner.current);
    toEnd();
    return () => watch.disconnect();
  }, []);
  useEffect(() => {
    // Whoever has said something wants to see what becomes of it.
    if (isGrowing) {
      follows.current = true;
      toEnd();
    }
  }, [isGrowing]);
  const onScroll = () => {
    const log = place.current;
    if (!log) return;
    const isNear = log.scrollHeight - log.scrollTop - log.clientHeight < NEAR_PX;
    // What grows meanwhile leads away from the end as well, but only somebody scrolls up.
    if (isNear || log.scrollTop < last.current) follows.current = isNear;
    last.current = log.scrollTop;
    isAway.value = !follows.current;
  };
  return (
    <div class="log-frame">
      <div class="log" ref={place} onScroll={onScroll} tabIndex={0} role="region" aria-label="Messages">
        <div class={isEmpty ? "log-inner empty" : "log-inner"} ref={inner}>
          {children}
        </div>
      </div>
      {isAway.value && (
        <button type="button" class="to-end" onClick={toEnd}>
          <Icon name="down" /> To the end
        </button>
      )}
    </div>
  );
}
