/** Where memory goes, how fast that makes a model, and what another budget would do. */
import { useSignal } from "@preact/signals";
import { useEffect, useId } from "preact/hooks";

import type { Kind, Model, State } from "../api/manage";
import { doing, loadModel } from "../models/actions";
import { Bar, ManageNote, StateNote } from "../models/view";
import { state, watchState } from "../server";
import { bytes, parseBytes, percent, plural, rate } from "../units";
import { Drawing, Legend, ShareBar, Table } from "./drawing";
import { layout, rows, scaleOf } from "./layout";
import { answer, isAsking, wish } from "./wish";

const POLL_MS = 1000;
const MIB = 1 << 20;
/** How many steps the slider has, at least. */
const N_STEPS = 100;

export function MemoryView() {
  useEffect(() => {
    const stop = watchState(POLL_MS);
    return () => {
      stop();
      wish.value = null;
    };
  }, []);
  const now = state.value;
  return (
    <div class="page wide">
      <h1>Memory</h1>
      <StateNote />
      {now && <Content state={now} />}
    </div>
  );
}

function Content({ state }: { state: State }) {
  const picked = useSignal<string | null>(null);
  const id = useId();
  const { models } = state;
  const model =
    models.find(({ name }) => name === picked.value) ?? models.find((one) => one.state === "loaded") ?? models[0];
  if (model === undefined) return <p class="muted">This server has no models.</p>;
  const said = answer.value;
  const planned = said && "plan" in said && wish.value?.model === model.name ? said : null;
  const tiers = layout(state);
  const others = planned && layout(state, { model: model.name, things: planned.plan.things });
  const scale = scaleOf(tiers, others ?? []);
  const kinds = new Set<Kind>(
    [...tiers, ...(others ?? [])].flatMap(({ shares }) => shares.flatMap(({ things }) => things.map(({ kind }) => kind))),
  );
  const then = planned && `With ${bytes(planned.ram)}`;
  return (
    <>
      {models.length > 1 && (
        <div class="field pick">
          <label for={id}>Model</label>
          <select
            id={id}
            value={model.name}
            onChange={(event) => {
              picked.value = event.currentTarget.value;
              wish.value = null;
            }}
          >
            {models.map(({ name }) => (
              <option key={name} value={name}>
                {name}
              </option>
            ))}
          </select>
        </div>
      )}
      <Figures model={model} />
      <Budget key={model.name} model={model} state={state} />
      <section class="card" aria-label="What lies where">
        <div class={others ? "drawings two" : "drawings"}>
          <Drawing title="Now" tiers={tiers} scale={scale} />
          {others && then && <Drawing title={then} tiers={others} scale={scale} />}
        </div>
        <Legend kinds={kinds} />
        <details>
          <summary>As a table</summary>
          <Table rows={rows(tiers, others)} then={then} />
        </details>
      </section>
    </>
  );
}

/** How fast a model is, and why not faster. */
function Figures({ model: { rates, predicted, name } }: { model: Model }) {
  const { generation, prompt, bytes_per_token, wait_share } = rates;
  const perSecond = generation === null ? null : generation * bytes_per_token;
  return (
    <dl class="figures" aria-label={`Rates of ${name}`}>
      <Figure name="Answers" value={generation} unit="tokens/s">
        {predicted && `${rate(predicted.generation)} predicted`}
      </Figure>
      <Figure name="Prompts" value={prompt} unit="tokens/s">
        {predicted && `${rate(predicted.prompt)} predicted`}
      </Figure>
      <div class="figure">
        <dt>Set by</dt>
        <dd>
          <span class="big">{predicted?.bound ?? "–"}</span>
        </dd>
      </div>
      <div class="figure">
        <dt>Read for a token</dt>
        <dd>
          <span class="big">{bytes(bytes_per_token)}</span>
          <span class="hint">{perSecond !== null && `${bytes(perSecond)}/s`}</span>
        </dd>
      </div>
      <div class="figure">
        <dt>Time spent waiting</dt>
        <dd>
          <span class="big">{wait_share === null ? "–" : <ShareBar share={wait_share} />}</span>
        </dd>
      </div>
    </dl>
  );
}

function Figure(props: { name: string; value: number | null; unit: string; children: preact.ComponentChildren }) {
  const { name, value, unit, children } = props;
  return (
    <div class="figure">
      <dt>{name}</dt>
      <dd>
        <span class="big">
          {value === null ? "–" : rate(value)}
          {value !== null && <small> {unit}</small>}
        </span>
        <span class="hint">{children}</span>
      </dd>
    </div>
  );
}

/** A slider for how much RAM a model may have, with what that would make of it. */
function Budget({ model, state }: { model: Model; state: State }) {
  const [slider, field, hint] = [useId(), useId(), useId()];
  const present = model.ram_bytes ?? state.ram.bytes - (state.ram.server ?? 0);
  const wanted = wish.value?.model === model.name ? wish.value.ram : present;
  const most = Math.max(state.ram.bytes - (state.ram.server ?? 0), present);
  const step = Math.max(MIB, 2 ** Math.floor(Math.log2(most / N_STEPS)));
  const want = (ram: number) => {
    wish.value = ram === present ? null : { model: model.name, ram };
  };
  const busy = doing.value.get(model.name);
  const isLoading = model.state === "loading" || busy?.error === null;
  return (
    <section class="card budget" aria-label="Budget">
      <div class="budget-top">
        <label for={slider}>RAM that {model.name} may have</label>
        <input
          id={field}
          class="amount"
          aria-label="RAM, as a number with its unit"
          key={wanted}
          defaultValue={bytes(wanted)}
          onChange={(event) => {
            const typed = parseBytes(event.currentTarget.value);
            if (typed === null) event.currentTarget.value = bytes(wanted);
            else want(Math.max(MIB, Math.min(most, typed)));
          }}
        />
      </div>
      <input
        id={slider}
        type="range"
        min={step}
        max={most}
        step="any"
        value={wanted}
        aria-valuetext={bytes(wanted)}
        aria-describedby={hint}
        onInput={(event) => want(snapped(Number(event.currentTarget.value), step, most))}
        onKeyDown={(event) => {
          const by = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10 }[event.key];
          if (by === undefined) return;
          event.preventDefault();
          want(Math.max(step, Math.min(most, wanted + by * step)));
        }}
      />
      <div class="budget-ends hint" aria-hidden="true">
        <span>{bytes(step)}</span>
        <span>{bytes(most)}</span>
      </div>
      <div id={hint} class={isAsking.value ? "outcome asking" : "outcome"} role="status">
        <Outcome model={model} canManage={state.can_manage} isLoading={isLoading} />
      </div>
      {model.state === "loading" && (
        <Bar label={`Loading ${model.name}`} share={model.progress} text={model.progress === null ? "" : percent(model.progress)} />
      )}
      {busy?.error && (
        <p class="failure" role="alert">
          {busy.error}
        </p>
      )}
      {!state.can_manage && <ManageNote />}
    </section>
  );
}

/** The nearest step; the ends are what they are. */
function snapped(ram: number, step: number, most: number): number {
  return most - ram < step / 2 ? most : Math.max(step, Math.round(ram / step) * step);
}

/** What the server says to the budget. */
function Outcome({ model, canManage, isLoading }: { model: Model; canManage: boolean; isLoading: boolean }) {
  const said = answer.value;
  if (wish.value?.model !== model.name || said === null) {
    return <p class="hint">Move it to see what another budget would do.</p>;
  }
  if (!("plan" in said)) {
    const { error, floor } = said;
    return (
      <div class="row">
        <p class="error">{error}</p>
        {floor !== null && (
          <button type="button" onClick={() => (wish.value = { model: model.name, ram: floor })}>
            Take the least: {bytes(floor)}
          </button>
        )}
      </div>
    );
  }
  const { plan, ram } = said;
  const before = model.predicted?.generation ?? null;
  const after = plan.predicted.generation;
  const change = before ? after / before - 1 : null;
  const apply = async () => {
    if (await loadModel(model, ram)) wish.value = null;
  };
  return (
    <div class="row spread">
      <p>
        <strong class="then">{rate(after)}</strong> tokens/s predicted
        {change !== null && Math.abs(change) >= 0.005 && (
          <span class={change > 0 ? "better" : "worse"}>
            {" "}
            ({percent(Math.abs(change))} {change > 0 ? "faster" : "slower"})
          </span>
        )}
        , set by {plan.predicted.bound}; {rate(plan.predicted.prompt)} tokens/s of prompts; a context of{" "}
        {plural(plan.n_ctx, "token")}
      </p>
      <div class="row">
        <button type="button" onClick={() => (wish.value = null)}>
          Back
        </button>
        {canManage && (
          <button type="button" class="primary" disabled={isLoading || isAsking.value} onClick={() => void apply()}>
            Apply
          </button>
        )}
      </div>
    </div>
  );
}
