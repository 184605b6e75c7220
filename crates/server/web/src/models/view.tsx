/** The models that the server has, and what may be done with them. */
import { useEffect, useId } from "preact/hooks";

import type { Model } from "../api/manage";
import { state, stateError, watchState } from "../server";
import { bytes, count, percent, plural } from "../units";
import { Icon, IconButton } from "../ui/icons";
import { deleteModel, doing, type Download, download, downloads, loadModel, putAway, unloadModel } from "./actions";

const POLL_MS = 2000;

export function ModelsView() {
  useEffect(() => watchState(POLL_MS), []);
  const now = state.value;
  return (
    <div class="page">
      <h1>Models</h1>
      <StateNote />
      {now && (
        <>
          {now.can_manage ? <PullForm /> : <ManageNote />}
          {downloads.value.map((one) => (
            <DownloadView key={one.name} download={one} />
          ))}
          <ul class="models">
            {now.models.map((model) => (
              <ModelCard key={model.name} model={model} canManage={now.can_manage} />
            ))}
          </ul>
          {now.models.length === 0 && <p class="muted">This server has no models.</p>}
          <p class="muted about">
            Metallic {now.version} · <a href="licenses.txt">what the page is made of</a>
          </p>
        </>
      )}
    </div>
  );
}

/** Why there is nothing, or nothing new, to see. */
export function StateNote() {
  if (stateError.value) {
    return (
      <p class="failure" role="alert">
        {stateError.value}
      </p>
    );
  }
  if (state.value === null) return <p class="muted">This server doesn’t tell how its models are.</p>;
  if (state.value === undefined) return <p class="muted">Asking the server…</p>;
  return null;
}

export function ManageNote() {
  return (
    <p class="note">
      Here models are only shown. A server that is started with <code>--manage</code> lets its pages load, unload, download
      and delete them.
    </p>
  );
}

const STATES: Record<Model["state"], string> = {
  loaded: "Loaded",
  loading: "Loading",
  unloaded: "Not loaded",
  failed: "Failed",
};

function ModelCard({ model, canManage }: { model: Model; canManage: boolean }) {
  const { name, state, error, progress } = model;
  const what = doing.value.get(name);
  const isBusy = (what !== undefined && what.error === null) || state === "loading";
  const failure = what?.error ?? error;
  return (
    <li class="card model" aria-label={name}>
      <div class="model-head">
        <h2>{name}</h2>
        <span class={`badge ${state}`}>{what && what.error === null ? `${what.verb}…` : STATES[state]}</span>
      </div>
      <Facts model={model} />
      {state === "loading" && (
        <Bar label={`Loading ${name}`} share={progress} text={progress === null ? "" : percent(progress)} />
      )}
      {failure && (
        <p class="failure" role="alert">
          {failure}
        </p>
      )}
      {canManage && (
        <div class="row">
          {state === "loaded" ? (
            <button type="button" disabled={isBusy} onClick={() => void unloadModel(model)} aria-label={`Unload ${name}`}>
              Unload
            </button>
          ) : (
            <button type="button" disabled={isBusy} onClick={() => void loadModel(model)} aria-label={`Load ${name}`}>
              Load
            </button>
          )}
          {state !== "loaded" && (
            <IconButton name="trash" label={`Delete ${name}`} disabled={isBusy} onClick={() => void deleteModel(model)} />
          )}
        </div>
      )}
    </li>
  );
}

function Facts({ model }: { model: Model }) {
  const { file_bytes, n_ctx, n_parallel, n_open, ram_bytes } = model;
  const facts: [string, string][] = [["File", bytes(file_bytes)]];
  if (ram_bytes !== null) facts.push(["RAM", bytes(ram_bytes)]);
  if (n_ctx !== null) facts.push(["Context", plural(n_ctx, "token")]);
  if (n_parallel !== null) facts.push(["At a time", count(n_parallel)]);
  if (model.state === "loaded") facts.push(["Being answered", count(n_open)]);
  return (
    <dl class="facts">
      {facts.map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}

function PullForm() {
  const [id, hint] = [useId(), useId()];
  return (
    <form
      class="pull"
      onSubmit={(event) => {
        event.preventDefault();
        const form = event.currentTarget;
        const name = String(new FormData(form).get("name") ?? "").trim();
        if (name === "") return;
        form.reset();
        void download(name);
      }}
    >
      <label for={id}>Download a model</label>
      <div class="row">
        <input id={id} name="name" required autocomplete="off" spellcheck={false} aria-describedby={hint} />
        <button type="submit" class="primary">
          <Icon name="in" /> Download
        </button>
      </div>
      <p id={hint} class="hint">
        A short name such as <code>smollm2</code>, or <code>hf:OWNER/REPO:QUANT</code>
      </p>
    </form>
  );
}

const ENDS = { done: "Downloaded", stopped: "Stopped", failed: "Failed" } as const;

function DownloadView({ download: { name, progress, end, error, stop } }: { download: Download }) {
  const { total, completed, status } = progress;
  const share = end === "done" ? 1 : total && completed !== null ? completed / total : null;
  const amount = total && completed !== null ? `${bytes(completed)} of ${bytes(total)}` : status;
  return (
    <section class="card download" aria-label={`Download of ${name}`}>
      <div class="model-head">
        <h2>{name}</h2>
        {end === null ? (
          <button type="button" onClick={stop} aria-label={`Stop the download of ${name}`}>
            Stop
          </button>
        ) : (
          <IconButton name="close" label={`Put the download of ${name} away`} onClick={() => putAway(name)} />
        )}
      </div>
      {end === "failed" ? (
        <div class="failure" role="alert">
          <p>{error}</p>
          <button type="button" onClick={() => void download(name)}>
            Try again
          </button>
        </div>
      ) : end === "stopped" ? (
        <p class="muted">{ENDS.stopped}.</p>
      ) : (
        <Bar label={`Download of ${name}`} share={share} text={end ? `${ENDS[end]}.` : amount} />
      )}
    </section>
  );
}

/** How far something is; `null` if nobody knows. */
export function Bar({ label, share, text }: { label: string; share: number | null; text: string }) {
  const value = share === null ? {} : { value: Math.max(0, Math.min(1, share)) };
  return (
    <div class="bar">
      <progress aria-label={label} max={1} {...value} />
      <span>{text}</span>
    </div>
  );
}
