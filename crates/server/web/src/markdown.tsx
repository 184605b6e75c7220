/**
 * What a model says, as it means it to look. Its HTML is shown as text; of what Markdown makes, DOMPurify leaves only what
 * the lists here name; and the page's policy forbids the rest a third time. Nothing is loaded: an image is a link.
 */
import DOMPurify, { type Config } from "dompurify";
import { Marked, type Token } from "marked";
import { useLayoutEffect, useMemo, useRef } from "preact/hooks";

import { copyText } from "./ui/clipboard";

/** How long a button says that it has copied. */
const COPIED_MS = 2000;

const SANITIZE: Config & { RETURN_DOM_FRAGMENT: true } = {
  ALLOWED_TAGS: [
    ...["p", "br", "hr", "h1", "h2", "h3", "h4", "h5", "h6", "blockquote", "pre", "code", "em", "strong", "del", "a"],
    ...["ul", "ol", "li", "input", "table", "thead", "tbody", "tr", "th", "td"],
  ],
  ALLOWED_ATTR: ["href", "title", "class", "start", "type", "checked", "disabled", "align"],
  ALLOWED_URI_REGEXP: /^(?:https?|mailto):/i,
  // What is no address isn't held to being one.
  ADD_URI_SAFE_ATTR: ["start", "type", "checked", "disabled", "align"],
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  RETURN_DOM_FRAGMENT: true,
};

const ESCAPES: Record<string, string> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };

function escape(text: string): string {
  return text.replace(/[&<>"']/g, (letter) => ESCAPES[letter] ?? letter);
}

const marked = new Marked({
  gfm: true,
  breaks: true,
  renderer: {
    html: ({ text }) => escape(text),
    image: ({ href, text }) => `<a href="${escape(href)}">${escape(text || href)}</a>`,
  },
});

/** A text as Markdown. While it grows, only its last block is made anew. */
export function Markdown({ text }: { text: string }) {
  const blocks = useMemo(() => blocksOf(text), [text]);
  return (
    <div class="prose">
      {blocks.map((html, i) => (
        <Block key={i} html={html} />
      ))}
    </div>
  );
}

/** The HTML of each block, not yet sanitized. */
function blocksOf(text: string): string[] {
  const tokens = marked.lexer(text);
  return tokens.filter(({ type }) => type !== "space" && type !== "def").map((token: Token) => marked.parser([token]));
}

function Block({ html }: { html: string }) {
  const place = useRef<HTMLDivElement>(null);
  useLayoutEffect(() => {
    const fragment = DOMPurify.sanitize(html, SANITIZE);
    finish(fragment);
    place.current?.replaceChildren(fragment);
  }, [html]);
  return <div class="block" ref={place} />;
}

/** What is the page's own to add. */
function finish(fragment: DocumentFragment): void {
  for (const link of fragment.querySelectorAll("a")) {
    link.target = "_blank";
    link.rel = "noopener noreferrer";
  }
  for (const box of fragment.querySelectorAll("input")) {
    // Of a list of tasks; nothing else can be one.
    box.type = "checkbox";
    box.disabled = true;
    box.ariaLabel = box.checked ? "done" : "to do";
  }
  for (const table of fragment.querySelectorAll("table")) wrapTable(table);
  for (const code of fragment.querySelectorAll("pre")) wrapCode(code);
  // A heading of an answer is none of the page's.
  for (const heading of fragment.querySelectorAll("h1, h2, h3, h4, h5, h6")) {
    heading.role = "heading";
    heading.ariaLevel = String(Math.min(6, Number(heading.tagName[1]) + 2));
  }
}

/** A wide table is scrolled by itself, with the keyboard as well. */
function wrapTable(table: HTMLTableElement): void {
  const frame = document.createElement("div");
  frame.className = "table";
  frame.tabIndex = 0;
  frame.role = "region";
  frame.ariaLabel = "Table";
  table.replaceWith(frame);
  frame.append(table);
}

function wrapCode(code: HTMLPreElement): void {
  const language = /\blanguage-([\w+#.-]{1,20})/.exec(code.firstElementChild?.className ?? "")?.[1] ?? "";
  const [frame, bar, name, copy] = (["div", "div", "span", "button"] as const).map((tag) => document.createElement(tag));
  if (!frame || !bar || !name || !copy) return;
  frame.className = "code";
  bar.className = "code-bar";
  name.textContent = language;
  copy.textContent = "Copy";
  copy.className = "plain small";
  copy.ariaLabel = language ? `Copy the ${language} code` : "Copy the code";
  copy.addEventListener("click", async () => {
    copy.textContent = (await copyText(code.textContent ?? "")) ? "Copied" : "Not copied";
    setTimeout(() => (copy.textContent = "Copy"), COPIED_MS);
  });
  code.tabIndex = 0;
  code.role = "region";
  code.ariaLabel = language ? `${language} code` : "Code";
  bar.append(name, copy);
  code.replaceWith(frame);
  frame.append(bar, code);
}
