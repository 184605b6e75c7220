/** Windows over the page: the browser's own, which keep the focus and end with Escape. */
import { signal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useId, useLayoutEffect, useRef } from "preact/hooks";

import { IconButton } from "./icons";

export function Dialog(props: {
  title: string;
  onClose: () => void;
  children: ComponentChildren;
  /** In the middle, or at a side as high as the page. */
  side?: "left" | "right";
}) {
  const { title, onClose, children, side } = props;
  const place = useRef<HTMLDialogElement>(null);
  const id = useId();
  useLayoutEffect(() => {
    const before = document.activeElement;
    place.current?.showModal();
    return () => {
      if (before instanceof HTMLElement && before.isConnected) before.focus();
    };
  }, []);
  return (
    <dialog
      ref={place}
      class={side ?? "middle"}
      aria-labelledby={id}
      onClose={onClose}
      onClick={(event) => {
        // Beside it.
        if (event.target === place.current) place.current?.close();
      }}
    >
      <div class="dialog">
        <header>
          <h2 id={id}>{title}</h2>
          <IconButton name="close" label="Close" onClick={() => place.current?.close()} />
        </header>
        {children}
      </div>
    </dialog>
  );
}

interface Question {
  title: string;
  text: string;
  action: string;
  answer: (yes: boolean) => void;
}

const question = signal<Question | null>(null);

/** Asks before something that can't be undone. */
export function confirm(title: string, text: string, action: string): Promise<boolean> {
  question.peek()?.answer(false);
  return new Promise((resolve) => {
    const answer = (yes: boolean) => {
      question.value = null;
      resolve(yes);
    };
    question.value = { title, text, action, answer };
  });
}

export function Confirmation() {
  const asked = question.value;
  if (asked === null) return null;
  return (
    <Dialog title={asked.title} onClose={() => asked.answer(false)}>
      <p>{asked.text}</p>
      <footer class="row end">
        <button type="button" onClick={() => asked.answer(false)} autofocus>
          Cancel
        </button>
        <button type="button" class="danger" onClick={() => asked.answer(true)}>
          {asked.action}
        </button>
      </footer>
    </Dialog>
  );
}
