/** From what was typed as settings to what the server is asked. */
import type { ChatRequest } from "../api/completions";
import { NUMBERS, type Settings } from "./conversation";

interface Field {
  label: string;
  hint: string;
  min: number;
  max: number;
  whole: boolean;
}

/** What each number may be, as the server has it. */
export const FIELDS: Record<(typeof NUMBERS)[number], Field> = {
  temperature: { label: "Temperature", hint: "0 always takes the likeliest token", min: 0, max: 100, whole: false },
  top_p: { label: "Top P", hint: "the likeliest tokens that make up this share", min: 0, max: 1, whole: false },
  top_k: { label: "Top K", hint: "so many of the likeliest; 0 for all", min: 0, max: 1e6, whole: true },
  min_p: { label: "Min P", hint: "at least this share of the likeliest", min: 0, max: 1, whole: false },
  max_tokens: { label: "Most tokens", hint: "after which an answer is cut", min: 1, max: 1e9, whole: true },
  seed: { label: "Seed", hint: "the same number gives the same answer", min: 0, max: 2 ** 53 - 1, whole: true },
};

/** What is wrong with a number, or `null`. */
export function wrongNumber(name: (typeof NUMBERS)[number], text: string): string | null {
  if (text.trim() === "") return null;
  const { min, max, whole } = FIELDS[name];
  const value = Number(text.replace(",", "."));
  if (!Number.isFinite(value)) return "This is no number.";
  if (whole && !Number.isInteger(value)) return "This must be a whole number.";
  if (value < min) return `This must be at least ${min}.`;
  if (value > max) return `This must be at most ${max}.`;
  return null;
}

/** What is wrong with the text of tools, or `null`. */
export function wrongTools(text: string): string | null {
  if (text.trim() === "") return null;
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    return `This is not JSON: ${error instanceof Error ? error.message : ""}`;
  }
  return Array.isArray(value) ? null : "This must be a JSON array of tools.";
}

/** The settings' part of a request. What is wrong is left out: it was told where it was typed. */
export function asked(settings: Settings): Partial<ChatRequest> {
  const request: Partial<ChatRequest> = {};
  for (const name of NUMBERS) {
    const text = settings[name];
    if (text.trim() !== "" && wrongNumber(name, text) === null) request[name] = Number(text.replace(",", "."));
  }
  if (settings.tools.trim() !== "" && wrongTools(settings.tools) === null) {
    const tools = JSON.parse(settings.tools) as unknown[];
    if (tools.length > 0) request.tools = tools;
  }
  return request;
}
