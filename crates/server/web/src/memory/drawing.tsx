/** The memories, drawn to one scale. */
import { KINDS, type Kind } from "../api/manage";
import { bytes, percent } from "../units";
import { KIND_NAMES, type Row, type TierLayout } from "./layout";

/** Bars as long as the memories, of parts as long as what is in them. */
export function Drawing({ title, tiers, scale }: { title: string; tiers: TierLayout[]; scale: number }) {
  const isShared = new Set(tiers.flatMap(({ shares }) => shares.map(({ model }) => model))).size > 1;
  return (
    <section class="drawing" aria-label={title}>
      <h2>{title}</h2>
      {tiers.map((tier) => (
        <TierBar key={tier.key} tier={tier} scale={scale} isShared={isShared} />
      ))}
    </section>
  );
}

function TierBar({ tier, scale, isShared }: { tier: TierLayout; scale: number; isShared: boolean }) {
  const { name, capacity, used, shares } = tier;
  const length = Math.max(capacity ?? 0, used);
  const of = capacity === null ? bytes(used) : `${bytes(used)} of ${bytes(capacity)}`;
  const said = shares.flatMap(({ model, things }) =>
    things.map(({ kind, bytes: n }) => `${isShared ? `${model}: ` : ""}${KIND_NAMES[kind]} ${bytes(n)}`),
  );
  const isOver = capacity !== null && used > capacity;
  return (
    <div class="tier">
      <p class="tier-name">
        <strong>{name}</strong> <span class={isOver ? "error" : ""}>{of}</span>
      </p>
      <div
        class={capacity === null ? "tier-bar open" : "tier-bar"}
        style={{ width: `${(100 * length) / scale}%` }}
        role="img"
        aria-label={`${name}: ${of}. ${said.join("; ")}`}
      >
        {shares.map(({ model, things, bytes: n }) => (
          <div key={model} class="share" style={{ width: `${(100 * n) / length}%` }}>
            {things.map((thing, i) => (
              <div
                key={`${thing.kind} ${thing.name} ${i}`}
                class={`part ${thing.kind}`}
                style={{ width: `${(100 * thing.bytes) / n}%` }}
                title={`${isShared ? `${model}: ` : ""}${thing.name} (${KIND_NAMES[thing.kind]}), ${bytes(thing.bytes)}`}
              />
            ))}
          </div>
        ))}
      </div>
      {isShared && shares.length > 0 && (
        <div class="tier-models" style={{ width: `${(100 * length) / scale}%` }} aria-hidden="true">
          {shares.map(({ model, bytes: n }) => (
            <div key={model} style={{ width: `${(100 * n) / length}%` }}>
              <span>{model}</span>
            </div>
          ))}
        </div>
      )}
    </div>
  );
}

/** Which pattern is what. */
export function Legend({ kinds }: { kinds: Set<Kind> }) {
  return (
    <ul class="legend" aria-label="What the patterns are">
      {KINDS.filter((kind) => kinds.has(kind)).map((kind) => (
        <li key={kind}>
          <span class={`part swatch ${kind}`} aria-hidden="true" />
          {KIND_NAMES[kind]}
        </li>
      ))}
    </ul>
  );
}

/** The drawings as a table. */
export function Table({ rows, then }: { rows: Row[]; then: string | null }) {
  return (
    <div class="table" tabIndex={0} role="region" aria-label="What lies where, as a table">
      <table>
        <caption class="unseen">What lies where</caption>
        <thead>
          <tr>
            <th scope="col">Model</th>
            <th scope="col">What</th>
            <th scope="col">Where</th>
            <th scope="col" class="number">
              Now
            </th>
            {then && (
              <th scope="col" class="number">
                {then}
              </th>
            )}
          </tr>
        </thead>
        <tbody>
          {rows.map(({ model, name, kind, tier, now, then: planned }) => (
            <tr key={`${model} ${name} ${kind} ${tier}`}>
              <th scope="row">{model}</th>
              <td>
                <span class={`part swatch ${kind}`} aria-hidden="true" />
                {KIND_NAMES[kind]} <span class="muted">{name}</span>
              </td>
              <td>{tier}</td>
              <td class="number">{bytes(now)}</td>
              {planned !== null && <td class="number">{bytes(planned)}</td>}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

/** A share from 0 to 1, as a number and as long as it is. */
export function ShareBar({ share }: { share: number }) {
  return (
    <span class="share-bar">
      {percent(share)}
      <span aria-hidden="true">
        <i style={{ width: `${100 * Math.max(0, Math.min(1, share))}%` }} />
      </span>
    </span>
  );
}
