/** A conversation's settings. */
import { useId } from "preact/hooks";

import { Dialog } from "../ui/dialog";
import { type Conversation, NO_SETTINGS, NUMBERS, type Settings } from "./conversation";
import { FIELDS, wrongNumber, wrongTools } from "./settings";
import { setSettings } from "./store";

export function SettingsDialog({ conversation, onClose }: { conversation: Conversation; onClose: () => void }) {
  const { id, settings } = conversation;
  const set = (name: keyof Settings) => (value: string) => setSettings(id, { ...settings, [name]: value });
  return (
    <Dialog title="Settings" side="right" onClose={onClose}>
      <div class="stack settings">
        <Field label="System prompt" hint="what the model is told first" isLong value={settings.system} onInput={set("system")} />
        <div class="numbers">
          {NUMBERS.map((name) => (
            <Field
              key={name}
              label={FIELDS[name].label}
              hint={FIELDS[name].hint}
              error={wrongNumber(name, settings[name])}
              value={settings[name]}
              onInput={set(name)}
            />
          ))}
        </div>
        <Field
          label="Tools"
          hint="a JSON array, as OpenAI’s API has it; you give the results"
          isLong
          isCode
          error={wrongTools(settings.tools)}
          value={settings.tools}
          onInput={set("tools")}
        />
        <p class="muted">What is empty is the server’s own. New conversations begin with these.</p>
        <div class="row end">
          <button type="button" onClick={() => setSettings(id, NO_SETTINGS)}>
            Empty all
          </button>
        </div>
      </div>
    </Dialog>
  );
}

function Field(props: {
  label: string;
  hint: string;
  value: string;
  error?: string | null;
  isLong?: boolean;
  isCode?: boolean;
  onInput: (value: string) => void;
}) {
  const [id, told] = [useId(), useId()];
  const more = {
    id,
    value: props.value,
    "aria-describedby": told,
    "aria-invalid": props.error ? true : undefined,
    onInput: (event: { currentTarget: { value: string } }) => props.onInput(event.currentTarget.value),
  };
  return (
    <div class="field">
      <label for={id}>{props.label}</label>
      {props.isLong ? (
        <textarea rows={4} class={props.isCode ? "mono" : ""} spellcheck={!props.isCode} {...more} />
      ) : (
        <input inputMode="decimal" placeholder="default" autocomplete="off" {...more} />
      )}
      <p id={told} class={props.error ? "error" : "hint"}>
        {props.error ?? props.hint}
      </p>
    </div>
  );
}
