/** The list of conversations. */
import { useSignal } from "@preact/signals";
import { useLayoutEffect, useRef } from "preact/hooks";

import { addressOf, go, route } from "../route";
import { confirm } from "../ui/dialog";
import { Icon, IconButton } from "../ui/icons";
import { runs } from "./run";
import type { Head } from "./shelf";
import { exportFile, found, heads, importFile, remove, rename, search } from "./store";

export function ConversationList() {
  const at = route.value;
  const open = at.view === "chat" ? at.id : null;
  const file = useRef<HTMLInputElement>(null);
  return (
    <div class="list">
      <div class="list-top">
        <button type="button" class="new" onClick={() => go({ view: "chat", id: null })}>
          <Icon name="plus" /> New conversation
        </button>
        <div class="search">
          <Icon name="search" />
          <input
            type="search"
            aria-label="Search the titles"
            placeholder="Search"
            value={search.value}
            onInput={(event) => {
              search.value = event.currentTarget.value;
            }}
          />
        </div>
      </div>
      <ul class="conversations">
        {found.value.map((head) => (
          <Item key={head.id} head={head} isOpen={head.id === open} />
        ))}
      </ul>
      {found.value.length === 0 && (
        <p class="muted pad">{heads.value.length === 0 ? "Conversations will be listed here." : "No title has that."}</p>
      )}
      <div class="row list-end">
        <button type="button" class="plain small" onClick={() => void exportFile(null)} disabled={heads.value.length === 0}>
          <Icon name="out" /> Export
        </button>
        <button type="button" class="plain small" onClick={() => file.current?.click()}>
          <Icon name="in" /> Import
        </button>
        <input
          ref={file}
          type="file"
          hidden
          accept="application/json,.json"
          aria-label="File of conversations"
          onChange={(event) => {
            const chosen = event.currentTarget.files?.[0];
            event.currentTarget.value = "";
            if (chosen) void importFile(chosen);
          }}
        />
      </div>
    </div>
  );
}

function Item({ head, isOpen }: { head: Head; isOpen: boolean }) {
  const renames = useSignal(false);
  const { id } = head;
  const title = head.title || "Untitled";
  if (renames.value) return <Rename id={id} title={head.title} onEnd={() => (renames.value = false)} />;
  const ask = async () => {
    const yes = await confirm("Delete this conversation?", `“${title}” will be gone from this browser.`, "Delete");
    if (!yes) return;
    runs.peek().get(id)?.stop();
    await remove(id);
  };
  return (
    <li class={isOpen ? "item open" : "item"}>
      <a href={addressOf({ view: "chat", id })} aria-current={isOpen ? "true" : undefined}>
        {title}
      </a>
      <span class="item-actions">
        <IconButton name="pencil" label={`Rename “${title}”`} onClick={() => (renames.value = true)} />
        <IconButton name="out" label={`Export “${title}”`} onClick={() => void exportFile(id)} />
        <IconButton name="trash" label={`Delete “${title}”`} onClick={() => void ask()} />
      </span>
    </li>
  );
}

function Rename({ id, title, onEnd }: { id: string; title: string; onEnd: () => void }) {
  const field = useRef<HTMLInputElement>(null);
  const gaveUp = useRef(false);
  useLayoutEffect(() => field.current?.select(), []);
  const end = () => {
    const text = field.current?.value.trim() ?? "";
    if (!gaveUp.current && text !== "" && text !== title) void rename(id, text);
    onEnd();
  };
  return (
    <li class="item">
      <input
        ref={field}
        aria-label="Title"
        defaultValue={title}
        maxLength={200}
        onBlur={end}
        onKeyDown={(event) => {
          if (event.key === "Escape") {
            // Of the drawer that it may be in, no more is closed.
            event.preventDefault();
            event.stopPropagation();
            gaveUp.current = true;
          }
          if (event.key === "Enter" || event.key === "Escape") event.currentTarget.blur();
        }}
      />
    </li>
  );
}
