/** Asks for the server's key. */
import { useId } from "preact/hooks";

import { asking } from "../api/http";
import { Dialog } from "./dialog";

export function KeyDialog() {
  const asked = asking.value;
  const [field, hint] = [useId(), useId()];
  if (asked === null) return null;
  return (
    <Dialog title="This server asks for a key" onClose={() => asked.answer(null)}>
      <form
        class="stack"
        onSubmit={(event) => {
          event.preventDefault();
          const key = String(new FormData(event.currentTarget).get("key") ?? "").trim();
          if (key !== "") asked.answer(key);
        }}
      >
        <label for={field}>Key</label>
        <input id={field} name="key" type="password" autocomplete="off" required autofocus aria-describedby={hint} />
        <p id={hint} class={asked.wasWrong ? "error" : "muted"}>
          {asked.wasWrong ? "That key is not one of the server’s." : "It is kept until this tab is closed, in this tab alone."}
        </p>
        <footer class="row end">
          <button type="submit" class="primary">
            Continue
          </button>
        </footer>
      </form>
    </Dialog>
  );
}
