/** Where one writes. */
import { useSignal } from "@preact/signals";
import { useLayoutEffect, useRef } from "preact/hooks";

import { Icon } from "../ui/icons";
import type { Conversation } from "./conversation";
import { runs, send } from "./run";

export function Composer({ conversation, onSend }: { conversation: Conversation; onSend: () => void }) {
  const { id } = conversation;
  const text = useSignal("");
  const field = useRef<HTMLTextAreaElement>(null);
  const run = runs.value.get(id);
  const isPhone = matchMedia("(pointer: coarse)").matches;
  useLayoutEffect(() => {
    // A keyboard that comes up by itself would hide half of a phone.
    if (!isPhone) field.current?.focus();
  }, []);
  const submit = () => {
    if (text.value.trim() === "" || run !== undefined) return;
    send(id, text.value.trim());
    text.value = "";
    onSend();
  };
  return (
    <form
      class="composer"
      onSubmit={(event) => {
        event.preventDefault();
        submit();
      }}
    >
      <div class="composer-box">
        <textarea
          ref={field}
          rows={1}
          aria-label="Message"
          placeholder="Write a message"
          value={text.value}
          onInput={(event) => {
            text.value = event.currentTarget.value;
          }}
          onKeyDown={(event) => {
            if (event.key === "Escape" && run) run.stop();
            if (event.key !== "Enter" || event.shiftKey || event.isComposing || isPhone) return;
            event.preventDefault();
            submit();
          }}
        />
        {run ? (
          <button type="button" class="round" aria-label="Stop" title="Stop (Escape)" onClick={run.stop}>
            <Icon name="stop" />
          </button>
        ) : (
          <button type="submit" class="round primary" aria-label="Send" title="Send (Enter)" disabled={text.value.trim() === ""}>
            <Icon name="send" />
          </button>
        )}
      </div>
    </form>
  );
}
