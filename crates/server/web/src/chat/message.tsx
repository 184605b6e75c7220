/** A message, as it is or as it grows. */
import { type Signal, useSignal } from "@preact/signals";
import { memo } from "preact/compat";
import { useLayoutEffect, useRef } from "preact/hooks";

import type { Call } from "../api/completions";
import { Markdown } from "../markdown";
import { names } from "../server";
import { count, plural, rate } from "../units";
import { copyText } from "../ui/clipboard";
import { IconButton } from "../ui/icons";
import { say } from "../ui/notice";
import { following, type Message, openCalls, shown, type Took } from "./conversation";
import { again, sendInstead, sendResults } from "./run";
import { change, current } from "./store";

interface Props {
  conversation: string;
  message: Message;
  /** Of one that is being made: how it is now. */
  live: Signal<Message> | null;
  isLast: boolean;
}

/** Drawn again only if the message is another, or grows. */
export const MessageView = memo(function MessageView({ conversation, message, live, isLast }: Props) {
  if (message.role === "user") return <Said conversation={conversation} message={message} />;
  if (message.role === "tool") return <Result message={message} />;
  if (live) return <Growing live={live} />;
  return <Answer conversation={conversation} message={message} isLast={isLast} />;
});

function Said({ conversation, message }: { conversation: string; message: Message }) {
  const edits = useSignal(false);
  if (edits.value) {
    return <Edit conversation={conversation} message={message} onEnd={() => (edits.value = false)} />;
  }
  return (
    <article class="message user" aria-label="You">
      <div class="bubble">{message.content}</div>
      <div class="actions">
        <Alternatives conversation={conversation} message={message} />
        <IconButton name="pencil" label="Edit" onClick={() => (edits.value = true)} />
        <IconButton name="copy" label="Copy" onClick={() => void copy(message.content)} />
      </div>
    </article>
  );
}

function Edit({ conversation, message, onEnd }: { conversation: string; message: Message; onEnd: () => void }) {
  const field = useRef<HTMLTextAreaElement>(null);
  // Before anything more is typed.
  useLayoutEffect(() => {
    field.current?.focus();
    field.current?.setSelectionRange(message.content.length, message.content.length);
  }, []);
  const submit = () => {
    const text = field.current?.value.trim() ?? "";
    if (text === "") return;
    onEnd();
    sendInstead(conversation, message, text);
  };
  return (
    <form
      class="message user editing"
      aria-label="Edit the message"
      onSubmit={(event) => {
        event.preventDefault();
        submit();
      }}
      onKeyDown={(event) => {
        if (event.key === "Escape") onEnd();
        if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) submit();
      }}
    >
      <textarea ref={field} aria-label="Message, anew" defaultValue={message.content} rows={3} />
      <div class="row end">
        <button type="button" onClick={onEnd}>
          Cancel
        </button>
        <button type="submit" class="primary">
          Send
        </button>
      </div>
    </form>
  );
}

function Result({ message }: { message: Message }) {
  return (
    <article class="message result" aria-label="Result of a tool">
      <details>
        <summary>Result</summary>
        <pre tabIndex={0}>{message.content}</pre>
      </details>
    </article>
  );
}

function Growing({ live }: { live: Signal<Message> }) {
  const message = live.value;
  const isWaiting = message.content === "" && !message.reasoning && !message.calls;
  return (
    <article class="message assistant growing" aria-label="Answer" aria-busy="true">
      <Reasoning text={message.reasoning} isOver={message.content !== ""} />
      <Markdown text={message.content} />
      {message.calls?.map((call) => <CallView key={call.id} call={call} />)}
      {isWaiting && (
        <p class="waiting">
          <span class="unseen">The model reads.</span>
          <i />
          <i />
          <i />
        </p>
      )}
    </article>
  );
}

/** Why an answer is not whole. */
const ENDS: Record<string, string> = {
  length: "The answer was cut: as many tokens as it may have.",
  stopped: "Stopped.",
  interrupted: "The page was closed before the end.",
};

function Answer({ conversation, message, isLast }: { conversation: string; message: Message; isLast: boolean }) {
  const end = ENDS[message.ended ?? ""];
  return (
    <article class="message assistant" aria-label="Answer">
      <Reasoning text={message.reasoning} isOver />
      <Markdown text={message.content} />
      {message.calls?.map((call) => <CallView key={call.id} call={call} />)}
      {isLast && message.calls && <Results conversation={conversation} />}
      {message.error && (
        <div class="failure" role="alert">
          <p>{message.error}</p>
          <button type="button" onClick={() => again(conversation, message)}>
            Try again
          </button>
        </div>
      )}
      <div class="actions">
        <Alternatives conversation={conversation} message={message} />
        <IconButton name="copy" label="Copy" onClick={() => void copy(message.content)} />
        <IconButton name="again" label="Answer again" onClick={() => again(conversation, message)} />
        <span class="took">
          {end && <span>{end}</span>}
          {message.took && <Rates took={message.took} />}
          {names.value.length > 1 && message.model && <span>{message.model}</span>}
        </span>
      </div>
    </article>
  );
}

function Rates({ took }: { took: Took }) {
  const { nGenerated, isAbout, nPrompt, nCached, readMs, writeMs } = took;
  // The first token belongs to the time in which the prompt is read.
  const perSecond = nGenerated > 1 && writeMs > 0 ? (1000 * (nGenerated - 1)) / writeMs : null;
  const read = nPrompt > 0 ? `${plural(nPrompt, "token")} of prompt${nCached > 0 ? `, ${count(nCached)} of them known` : ""}; ` : "";
  return (
    <span title={`${read}the first word after ${(readMs / 1000).toFixed(2)} s`}>
      {perSecond !== null && `${isAbout ? "about " : ""}${rate(perSecond)} tokens/s · `}
      {`${isAbout ? "about " : ""}${plural(nGenerated, "token")}`}
    </span>
  );
}

function Reasoning({ text, isOver }: { text: string | undefined; isOver: boolean }) {
  if (!text) return null;
  return (
    <details class="reasoning">
      <summary>{isOver ? "Reasoning" : "Reasoning…"}</summary>
      <Markdown text={text} />
    </details>
  );
}

function CallView({ call }: { call: Call }) {
  return (
    <div class="call" role="group" aria-label={`Call of ${call.name}`}>
      <p>
        Calls <code>{call.name}</code>
      </p>
      <pre tabIndex={0} role="region" aria-label="Arguments">
        {pretty(call.arguments)}
      </pre>
    </div>
  );
}

function pretty(text: string): string {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

/** Where one writes what the tools give, which nobody calls here. */
function Results({ conversation }: { conversation: string }) {
  const held = current.value?.value;
  if (held?.id !== conversation) return null;
  const calls = openCalls(shown(held));
  if (calls.length === 0) return null;
  return (
    <form
      class="results stack"
      aria-label="Results of the calls"
      onSubmit={(event) => {
        event.preventDefault();
        const form = new FormData(event.currentTarget);
        sendResults(
          conversation,
          calls.map((call) => ({ call, content: String(form.get(call.id) ?? "") })),
        );
      }}
    >
      {calls.map((call) => (
        <label key={call.id}>
          Result of <code>{call.name}</code>
          <textarea name={call.id} rows={2} required />
        </label>
      ))}
      <div class="row end">
        <button type="submit" class="primary">
          {calls.length === 1 ? "Give the result" : "Give the results"}
        </button>
      </div>
    </form>
  );
}

/** Which of a message's alternatives is shown. */
function Alternatives({ conversation, message }: { conversation: string; message: Message }) {
  const held = current.value?.value;
  if (held?.id !== conversation) return null;
  const all = following(held, message.parent);
  if (all.length < 2) return null;
  const at = all.findIndex(({ id }) => id === message.id);
  const show = (to: number) => {
    const other = all[to];
    if (!other) return;
    change(conversation, (old) => ({ ...old, chosen: { ...old.chosen, [message.parent]: other.id } }));
  };
  return (
    <span class="alternatives" role="group" aria-label="Alternatives">
      <IconButton name="left" label="The one before" disabled={at === 0} onClick={() => show(at - 1)} />
      <span aria-label={`${at + 1} of ${all.length}`}>{`${at + 1}/${all.length}`}</span>
      <IconButton name="right" label="The next one" disabled={at === all.length - 1} onClick={() => show(at + 1)} />
    </span>
  );
}

async function copy(text: string): Promise<void> {
  say((await copyText(text)) ? "Copied." : "The browser did not copy it.");
}
