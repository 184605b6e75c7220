/** The page's signs: strokes on a grid of 20. */
const PATHS = {
  plus: "M10 4v12M4 10h12",
  menu: "M3.5 6h13M3.5 10h13M3.5 14h13",
  sliders: "M3 6h7m4 0h3M3 14h3m4 0h7M12 4v4M8 12v4",
  send: "M10 16V4.5M5 9.5l5-5 5 5",
  stop: "M6 6h8v8H6z",
  copy: "M7 7V4h9v9h-3M4 7h9v9H4z",
  pencil: "M4 16l.8-3.4L13.4 4l2.6 2.6-8.6 8.6L4 16zM11.6 5.8l2.6 2.6",
  trash: "M4 6h12M8 6V4h4v2M6 6l.7 10h6.6L14 6M8.7 9v4.5M11.3 9v4.5",
  again: "M15.5 8.5A6 6 0 1 0 16 11M16 4.5v4h-4",
  left: "M12 5l-5 5 5 5",
  right: "M8 5l5 5-5 5",
  down: "M10 4v11M5 10.5l5 5 5-5",
  out: "M10 12V3.5M6.5 7L10 3.5 13.5 7M4 12.5V16h12v-3.5",
  in: "M10 3.5V12M6.5 8.5L10 12l3.5-3.5M4 12.5V16h12v-3.5",
  search: "M8.7 14a5.3 5.3 0 1 0 0-10.6 5.3 5.3 0 0 0 0 10.6zM12.6 12.6L17 17",
  close: "M5 5l10 10M15 5L5 15",
  tool: "M12.5 3.6a4 4 0 0 0-4.7 5.3L3.5 13.2l3.3 3.3 4.3-4.3a4 4 0 0 0 5.3-4.7l-2.5 2.5-2.9-1 -1-2.9z",
} as const;

export type IconName = keyof typeof PATHS;

export function Icon({ name }: { name: IconName }) {
  return (
    <svg class="icon" viewBox="0 0 20 20" aria-hidden="true">
      <path d={PATHS[name]} />
    </svg>
  );
}

/** A button that is a sign alone, with its name for those who don't see it and those who ask. */
export function IconButton(props: {
  name: IconName;
  label: string;
  onClick: (event: MouseEvent) => void;
  disabled?: boolean;
  class?: string;
}) {
  const { name, label, onClick, disabled = false } = props;
  return (
    <button
      type="button"
      class={`plain square ${props.class ?? ""}`}
      aria-label={label}
      title={label}
      disabled={disabled}
      onClick={onClick}
    >
      <Icon name={name} />
    </button>
  );
}
